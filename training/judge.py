"""Judge: what is in a picture, by plain image processing and no network.

Nearest colours, the majority along the edge for the ground, and the outline with the largest
overlap for the shape. It says what it sees of a picture (S, S, 3), as a Scene in words.
"""

import torch
from torch import Tensor

from training.scenes import (
    COLOURS,
    MARGIN,
    PALETTE,
    SHADE,
    SHAPES,
    SIDE,
    TEXTURES,
    Scene,
    cover,
    patterns,
)

EDGE = 2  # pixels along the edge that no thing touches
SMALL, LARGE = 10.0, 15.0  # radius, pixels: what is nearer is the size
ASIDE = 0.45  # of the way to its place: nearer to the middle is the middle


def look(picture: Tensor) -> Scene | None:
    """What is seen; None where there is nothing but ground."""
    near = torch.cdist(picture.reshape(-1, 3), torch.cat([PALETTE, SHADE]))
    colour = (near.argmin(1) % len(COLOURS)).view(SIDE, SIDE)
    edges = colour[:EDGE], colour[-EDGE:], colour[:, :EDGE], colour[:, -EDGE:]
    ground = int(torch.cat([edge.flatten() for edge in edges]).mode().values)
    mask = filled(colour != ground)
    inner = eroded(mask)
    if inner.sum() < 12:
        return None
    thing = int(colour[inner].mode().values)
    shape, x, y, radius = fitted(mask)
    names = list(COLOURS)
    return Scene(
        SHAPES[shape],
        names[thing],
        names[ground],
        "small" if abs(radius - SMALL) < abs(radius - LARGE) else "large",
        place(x, y, radius),
        texture(picture, inner),
        texture(picture, eroded(~mask)),
    )


def eroded(mask: Tensor) -> Tensor:
    """The mask without its outermost pixels."""
    grown = torch.nn.functional.max_pool2d((~mask)[None, None].float(), 3, 1, 1)
    return grown[0, 0] < 0.5


def filled(mask: Tensor) -> Tensor:
    """The mask without specks: each pixel as most of its 3 x 3 are."""
    return torch.nn.functional.avg_pool2d(mask[None, None].float(), 3, 1, 1)[0, 0] > 0.5


def fitted(mask: Tensor) -> tuple[int, float, float, float]:
    """(shape, x, y, radius) of the outline that overlaps a mask most."""
    ys, xs = mask.nonzero().float().add(0.5).unbind(1)
    left, right = (float(xs.quantile(share)) for share in (0.005, 0.995))
    top, low = (float(ys.quantile(share)) for share in (0.005, 0.995))
    x, y = (left + right) / 2, (top + low) / 2
    reach = max(right - left, low - top) / 2 + 0.5
    scales = (0.85, 0.9, 0.95, 1.0, 1.05)
    tries = [(shape, x, y, reach * scale) for shape in range(len(SHAPES)) for scale in scales]
    shape, *numbers = (torch.tensor(column) for column in zip(*tries, strict=True))
    there = cover(shape, *(number.float() for number in numbers)) > 0.5
    overlap = (there & mask).sum((1, 2)) / (there | mask).sum((1, 2))
    best = int(overlap.argmax())
    return tries[best]


def place(x: float, y: float, radius: float) -> str:
    reach = (SIDE / 2 - MARGIN - radius) or 1.0
    words = []
    for off, names in ((y - SIDE / 2, ("top", "bottom")), (x - SIDE / 2, ("left", "right"))):
        if abs(off) > ASIDE * reach:
            words.append(names[int(off > 0)])
    return " ".join(words) or "centre"


def texture(picture: Tensor, where: Tensor) -> str:
    """The pattern that goes with the brightness in a region, or plain."""
    grey = picture.mean(-1)[where]
    best, name = 0.6, "plain"  # correlation, below which nothing is said
    if len(grey) < 12 or grey.std() < 0.02:
        return name
    for called, pattern in zip(TEXTURES[1:], patterns()[1:], strict=True):
        there = torch.nn.functional.avg_pool2d(pattern[None, None], 3, 1, 1)[0, 0][where]
        if there.std() > 0:
            match = abs(float(torch.corrcoef(torch.stack([grey, there]))[0, 1]))
            best, name = (match, called) if match > best else (best, name)
    return name
