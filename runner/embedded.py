"""The embedded checkpoint: small networks of our own, so that a picture needs no download.

In the layout of SD 1.x and read like any other file; it knows shapes, colours, sizes, places and
textures, and nothing else. How it was made, and what it measures: docs/embedded.md.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from math import inf
from pathlib import Path

from runner import checkpoint, weights
from runner.checkpoint import Checkpoint
from runner.contrast import Contrast, ImageShape
from runner.families import AnyText
from runner.recipe import Recipe
from runner.tokenizer import encode, words

DATA = Path(__file__).parent / "data"
PATH = DATA / "embedded.safetensors"
PICTURE = DATA / "embedded.png"  # what is rendered from where no picture is given
NAME = "embedded"
PREFIX = "contrast."  # of the image tower and both projections, beside the layout's own parts
POSITIVE = "a large red circle in the middle, blue background"
SCHEDULER = "karras"  # at denoise 0.2 it starts at σ 0.16, "normal" at 0.55: corners go
SIDE = 48  # pixels: the size it was trained at
ALONE = 64  # pixels a side up to which threads wait for each other longer than they work


def read() -> Checkpoint:
    """The checkpoint, by the loader of every other file."""
    return replace(checkpoint.read(PATH), name=NAME)


@lru_cache(maxsize=1)
def contrast() -> Contrast:
    """The image tower that was trained with its text encoder, float32 on the CPU."""
    file = weights.opened(PATH)
    there = {k.removeprefix(PREFIX): k for k in file.shapes if k.startswith(PREFIX)}
    shapes = {name: file.shapes[key] for name, key in there.items()}
    tower = Contrast(ImageShape.of(shapes), shapes["text_projection.weight"][1])
    for name, weight in tower.requires_grad_(False).named_parameters():
        file.fill(there[name], weight)
    return tower.eval()


def native(recipe: Recipe) -> Recipe:
    """The recipe at the size this checkpoint was trained at, where it names none."""
    if recipe.width or recipe.height:
        return recipe
    return replace(recipe, width=SIDE, height=SIDE)


def threads(recipe: Recipe) -> int | None:
    """How many threads are worth while: one up to 64 x 64, where it is also the same bits on a
    machine of any size; None: as many as there are.
    """
    small = max(recipe.width or inf, recipe.height or inf) <= ALONE
    return 1 if small else None


def unknown_words(text: AnyText, prompt: str) -> Iterator[str]:
    """The words that no caption of the training had: their rows of the table of words are 0."""
    table = text.get_parameter("text_model.embeddings.token_embedding.weight")
    for word in dict.fromkeys(words(prompt)):
        if word.isalnum() and not any(bool(table[token].any()) for token in encode(word)):
            yield word
