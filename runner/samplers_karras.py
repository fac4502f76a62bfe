"""Samplers that look at one interval at a time, in σ: Euler, Heun, midpoint, and DDPM's kin.

Karras et al. 2022 (arXiv 2206.00364), Ho et al. 2020 (2006.11239), and k-diffusion.
"""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from runner.sampler import Denoise, Noise, ancestral, sampler, slope


@sampler
def euler(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Follow the tangent (Karras et al. 2022, algorithm 2, without churn)."""
    for sigma, target in pairwise(sigmas):
        x = x + slope(x, denoise(x, sigma), sigma) * (target - sigma)
        yield x


@sampler
def ddim(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Euler in σ, which DDIM is (Song et al. 2021, eq. 13); it differs when inpainting only."""
    yield from euler(denoise, x, sigmas, noise)


@sampler
def euler_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Step below the target σ, then climb back to it with fresh noise (k-diffusion)."""
    for sigma, target in pairwise(sigmas):
        x0 = denoise(x, sigma)
        down, up = ancestral(sigma, target)
        x = x0 if down == 0 else x + slope(x, x0, sigma) * (down - sigma) + noise() * up
        yield x


@sampler
def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Follow the mean of the tangents at both ends (same algorithm 2); σ = 0 has none."""
    for sigma, target in pairwise(sigmas):
        here = slope(x, denoise(x, sigma), sigma)
        if target > 0:
            ahead = x + here * (target - sigma)
            here = (here + slope(ahead, denoise(ahead, target), target)) / 2
        x = x + here * (target - sigma)
        yield x


@sampler
def heunpp2(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Tangents here and at the next two σ, those ahead weighted by σ / (σ₀ · their number).

    Heun++ of Carzit's sd-webui-samplers-scheduler; first-order all the same (measured).
    """
    for place, (sigma, target) in enumerate(pairwise(sigmas)):
        near, ahead, slopes = sigma, x, [slope(x, denoise(x, sigma), sigma)]
        levels = [level for level in sigmas[place + 1 : place + 3] if level != sigmas[-1]]
        for level in levels:
            ahead = ahead + slopes[-1] * (level - near)
            slopes.append(slope(ahead, denoise(ahead, level), level))
            near = level
        weights = [level / (len(slopes) * sigmas[0]) for level in levels]
        mean = (1 - sum(weights)) * slopes[0]
        for weight, one in zip(weights, slopes[1:], strict=True):
            mean = mean + weight * one
        x = x + mean * (target - sigma)
        yield x


@sampler
def dpm_2(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Follow the tangent of the interval's middle in ln σ (DPM-Solver-2, Lu et al. 2022)."""
    for sigma, target in pairwise(sigmas):
        x = midpoint(denoise, x, sigma, target)
        yield x


@sampler
def dpm_2_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """The same to below the target σ, then back to it with fresh noise (k-diffusion)."""
    for sigma, target in pairwise(sigmas):
        down, up = ancestral(sigma, target)
        x = midpoint(denoise, x, sigma, down)
        if down > 0:
            x = x + noise() * up
        yield x


def midpoint(denoise: Denoise, x: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
    here = slope(x, denoise(x, sigma), sigma)
    if target > 0:
        middle = sigma.log().lerp(target.log(), 0.5).exp()
        ahead = x + here * (middle - sigma)
        here = slope(ahead, denoise(ahead, middle), middle)
    return x + here * (target - sigma)


@sampler
def ddpm(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Draw from the posterior of the step before (Ho et al. 2020, algorithm 2), ᾱ = 1/(1 + σ²)."""
    for sigma, target in pairwise(sigmas):
        kept, kept_next = 1 / (sigma**2 + 1), 1 / (target**2 + 1)
        alpha, eps = kept / kept_next, slope(x, denoise(x, sigma), sigma)
        x = x / (1 + sigma**2).sqrt()
        x = (1 / alpha).sqrt() * (x - (1 - alpha) * eps / (1 - kept).sqrt())
        if target > 0:
            x = x + ((1 - alpha) * (1 - kept_next) / (1 - kept)).sqrt() * noise()
            x = x * (1 + target**2).sqrt()
        yield x


@sampler
def lcm(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Jump to the guess and add fresh noise (Luo et al. 2023, arXiv 2310.04378, algorithm 3)."""
    for sigma, target in pairwise(sigmas):
        x = denoise(x, sigma)
        if target > 0:
            x = noise() * target + x
        yield x
