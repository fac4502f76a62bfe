"""Guidance: a network's output as a guess of the clean latent, pulled towards a prompt.

Shapes: B latents of (C, h, w); texts are (1, L, D). x and the guess are float32 throughout.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from runner.engine import Engine
from runner.levers import Levers
from runner.sampler import Guided
from runner.schedules import Table
from runner.unet import UNet, waves

SIZE_WAVES = 256  # numbers that tell SDXL of one size
LONGEST_REPEAT = 4  # texts of other lengths share a batch if none is repeated more often


@dataclass(frozen=True, eq=False)
class Prompt:
    """A text as the denoiser sees it: (1, L, D), and beside it, for SDXL, a label (1, labels).

    Two prompts are the same only if they are one object.
    """

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
    """A denoising network, its table of σ, and what it predicts: "eps" (noise) or "v".

    engine: the same network, faster; `quick` asks it, everything else the plain one.
    """

    unet: Callable[..., Tensor]  # a UNet, or an Engine
    table: Table
    dtype: torch.dtype
    predicts: str = "eps"
    engine: Engine | None = None

    @property
    def labels(self) -> int:
        """How many numbers the network is told beside the text (0: none)."""
        return int(getattr(self.unet, "labels", 0))

    @classmethod
    def of(cls, unet: UNet, table: Table, predicts: str = "eps") -> "Denoiser":
        levers = Levers.here(next(unet.parameters()).device)
        engine = Engine(unet, replace(levers, mapped=levers.mapped and unet.narrow > 0))
        return cls(unet, table, unet.dtype, predicts, engine)

    @property
    def levers(self) -> tuple[str, ...]:
        """The names of what makes its engine fast."""
        return self.engine.levers.pulled if self.engine else ()

    def without(self, names: Iterable[str]) -> "Denoiser":
        """The same without some levers. Refused: unknown-lever."""
        if self.engine is None:
            return self
        return replace(self, engine=Engine(self.engine.unet, self.engine.levers.without(names)))

    def quick(self, sigmas: Tensor) -> "Denoiser":
        """The same, answered by its engine, which is told at which σ it will be asked."""
        if self.engine is None or self.engine.unet is not self.unet or not len(sigmas):
            return self
        self.engine.begin(self.table.timestep(sigmas[:-1]).tolist())
        return replace(self, unet=self.engine)

    def guess(self, x: Tensor, sigma: Tensor, said: Prompt) -> Tensor:
        """x₀ (K, C, h, w) from x (B, C, h, w) at noise σ (one number) and K texts.

        Where K is larger, the rows of x come again for each text. (ComfyUI: model_base.py,
        model_sampling.py.)
        """
        scaled = (x / (sigma**2 + 1.0) ** 0.5).to(self.dtype)
        t = self.table.timestep(sigma.view(1)).float()
        again = len(said.text) // len(x)
        if isinstance(self.unet, Engine):
            out = self.unet(scaled, float(t), said.text, said.label).float()
        else:
            rows = scaled.repeat(again, 1, 1, 1)
            out = self.unet(rows, t.to(x.device).expand(len(rows)), said.text, said.label).float()
        x = x.repeat(again, 1, 1, 1)
        if self.predicts == "v":
            return x / (sigma**2 + 1.0) - out * sigma / (sigma**2 + 1.0) ** 0.5
        return x - out * sigma

    def told(self, prompts: Sequence[Prompt], x: Tensor) -> Prompt | None:
        """Prompts as rows for a batch like x (B, ...); None where their lengths do not allow it."""
        lengths = [prompt.text.shape[1] for prompt in prompts]
        length = math.lcm(*lengths)
        if length > LONGEST_REPEAT * min(lengths):
            return None
        texts = torch.cat([spread(repeat(one.text, length), x) for one in prompts])
        labels = [spread(one.label, x) for one in prompts if one.label is not None]
        label = torch.cat(labels).to(self.dtype) if labels else None
        return Prompt(texts.to(self.dtype), label)


def repeat(text: Tensor, length: int) -> Tensor:
    """A text said again until it is that long: attention does not notice."""
    return text.repeat(1, length // text.shape[1], 1)


def spread(text: Tensor, x: Tensor) -> Tensor:
    return text.to(x.device).expand(len(x), *text.shape[1:])


@dataclass(frozen=True)
class Conversation:
    """A denoiser and what is said to it, put together once for each batch size."""

    denoiser: Denoiser
    kept: dict[tuple[object, ...], Prompt | None] = field(default_factory=dict)

    def guess(self, x: Tensor, sigma: Tensor, *prompts: Prompt) -> tuple[Tensor, ...]:
        """The guess for each prompt, in one batch where their lengths allow."""
        key = len(x), *prompts
        if key not in self.kept:
            self.kept[key] = self.denoiser.told(prompts, x)
        told = self.kept[key]
        if told is None:
            return tuple(self.guess(x, sigma, one)[0] for one in prompts)
        return self.denoiser.guess(x, sigma, told).chunk(len(prompts))


def guide(denoiser: Denoiser, positive: Prompt, negative: Prompt, cfg: float) -> Guided:
    """Classifier-free guidance (Ho & Salimans 2022): away from one text, towards another.

    On guesses of x₀ in float32, as ComfyUI does it; at cfg 1 the negative text is not computed
    unless a sampler asks for both.
    """
    talk = Conversation(denoiser)

    def both(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        unwanted, wanted = talk.guess(x, sigma, negative, positive)
        return unwanted + (wanted - unwanted) * cfg, unwanted

    def towards(x: Tensor, sigma: Tensor) -> Tensor:
        if math.isclose(cfg, 1.0):
            return talk.guess(x, sigma, positive)[0]
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
