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
from runner.unet import UNet, waves

SIZE_WAVES = 256  # numbers that tell SDXL of one size
LONGEST_REPEAT = 4  # texts of other lengths share a batch if none is repeated more often


@dataclass(frozen=True)
class Prompt:
    """A text as the denoiser sees it: (1, L, D), and beside it, for SDXL, a label (1, labels)."""

    text: Tensor
    label: Tensor | None = None


def label(pooled: Tensor, high: int, wide: int) -> Tensor:
    """What SDXL is told beside the text: pooled (1, P), then sizes in pixels (1, P + 1536).

    Height, width, crop from top and left (0, 0), and the height and width aimed at: those of the
    latent times 8 (model_base.py, SDXL; Podell et al. 2023, section 2.2).
    """
    sizes = torch.tensor([high, wide, 0, 0, high, wide], dtype=torch.float32)
    return torch.cat([pooled, waves(sizes, SIZE_WAVES).flatten()[None].to(pooled)], dim=1)


@dataclass(frozen=True)
class Denoiser:
    """A denoising network, its table of σ, and what it predicts: "eps" (noise) or "v"."""

    unet: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    table: Table
    dtype: torch.dtype
    predicts: str = "eps"

    @property
    def labels(self) -> int:
        """How many numbers the network is told beside the text (0: none)."""
        return int(getattr(self.unet, "labels", 0))

    @classmethod
    def of(cls, unet: UNet, table: Table, predicts: str = "eps") -> "Denoiser":
        return cls(unet, table, next(unet.parameters()).dtype, predicts)

    def guess(self, x: Tensor, sigma: Tensor, text: Tensor, label: Tensor | None = None) -> Tensor:
        """x₀ (B, C, h, w) from x at noise σ (one number), texts (B, L, D) and labels (B, Y).

        (ComfyUI: model_base.py, model_sampling.py.)
        """
        scaled = (x / (sigma**2 + 1.0) ** 0.5).to(self.dtype)
        t = self.table.timestep(sigma.view(1)).float().expand(len(x))
        said = None if label is None else label.to(self.dtype)
        out = self.unet(scaled, t, text.to(self.dtype), said).float()
        if self.predicts == "v":
            return x / (sigma**2 + 1.0) - out * sigma / (sigma**2 + 1.0) ** 0.5
        return x - out * sigma

    def alone(self, x: Tensor, sigma: Tensor, prompt: Prompt) -> Tensor:
        """The guess for one prompt, the same for every latent of the batch."""
        label = None if prompt.label is None else spread(prompt.label, x)
        return self.guess(x, sigma, spread(prompt.text, x), label)

    def both(
        self, x: Tensor, sigma: Tensor, positive: Prompt, negative: Prompt
    ) -> tuple[Tensor, Tensor]:
        """The guesses for both prompts, in one batch where their lengths allow."""
        lengths = positive.text.shape[1], negative.text.shape[1]
        length = math.lcm(*lengths)
        if length > LONGEST_REPEAT * min(lengths):
            return self.alone(x, sigma, positive), self.alone(x, sigma, negative)
        order = negative, positive
        texts = torch.cat([spread(repeat(one.text, length), x) for one in order])
        labels = [spread(one.label, x) for one in order if one.label is not None]
        label = torch.cat(labels) if labels else None
        unwanted, wanted = self.guess(torch.cat([x, x]), sigma, texts, label).chunk(2)
        return wanted, unwanted


def repeat(text: Tensor, length: int) -> Tensor:
    """A text said again until it is that long: attention does not notice."""
    return text.repeat(1, length // text.shape[1], 1)


def spread(text: Tensor, x: Tensor) -> Tensor:
    return text.to(x.device).expand(len(x), *text.shape[1:])


def guide(denoiser: Denoiser, positive: Prompt, negative: Prompt, cfg: float) -> Guided:
    """Classifier-free guidance (Ho & Salimans 2022): away from one text, towards another.

    On guesses of x₀ in float32, as ComfyUI does it; at cfg 1 the negative text is not computed
    unless a sampler asks for both.
    """

    def both(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        wanted, unwanted = denoiser.both(x, sigma, positive, negative)
        return unwanted + (wanted - unwanted) * cfg, unwanted

    def towards(x: Tensor, sigma: Tensor) -> Tensor:
        if math.isclose(cfg, 1.0):
            return denoiser.alone(x, sigma, positive)
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
