"""The CLIP pair: pictures told from each other by their texts, and texts by their pictures."""

import random
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from runner.clip import Rows, TextEncoder, TextShape
from runner.contrast import Contrast, ImageShape, contrastive_loss
from runner.tokenizer import CHUNK, END, START, chunks, encode
from training.loop import Losses
from training.scenes import RADII, SIDE, Scenes, caption, draw, every_word, forget, invent, named

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


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text = text_encoder()
        shape = ImageShape(WIDTH, INNER, LAYERS, 8, (SIDE // 8) ** 2, COMMON)
        self.contrast = Contrast(shape, WIDTH)
        for place in (self.contrast.vision_model.embeddings.position_embedding,):
            nn.init.normal_(place.weight, std=0.3)


def frozen(pair: Pair) -> Pair:
    """The text tower as it is; the image tower and both ways out of them go on learning."""
    pair.text.requires_grad_(False)
    return pair


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


def captions(scenes: Scenes, dice: random.Random) -> Tensor:
    """A caption for each scene, in rows (B, 77)."""
    told = (caption(forget(named(scenes, row), dice), dice) for row in range(len(scenes)))
    return torch.tensor([tokens(text, dice) for text in told])


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
    generator = torch.Generator().manual_seed(number + 2_000_000)
    scenes = alike(generator) if number % 4 else invent(BATCH, generator)
    ids = captions(scenes, random.Random(number))[:, :LENGTH]
    logits = pair.contrast.logits(draw(scenes), pooled(pair.text, ids)[1])
    value = contrastive_loss(logits)
    right = (logits.argmax(1) == torch.arange(BATCH)).float().mean()
    return {"loss": value, "found": right, "scale": pair.contrast.logit_scale.detach().exp()}
