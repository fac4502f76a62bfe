"""Listening: what a render says on its way that its trace does not keep: guesses, pulls, spread.

Nothing is computed otherwise for it: the denoiser is overheard, and what is decoded to be looked
at is decoded after the render.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.guidance import Denoiser, Prompt
from runner.pipeline import Models
from runner.pixels import crop, scale
from runner.recipe import Recipe
from runner.trace import Trace

SMALL = 24  # pixels of a latent's longer side when it is decoded to be looked at


@dataclass(frozen=True)
class Call:
    """One call of the denoiser: what it was shown, and what it guessed for either prompt."""

    x: Tensor  # (C, h, w), scaled, at noise σ
    sigma: float
    timestep: int
    wanted: Tensor  # x₀ for the positive prompt, (C, h, w)
    unwanted: Tensor | None  # for the negative one; None at cfg 1, which does not ask for it

    def guided(self, cfg: float) -> Tensor:
        """unwanted + (wanted - unwanted) cfg, as the sampler was given it."""
        if self.unwanted is None:
            return self.wanted
        return self.unwanted + (self.wanted - self.unwanted) * cfg


@dataclass(frozen=True)
class Overheard(Denoiser):
    """The same denoiser; every call of it is noted, the first latent of a batch."""

    heard: list[Call] = field(default_factory=list)

    def guess(self, x: Tensor, sigma: Tensor, said: Prompt) -> Tensor:
        guess = super().guess(x, sigma, said)
        if len(guess) > len(x):  # both texts in one batch, the negative one first
            unwanted, wanted = guess.chunk(2)
            self.heard.append(self.call(x, sigma, wanted, unwanted[0].cpu()))
            return guess
        last = self.heard[-1] if self.heard else None
        if last and last.unwanted is None and torch.equal(last.x, x[0].cpu()):
            # texts of other lengths are asked for one by one, the negative one first
            self.heard[-1] = self.call(x, sigma, guess, last.wanted)
        else:
            self.heard.append(self.call(x, sigma, guess, None))
        return guess

    def call(self, x: Tensor, sigma: Tensor, wanted: Tensor, unwanted: Tensor | None) -> Call:
        timestep = int(self.table.timestep(sigma.view(1)))
        return Call(x[0].cpu(), float(sigma), timestep, wanted[0].cpu(), unwanted)


def overheard(models: Models) -> tuple[Models, list[Call]]:
    """The same models, and the list that fills while they render."""
    own = models.denoiser
    ears = Overheard(own.unet, own.table, own.dtype, own.predicts, own.engine)
    return replace(models, denoiser=ears), ears.heard


@dataclass(frozen=True)
class Step:
    """One step of the sampler: its first call of the denoiser, and where it led."""

    number: int
    call: Call
    calls: int  # of the denoiser, in this step
    target: float  # σ where the step ends
    after: Tensor  # (C, h, w), scaled


def steps(trace: Trace, heard: list[Call]) -> Iterator[Step]:
    """The steps of a render; a call belongs to the step in whose span of σ it begins."""
    sigmas = trace.tensors["sigmas"].tolist()
    count = sum(key.startswith("step/") for key in trace.tensors)
    starts = [place for place, call in enumerate(heard) if near(call.sigma, sigmas)]
    firsts: list[int] = []
    for number in range(count):
        at = next(
            (p for p in starts if near(heard[p].sigma, [sigmas[number]]) and p not in firsts),
            min(number, len(heard) - 1),
        )
        firsts.append(at)
    for number, at in enumerate(firsts):
        stop = firsts[number + 1] if number + 1 < count else len(heard)
        target = sigmas[min(number + 1, len(sigmas) - 1)]
        after = trace.tensors[f"step/{number + 1}"][0]
        yield Step(number + 1, heard[at], max(1, stop - at), target, after)


def near(sigma: float, others: list[float]) -> bool:
    return any(abs(sigma - other) <= 1e-5 * max(other, 1e-6) for other in others)


@torch.inference_mode()
def looked_at(models: Models, scaled: Tensor) -> Tensor:
    """A scaled latent (C, h, w) as a small picture (H, W, 3), at most 8 · SMALL pixels a side."""
    latent = (scaled / models.latent_scale)[None]
    share = SMALL / max(latent.shape[-2:])
    if share < 1:
        size = [max(1, round(side * share)) for side in latent.shape[-2:]]
        latent = F.interpolate(latent, size, mode="area")
    return models.vae.decode(latent)[0].cpu()


@torch.inference_mode()
def spread(models: Models, recipe: Recipe, image: Tensor) -> Tensor:
    """The standard deviation (C, h, w) of the encoder's answer, of which the mean alone is used."""
    _, logvar = models.vae.moments(crop(scale(image, recipe.width, recipe.height)))
    return (logvar[0] / 2).exp().cpu()
