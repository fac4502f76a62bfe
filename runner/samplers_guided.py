"""CFG++ samplers: they jump to the guided guess, and go back along the unconditional noise.

Chung et al. 2024 (CFG++, arXiv 2406.08070, algorithm 2), in the forms k-diffusion's walks take.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from runner.sampler import Denoise, Noise, ancestral, guesses, log_snr, sampler, slope
from runner.samplers_exponential import refined_weights


@sampler
def euler_cfg_pp(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """The guided guess plus the target's σ of the unconditional noise (CFG++, algorithm 2)."""
    for sigma, target in pairwise(sigmas):
        x0, plain = guesses(denoise)(x, sigma)
        x = x0 if target == 0 else x0 + target * slope(x, plain, sigma)
        yield x


@sampler
def euler_ancestral_cfg_pp(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """The same to below the target σ, then fresh noise."""
    for sigma, target in pairwise(sigmas):
        x0, plain = guesses(denoise)(x, sigma)
        down, up = ancestral(sigma, target)
        x = x0 if target == 0 else x0 + down * slope(x, plain, sigma) + noise() * up
        yield x


@sampler
def gradient_estimation_cfg_pp(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """gradient_estimation along the unconditional slope, from the guided guess."""
    last = None
    for sigma, target in pairwise(sigmas):
        x0, plain = guesses(denoise)(x, sigma)
        here = slope(x, plain, sigma)
        if target == 0:
            x = x0
        else:
            x = x0 + here * target
            x = x if last is None else x + (here - last) * (target - sigma)
        last = here
        yield x


@sampler
def dpmpp_2s_ancestral_cfg_pp(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """dpmpp_2s_ancestral, x moved by guided minus unconditional guess before each half.

    The second half subtracts the middle's unconditional guess from the start's guided one. That
    keeps it from converging even without guidance; it is ComfyUI's, and so it is here.
    """
    for sigma, target in pairwise(sigmas):
        x0, plain = guesses(denoise)(x, sigma)
        down, up = ancestral(sigma, target)
        if down == 0:
            x = x0 + slope(x, plain, sigma) * down
        else:
            t, t_next = log_snr(sigma), log_snr(down)
            h = t_next - t
            middle = (-(t + h / 2)).exp()
            ahead = (middle / (-t).exp()) * (x + (x0 - plain)) - (-h / 2).expm1() * x0
            later, plain = guesses(denoise)(ahead, middle)
            x = ((-t_next).exp() / (-t).exp()) * (x + (x0 - plain)) - (-h).expm1() * later
        x = x + noise() * up if target > 0 else x
        yield x


@sampler
def dpmpp_2m_cfg_pp(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """dpmpp_2m from the guided guess, its noise and its memory the unconditional one's."""
    last: tuple[Tensor, Tensor] | None = None  # h and the unconditional guess
    for sigma, target in pairwise(sigmas):
        x0, plain = guesses(denoise)(x, sigma)
        h = log_snr(target) - log_snr(sigma)
        mix = -torch.exp(-h) * plain
        if last is not None and target > 0:
            mix = mix - torch.expm1(-h) * (1 / (2 * (last[0] / h))) * (x0 - last[1])
        x = x0 + mix + torch.exp(-h) * x
        last = h, plain
        yield x


@sampler
def res_multistep_cfg_pp(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """res_multistep on unconditional guesses, x moved by guided minus unconditional."""
    yield from refined_guided(denoise, x, sigmas, noise, random=False)


@sampler
def res_multistep_ancestral_cfg_pp(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """The same to below the target σ, then fresh noise."""
    yield from refined_guided(denoise, x, sigmas, noise, random=True)


def refined_guided(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, random: bool
) -> Iterator[Tensor]:
    last: tuple[Tensor, Tensor, Tensor] | None = None  # guess, σ there, where its step led
    for sigma, target in pairwise(sigmas):
        x0, plain = guesses(denoise)(x, sigma)
        down, up = ancestral(sigma, target) if random else (target, torch.zeros_like(target))
        if last is None or down == 0:
            x = x0 + slope(x, plain, sigma) * down
        else:
            h, here, there = refined_weights(sigma, down, last[1], last[2])
            x = (-h).exp() * (x + (x0 - plain)) + h * (here * plain + there * last[0])
        x = x + noise() * up if random and target > 0 else x
        last = plain, sigma, down
        yield x
