"""The CLIP pair: pictures told from each other by their texts, and texts by their pictures.

The contrastive loss alone learns colours, which tell nearly all pictures of a batch apart, and
hardly a shape. So while both towers are trained each is also asked what it saw or read
(`Questions`); who asks is thrown away afterwards.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.clip import Rows, TextEncoder, TextShape
from runner.contrast import Contrast, ImageShape, contrastive_loss
from runner.tokenizer import CHUNK, END, START, chunks, encode
from training.loop import Losses
from training.scenes import (
    ANSWERS,
    RADII,
    SIDE,
    Scene,
    Scenes,
    caption,
    draw,
    every_word,
    forget,
    invent,
    named,
)

WIDTH, INNER, LAYERS, COMMON = 64, 256, 3, 64
BATCH = 128
LENGTH = 32  # tokens that training reads of a caption; what follows are pads, which nobody sees
UNKNOWN = 0  # the row of every word that no caption has: zero, and it stays so
STRANGE = 0.15  # of the captions get such a word, so that it is learned to mean nothing


@lru_cache(maxsize=1)
def rows() -> dict[int, int]:
    """Token -> its row in the small table that is trained; others are UNKNOWN."""
    known = {START, END} | {token for word in every_word() for token in encode(word)}
    return {token: row for row, token in enumerate(sorted(known), 1)}


def text_encoder() -> TextEncoder:
    """The text tower over the small table of words."""
    torch.manual_seed(2)
    text = TextEncoder(TextShape(WIDTH, INNER, LAYERS, len(rows()) + 1, CHUNK))
    embeddings = text.text_model.embeddings
    nn.init.normal_(embeddings.token_embedding.weight, std=0.3)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.05)
    with torch.no_grad():
        embeddings.token_embedding.weight[UNKNOWN] = 0
    embeddings.token_embedding.padding_idx = UNKNOWN
    return text


def lengthened(text: TextEncoder) -> TextEncoder:
    """The tower with places that training did not read: they are taken for the last that it did.

    So the pads of all 77 places say what those near the text say.
    """
    places = text.text_model.embeddings.position_embedding.weight.data
    places[LENGTH:] = places[LENGTH - 1]
    return text


class Questions(nn.Module):
    """What is its shape, colour, ...? A linear answer to each, from a tower's vectors (B, D).

    The answers of a text have "it does not say" before all others.
    """

    def __init__(self, unsaid: int):
        super().__init__()
        layers = {name: nn.Linear(WIDTH, unsaid + len(every)) for name, every in ANSWERS.items()}
        self.answers = nn.ModuleDict(layers)

    def loss(self, vectors: Tensor, right: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """E[-ln softmax of the right answer], over all questions, and the share answered right."""
        said = {name: layer(vectors) for name, layer in self.answers.items()}
        losses = [F.cross_entropy(said[name], right[name]) for name in said]
        hits = [(said[name].argmax(1) == right[name]).float().mean() for name in said]
        return torch.stack(losses).mean(), torch.stack(hits).mean()


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text = text_encoder()
        shape = ImageShape(WIDTH, INNER, LAYERS, 8, (SIDE // 8) ** 2, COMMON)
        self.contrast = Contrast(shape, WIDTH)
        for place in (self.contrast.vision_model.embeddings.position_embedding,):
            nn.init.normal_(place.weight, std=0.3)
        self.of_pictures, self.of_texts = Questions(0), Questions(1)


def pooled(text: TextEncoder, ids: Tensor) -> tuple[Tensor, Tensor]:
    """What a frozen tower gives for rows of tokens: (B, L, D) and, where the text ends, (B, D)."""
    z = text.text_model.final_layer_norm(text.text_model(Rows(ids.tolist(), (), 0), -1)[0])
    end = (ids == rows()[END]).int().argmax(1)
    return z, z[torch.arange(len(z)), end]


def tokens(text: str, dice: random.Random | None = None) -> list[int]:
    """A caption in rows, 77 long; with dice, some get a word that nobody knows."""
    ids = [token for token, _ in chunks(text)[0]]
    there = [rows().get(token, UNKNOWN) for token in ids]
    if dice and dice.random() < STRANGE:
        for _ in range(dice.randint(1, 3)):
            there.insert(dice.randint(1, ids.index(END)), UNKNOWN)
    return there[:CHUNK]


def captions(said: Sequence[Scene], dice: random.Random) -> Tensor:
    """A caption for each scene, in rows (B, 77)."""
    return torch.tensor([tokens(caption(scene, dice), dice) for scene in said])


def told(scenes: Scenes, dice: random.Random) -> list[Scene]:
    """Of each scene what somebody may say."""
    return [forget(named(scenes, row), dice) for row in range(len(scenes))]


def right(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """The answers, one for each scene: 0 where it does not say, else 1 + the place in ANSWERS."""

    def number(said: str, every: Sequence[str]) -> int:
        return 1 + every.index(said) if said else 0

    return {
        name: torch.tensor([number(getattr(scene, name), every) for scene in scenes])
        for name, every in ANSWERS.items()
    }


def alike(generator: torch.Generator) -> Scenes:
    """A batch in fours that differ in one thing alone: shape, size or place.

    Colours tell most pictures of a batch apart; without such fours nothing else is learned.
    """
    scenes = invent(BATCH // 4, generator)
    scenes = scenes[torch.arange(BATCH) // 4]
    which, four = torch.arange(BATCH) // 4 % 4, torch.arange(BATCH) % 4
    size = torch.where(which == 2, four % 2, scenes.size)
    low, high = torch.tensor(RADII)[size].unbind(1)
    apart = torch.rand(BATCH, generator=generator)
    return replace(
        scenes,
        shape=torch.where(which < 2, four, scenes.shape),
        size=size,
        across=torch.where(which == 3, torch.tensor([-1, 1, -1, 1])[four], scenes.across),
        down=torch.where(which >= 2, torch.tensor([-1, -1, 1, 1])[four], scenes.down),
        radius=low + (high - low) * apart,
    )


def loss(pair: Pair, number: int) -> Losses:
    """Contrastive, and the mean of what both towers answer wrongly.

    A text is asked twice: where it ends, which is where CLIP reads it, and at the last of the pads
    behind it, which the denoiser looks at as well.
    """
    generator, dice = torch.Generator().manual_seed(number + 2_000_000), random.Random(number)
    scenes = alike(generator) if number % 2 else invent(BATCH, generator)
    said = told(scenes, dice)
    z, end = pooled(pair.text, captions(said, dice)[:, :LENGTH])
    seen = pair.contrast.look(draw(scenes))
    near = pair.contrast.place(seen) @ pair.contrast.read(end).T
    value = contrastive_loss(pair.contrast.logit_scale.exp() * near)
    shown = right([named(scenes, row) for row in range(BATCH)])
    pictures, sees = pair.of_pictures.loss(seen, {k: v - 1 for k, v in shown.items()})
    words = right(said)
    ends, reads = pair.of_texts.loss(end, words)
    pads, _ = pair.of_texts.loss(z[:, -1], words)
    found = (near.argmax(1) == torch.arange(BATCH)).float().mean()
    told_ = {"contrast": value, "sees": sees, "reads": reads, "found": found}
    scale = pair.contrast.logit_scale.exp()
    apart = {name: number.detach() for name, number in (told_ | {"scale": scale}).items()}
    return {"loss": value + pictures + ends + pads, **apart}
