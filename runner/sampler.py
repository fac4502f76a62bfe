"""What a K-sampler is: it walks a latent from noise (large σ) to image (σ = 0).

A sampler is a generator. It is given denoise(x, σ) -> x₀, the model's guess of the clean
image, and yields the latent after every step. Who counts steps, draws progress or keeps a
trace does so outside. `noise()` draws one tensor of fresh noise.

The order of the float operations is ComfyUI's, so that equal inputs give equal bits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from runner.noise import Dice, Increments
from runner.schedules import Table, sigma_table

Denoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[], Tensor]
Sampler = Callable[[Denoise, Tensor, Tensor, Noise], Iterator[Tensor]]
REGISTRY: dict[str, Sampler] = {}


@dataclass(frozen=True)
class Guided:
    """A denoiser under guidance, for samplers that ask for more than its guess."""

    guess: Denoise
    both: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # guided, and for the negative text
    table: Table = field(default_factory=sigma_table)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.guess(x, sigma)


def sampler(walk: Sampler) -> Sampler:
    """Register a sampler under the name of its function, which is its name in ComfyUI."""
    REGISTRY[walk.__name__] = walk
    return walk


def guesses(denoise: Denoise) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(x, σ) -> the guided guess and the unconditional one; without guidance they are one."""
    if isinstance(denoise, Guided):
        return denoise.both

    def same(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        guess = denoise(x, sigma)
        return guess, guess

    return same


def table_of(denoise: Denoise) -> Table:
    return denoise.table if isinstance(denoise, Guided) else sigma_table()


def increments(noise: Noise, sigmas: Tensor, on_device: bool) -> Increments:
    """A Brownian path where the noise has one, else independent draws."""
    if isinstance(noise, Dice):
        return noise.path(sigmas, on_device)
    return lambda sigma, target: noise()


def slope(x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """dx/dσ of the probability-flow ODE (Karras et al. 2022, eq. 4)."""
    return (x - x0) / sigma


def ancestral(sigma: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(down, up): step to σ = down, add noise of σ = up, and be at target (k-diffusion)."""
    up = min(target, (target**2 * (sigma**2 - target**2) / sigma**2) ** 0.5)
    return (target**2 - up**2) ** 0.5, up


def log_snr(sigma: Tensor) -> Tensor:
    """t = -ln σ, the time in which exponential integrators are exact (Lu et al. 2022)."""
    return -sigma.log()
