"""Scenes: one thing on a ground, as numbers, as pixels, and as words people would type.

Shapes: B scenes, S = 48 pixels a side; pictures are (B, S, S, 3), float32 in 0..1.
"""

import random
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

SIDE = 48
SHAPES = ("circle", "square", "triangle", "ring")
COLOURS = {
    "red": (0.85, 0.08, 0.10),
    "green": (0.10, 0.65, 0.20),
    "blue": (0.10, 0.25, 0.88),
    "yellow": (0.97, 0.88, 0.15),
    "purple": (0.58, 0.15, 0.72),
    "white": (0.97, 0.97, 0.97),
    "black": (0.05, 0.05, 0.05),
}
SIZES = ("small", "large")
RADII = ((9.5, 10.5), (14.5, 15.5))  # pixels, of each size: half the box that a thing fills
MARGIN = 2.0  # pixels between a thing at its place and the edge
TEXTURES = ("plain", "striped", "checkered")
PALETTE = torch.tensor(list(COLOURS.values()))
SHADE = torch.where(PALETTE.sum(1, keepdim=True) < 0.5, PALETTE + 0.33, PALETTE * 0.62)


@dataclass(frozen=True)
class Scenes:
    """B scenes; every field is a tensor (B,) of indices into the lists above, or of numbers."""

    shape: Tensor
    colour: Tensor
    ground: Tensor  # the background's colour, never that of the thing
    size: Tensor
    across: Tensor  # -1 left, 0 middle, 1 right
    down: Tensor  # -1 top, 0 middle, 1 bottom
    texture: Tensor  # of the thing
    weave: Tensor  # of the background
    radius: Tensor  # pixels
    shake: Tensor  # (B, 2): pixels off the place
    light: Tensor  # (B, 2): brightness of thing and ground

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, rows: Tensor | slice) -> "Scenes":
        return Scenes(*(getattr(self, field.name)[rows] for field in fields(self)))


def invent(count: int, generator: torch.Generator) -> Scenes:
    """That many scenes at random."""

    def among(n: int) -> Tensor:
        return torch.randint(n, (count,), generator=generator)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((count, *shape), generator=generator)

    colours = len(COLOURS)
    colour, size = among(colours), among(2)
    low, high = torch.tensor(RADII)[size].unbind(1)
    return Scenes(
        shape=among(len(SHAPES)),
        colour=colour,
        ground=(colour + 1 + among(colours - 1)) % colours,
        size=size,
        across=among(3) - 1,
        down=among(3) - 1,
        texture=(among(4) - 1).clamp(min=0),  # plain half of the time
        weave=(among(4) - 1).clamp(min=0),
        radius=low + (high - low) * between(0, 1),
        shake=between(-0.75, 0.75, 2),
        light=between(0.94, 1.04, 2),
    )


def draw(scenes: Scenes) -> Tensor:
    """The pictures (B, S, S, 3)."""
    alpha = cover(scenes.shape, *centre(scenes), scenes.radius)[..., None]
    thing = paint(scenes.colour, scenes.texture, scenes.light[:, 0])
    ground = paint(scenes.ground, scenes.weave, scenes.light[:, 1])
    return (ground + alpha * (thing - ground)).clamp(0, 1)


def centre(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Where the things are, in pixels: x (B,), y (B,)."""
    reach = SIDE / 2 - MARGIN - scenes.radius
    x = SIDE / 2 + scenes.across * reach + scenes.shake[:, 0]
    y = SIDE / 2 + scenes.down * reach + scenes.shake[:, 1]
    return x, y


def cover(shape: Tensor, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """How much of each pixel a shape covers, (B, S, S) in 0..1, by its distance to the outline.

    Every shape fills the box of 2 radii a side around its centre.
    """
    at = torch.arange(SIDE) + 0.5
    dx = (at[None, None, :] - x[:, None, None]).abs()
    dy = at[None, :, None] - y[:, None, None]
    r = radius[:, None, None]
    far = (dx**2 + dy**2).sqrt()
    outlines = (
        far - r,
        torch.maximum(dx, dy.abs()) - r,
        torch.maximum(dy - r, (2 * dx - dy - r) / 5**0.5),
        (far - 0.75 * r).abs() - 0.25 * r,
    )
    distance = torch.zeros_like(far)
    for number, outline in enumerate(outlines):
        distance = torch.where((shape == number)[:, None, None], outline, distance)
    return (0.5 - distance).clamp(0, 1)


def patterns() -> Tensor:
    """What each texture darkens, (3, S, S) in 0..1: the same place in every picture."""
    at = torch.arange(SIDE)
    y, x = torch.meshgrid(at, at, indexing="ij")
    stripes, checks = (y % 8 >= 4).float(), ((x // 8 + y // 8) % 2).float()
    return torch.stack([torch.zeros(SIDE, SIDE), stripes, checks])


def paint(colour: Tensor, texture: Tensor, light: Tensor) -> Tensor:
    """A colour and its darker shade (of black: a lighter one) in a pattern, (B, S, S, 3)."""
    bright, dark = PALETTE[colour][:, None, None], SHADE[colour][:, None, None]
    where = patterns()[texture][..., None]
    return (bright + (dark - bright) * where) * light[:, None, None, None]


@dataclass(frozen=True)
class Scene:
    """One scene in words; None or "" where the caption does not say."""

    shape: str = ""
    colour: str = ""
    ground: str = ""
    size: str = ""
    place: str = ""  # "left", "top right", "centre" ...
    texture: str = ""
    weave: str = ""


def place(across: int, down: int) -> str:
    upright, sideways = ("", "bottom", "top")[down], ("", "right", "left")[across]
    return f"{upright} {sideways}".strip() or "centre"


def named(scenes: Scenes, row: int) -> Scene:
    """One of the scenes, everything about it said."""
    colours = list(COLOURS)
    return Scene(
        SHAPES[scenes.shape[row]],
        colours[scenes.colour[row]],
        colours[scenes.ground[row]],
        SIZES[scenes.size[row]],
        place(int(scenes.across[row]), int(scenes.down[row])),
        TEXTURES[scenes.texture[row]],
        TEXTURES[scenes.weave[row]],
    )


ANSWERS = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "ground": tuple(COLOURS),
    "size": SIZES,
    "place": tuple(place(across, down) for down in (-1, 0, 1) for across in (-1, 0, 1)),
    "texture": TEXTURES,
    "weave": TEXTURES,
}  # everything that can be said of a scene
SYNONYMS = {
    "circle": ("circle", "circle", "disc", "ball"),
    "square": ("square", "square", "box"),
    "ring": ("ring", "ring", "donut"),
    "purple": ("purple", "purple", "violet"),
    "small": ("small", "small", "little", "tiny"),
    "large": ("large", "large", "big", "huge"),
    "striped": ("striped", "striped", "stripes"),
    "checkered": ("checkered", "checkered", "checked"),
}
OPENINGS = ("", "", "", "a picture of", "an image of", "a drawing of", "a photo of")
PLACES = ("on the {}", "at the {}", "{}", "in the {}")
CENTRES = ("in the middle", "in the center", "centered", "in the centre", "center")
GROUNDS = (
    *(", {} background", " on a {} background", " on {}", ", background {}"),
    " in front of a {} background",
)


def forget(scene: Scene, dice: random.Random) -> Scene:
    """The scene with only some of it said: what people type rarely says all, and least "plain"."""
    keep = {"shape": 0.85, "colour": 0.8, "ground": 0.55, "size": 0.5, "place": 0.5,
            "texture": 0.7, "weave": 0.7}  # fmt: skip
    rare = {name: 0.25 if getattr(scene, name) == "plain" else 1.0 for name in keep}
    lost = {name: "" for name, chance in keep.items() if dice.random() > chance * rare[name]}
    return replace(scene, **lost)


def caption(scene: Scene, dice: random.Random) -> str:
    """A scene in words, in one of many ways; an empty scene is an empty text."""

    def word(one: str) -> str:
        return dice.choice(SYNONYMS.get(one, (one,)))

    ground = " ".join([word(one) for one in (scene.weave, scene.ground) if one])
    where = ""
    if scene.place:
        middle = scene.place == "centre"
        where = dice.choice(CENTRES if middle else PLACES).format(scene.place)
    said = [word(one) for one in (scene.size, scene.texture, scene.colour) if one]
    if dice.random() < 0.25:
        tags = [" ".join([*said[-1:], word(scene.shape)]) if scene.shape else " ".join(said[-1:])]
        tags += [*said[:-1], where, f"{ground} background" if ground else ""]
        tags = [tag for tag in tags if tag]
        dice.shuffle(tags)
        return ", ".join(tags)
    if dice.random() < 0.3:
        dice.shuffle(said)
    thing = " ".join([*said, word(scene.shape) if scene.shape else ""]).strip()
    if thing and scene.shape and dice.random() < 0.6:
        thing = f"a {thing}"
    text = f"{dice.choice(OPENINGS)} {thing}".strip() if thing else ""
    text = f"{text} {where}".strip()
    return text + dice.choice(GROUNDS).format(ground) if ground else text


def every_word() -> set[str]:
    """Every word that a caption can have."""
    said = {word for words in SYNONYMS.values() for word in words}
    said |= {*SHAPES, *COLOURS, *SIZES, *TEXTURES, "top", "bottom", "left", "right", "a", ","}
    for line in (*OPENINGS, *PLACES, *CENTRES, *GROUNDS):
        said |= set(line.replace("{}", "").split())
    return said | {",", "background"}
