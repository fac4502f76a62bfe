"""Measures: what a render says about itself, beside its picture.

How well it fits its prompts, by the contrastive score, and what the VAE alone does to the picture
that came in. Shapes: B pictures, H and W pixels, Z latent channels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import log10

import torch
from torch import Tensor

from runner import embedded
from runner.contrast import Contrast
from runner.pipeline import Models
from runner.pixels import crop
from runner.recipe import Recipe
from runner.report import say
from runner.tokenizer import embeddings_named


@dataclass(frozen=True)
class Fit:
    """cos(picture, text), -1 .. 1, of what came in and of what came out."""

    input: float
    output: float


@dataclass(frozen=True)
class Measures:
    """positive, negative: None where that prompt is empty, or there is no image tower for it."""

    reconstruction: float
    psnr: float
    kl: float
    positive: Fit | None = None
    negative: Fit | None = None
    scale: float | None = None

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def notes(models: Models, recipe: Recipe, lang: str) -> Iterator[str]:
    """What a person should know about a picture before judging it."""
    prompts = f"{recipe.positive}\n{recipe.negative}"
    if models.name.startswith("synthetic"):
        yield say("note-synthetic", lang)
    if models.name == embedded.NAME:
        if (recipe.width, recipe.height) != (embedded.SIDE, embedded.SIDE):
            yield say("note-size", lang, side=embedded.SIDE)
        strange = list(embedded.unknown_words(models.text, prompts))
        if strange:
            yield say("note-words", lang, words=", ".join(strange))
    yield from models.notes
    for name in embeddings_named(prompts):
        if models.shelf.find(name) is None:
            yield say("note-embedding", lang, name=name)


@torch.inference_mode()
def measured(models: Models, recipe: Recipe, seen: Mapping[str, Tensor]) -> Measures:
    """The measures of a render whose trace holds image/input and image/output."""
    picture = crop(seen["image/input"])
    mean, logvar = models.vae.moments(picture)
    error = reconstruction(models.vae.decode(mean).cpu(), picture)
    numbers = error, psnr(error), float(divergence(mean, logvar).mean())
    if models.name != embedded.NAME:
        return Measures(*numbers)
    tower = embedded.contrast()
    positive, negative = (
        fit(models, tower, text, picture, seen["image/output"]) if text.strip() else None
        for text in (recipe.positive, recipe.negative)
    )
    return Measures(*numbers, positive, negative, float(tower.logit_scale.exp()))


def fit(models: Models, tower: Contrast, text: str, before: Tensor, after: Tensor) -> Fit:
    """cos(f(picture), g(text)) = f · g / (‖f‖ ‖g‖), f and g the two towers (runner/contrast.py)."""
    _, pooled = models.text.encode(text)
    towards = tower.read(pooled.cpu())[0]
    come, gone = tower.see(before)[0], tower.see(after)[0]
    return Fit(float(come @ towards), float(gone @ towards))


def reconstruction(back: Tensor, picture: Tensor) -> float:
    """√E[(D(E(x)) - x)²] of (B, H, W, 3) in 0..1: what encoding and decoding alone lose."""
    return float((back - picture).double().square().mean().sqrt())


def psnr(error: float) -> float:
    """-20 log₁₀ of an rms error of colours in 0..1, in decibels; 99 where nothing is lost."""
    return -20 * log10(error) if error > 1e-5 else 99.0


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (μ² + σ² - 1 - ln σ²), in nats, of each picture (B,).

    μ, ln σ² (B, Z, h, w): the encoder's posterior, of which a render uses the mean alone. The KL
    term of the VAE's loss (Kingma & Welling 2013, appendix B); it is large, since it weighs little
    there.
    """
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1)
