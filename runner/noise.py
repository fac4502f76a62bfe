"""Noise: what a render starts from, and what random samplers draw on the way, as in ComfyUI."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from runner.recipe import Refused

Increments = Callable[[Tensor, Tensor], Tensor]  # (from σ, to σ) -> noise of variance 1


def first_noise(seed: int, like: Tensor) -> Tensor:
    """The noise of a seed, drawn on the CPU so that every machine draws the same (sample.py)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


@dataclass(frozen=True)
class Dice:
    """What random samplers draw: the same seed again, on the latent's own device.

    So on the CPU their first draw is the noise they started from: ComfyUI's habit, kept.
    """

    seed: int
    like: Tensor

    @cached_property
    def generator(self) -> torch.Generator:
        return torch.Generator(device=self.like.device).manual_seed(self.seed)

    def __call__(self) -> Tensor:
        """A tensor of independent standard normal numbers, shaped like the latent."""
        like = self.like
        return torch.randn(
            like.shape, generator=self.generator, dtype=like.dtype, device=like.device
        )

    def path(self, sigmas: Tensor, on_device: bool) -> Increments:
        """One Brownian path over σ: increments of intervals that overlap agree with each other.

        torchsde's tree, on the CPU unless on_device (k_diffusion/sampling.py). Every increment is
        divided by the root of its length. Refused: torchsde-missing.
        """
        try:
            from torchsde import BrownianTree
        except ImportError as error:
            what = "torchsde, which this sampler's noise is made with, cannot be imported"
            why = f"{what} ({error}). `pip install torchsde` brings it; ComfyUI needs it, too."
            raise Refused("torchsde-missing", why) from None
        home = self.like.device if on_device else torch.device("cpu")
        low, high = sigmas[sigmas > 0].min().to(home), sigmas.max().to(home)
        tree = BrownianTree(low, torch.zeros_like(self.like, device=home), high, entropy=self.seed)

        def increment(sigma: Tensor, target: Tensor) -> Tensor:
            down, up = sorted((sigma.to(home), target.to(home)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it compares an end with itself, rounded
                walked: Tensor = tree(down.float(), up.float()).to(self.like)
            sign = 1 if sigma < target else -1
            return walked * sign / (target - sigma).abs().sqrt()

        return increment
