"""Guidance: a network's output as a guess of the clean latent, pulled towards a prompt.

Shapes: B latents of (C, h, w); texts are (1, L, D). x and the guess are float32 throughout.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.sampler import Guided
from runner.schedules import Table
from runner.unet import UNet

LONGEST_REPEAT = 4  # texts of other lengths share a batch if none is repeated more often


@dataclass(frozen=True)
class Denoiser:
    """A denoising network, its table of σ, and what it predicts: "eps" (noise) or "v"."""

    unet: Callable[[Tensor, Tensor, Tensor], Tensor]
    table: Table
    dtype: torch.dtype
    predicts: str = "eps"

    @classmethod
    def of(cls, unet: UNet, table: Table, predicts: str = "eps") -> "Denoiser":
        return cls(unet, table, next(unet.parameters()).dtype, predicts)

    def guess(self, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        """x₀ (B, C, h, w) from x at noise σ (one number) and texts (B, L, D) (model_base.py)."""
        scaled = (x / (sigma**2 + 1.0) ** 0.5).to(self.dtype)
        t = self.table.timestep(sigma.view(1)).float().expand(len(x))
        out = self.unet(scaled, t, text.to(self.dtype)).float()
        if self.predicts == "v":
            return x / (sigma**2 + 1.0) - out * sigma / (sigma**2 + 1.0) ** 0.5
        return x - out * sigma

    def both(
        self, x: Tensor, sigma: Tensor, positive: Tensor, negative: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The guesses for the positive and the negative text, in one batch where lengths allow."""
        length = math.lcm(positive.shape[1], negative.shape[1])
        if length > LONGEST_REPEAT * min(positive.shape[1], negative.shape[1]):
            wanted = self.guess(x, sigma, spread(positive, x))
            return wanted, self.guess(x, sigma, spread(negative, x))
        texts = [spread(repeat(text, length), x) for text in (negative, positive)]
        unwanted, wanted = self.guess(torch.cat([x, x]), sigma, torch.cat(texts)).chunk(2)
        return wanted, unwanted


def repeat(text: Tensor, length: int) -> Tensor:
    """A text said again until it is that long: attention does not notice."""
    return text.repeat(1, length // text.shape[1], 1)


def spread(text: Tensor, x: Tensor) -> Tensor:
    return text.to(x.device).expand(len(x), -1, -1)


def guide(denoiser: Denoiser, positive: Tensor, negative: Tensor, cfg: float) -> Guided:
    """Classifier-free guidance (Ho & Salimans 2022): away from one text, towards another.

    On guesses of x₀ in float32, as ComfyUI does it; at cfg 1 the negative text is not computed
    unless a sampler asks for both.
    """

    def both(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        wanted, unwanted = denoiser.both(x, sigma, positive, negative)
        return unwanted + (wanted - unwanted) * cfg, unwanted

    def towards(x: Tensor, sigma: Tensor) -> Tensor:
        if math.isclose(cfg, 1.0):
            return denoiser.guess(x, sigma, spread(positive, x))
        return both(x, sigma)[0]

    return Guided(towards, both, denoiser.table)


def uniform(seed: int) -> Tensor:
    """A fixed latent (1, 4, 8, 8) between -1 and 1, for the denoisers that are formulas."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand((1, 4, 8, 8), generator=generator) - 0.5) * 2


def one_hill(x: Tensor, sigma: Tensor) -> Tensor:
    """The best guess of x₀ where data is Gaussian, of spread 1/2 around m₀."""
    centre = uniform(100)
    return centre + (x - centre) * 0.25 / (0.25 + sigma**2)


def two_hills(x: Tensor, sigma: Tensor) -> Tensor:
    """The best guess where data is either of two Gaussians, of spread 0.3."""
    centres = torch.cat([uniform(101), uniform(102)])
    variance = 0.09 + sigma**2
    nearness = -((x - centres) ** 2).sum(dim=(1, 2, 3)) / (2 * variance)
    each = centres + (x - centres) * 0.09 / variance
    return (nearness.softmax(0)[:, None, None, None] * each).sum(0, keepdim=True)
