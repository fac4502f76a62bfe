"""Samplers of the reverse SDE, in λ = -ln σ: DPM-Solver++ SDE, SEEDS, ER-SDE.

Lu et al. 2022 (arXiv 2211.01095), Gonzalez et al. 2023 (SEEDS, 2305.14267), Cui et al. 2023
(ER-SDE-Solver, 2309.06169). The first take their noise from one Brownian path over σ.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from runner.sampler import Denoise, Noise, ancestral, increments, log_snr, sampler


@sampler
def dpmpp_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """DPM-Solver++(2S) of the SDE, r = 1/2: an ancestral step to the middle, then all the way."""
    yield from singlestep(denoise, x, sigmas, noise, on_device=False)


@sampler
def dpmpp_sde_gpu(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """The same, its noise made on the device."""
    yield from singlestep(denoise, x, sigmas, noise, on_device=True)


def singlestep(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_device: bool
) -> Iterator[Tensor]:
    path = increments(noise, sigmas, on_device) if len(sigmas) > 1 else None
    for sigma, target in pairwise(sigmas):
        x0 = denoise(x, sigma)
        if target == 0 or path is None:
            x = x0
        else:
            start, stop = log_snr(sigma), log_snr(target)
            middle = (-(start + 0.5 * (stop - start))).exp()
            down, up = ancestral(sigma, middle)
            ahead = down / sigma * x - (down / sigma - 1) * x0 + path(sigma, middle) * up
            x0 = denoise(ahead, middle)
            down, up = ancestral(sigma, target)
            x = down / sigma * x - (down / sigma - 1) * x0 + path(sigma, target) * up
        yield x


@sampler
def dpmpp_2m_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """SDE-DPM-Solver++(2M), Lu et al. 2022, eq. 18: the last two guesses' line, by its middle."""
    yield from multistep(denoise, x, sigmas, noise, False, order=2, middle=True)


@sampler
def dpmpp_2m_sde_gpu(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """The same, its noise made on the device."""
    yield from multistep(denoise, x, sigmas, noise, True, order=2, middle=True)


@sampler
def dpmpp_2m_sde_heun(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """The same with the line integrated exactly (φ₂)."""
    yield from multistep(denoise, x, sigmas, noise, False, order=2)


@sampler
def dpmpp_2m_sde_heun_gpu(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """The same, its noise made on the device."""
    yield from multistep(denoise, x, sigmas, noise, True, order=2)


@sampler
def dpmpp_3m_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """The parabola through the last three guesses, integrated exactly (φ₂, φ₃; k-diffusion)."""
    yield from multistep(denoise, x, sigmas, noise, False, order=3)


@sampler
def dpmpp_3m_sde_gpu(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """The same, its noise made on the device."""
    yield from multistep(denoise, x, sigmas, noise, True, order=3)


def multistep(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    on_device: bool,
    order: int,
    middle: bool = False,
) -> Iterator[Tensor]:
    path = increments(noise, sigmas, on_device) if len(sigmas) > 1 else None
    guesses: list[Tensor] = []  # newest first
    steps: list[Tensor] = []
    for sigma, target in pairwise(sigmas):
        guesses = [denoise(x, sigma), *guesses[: order - 1]]
        if target == 0 or path is None:
            x = guesses[0]
        else:
            h = log_snr(target) - log_snr(sigma)
            steps = [h, *steps[: order - 1]]
            x = target / sigma * (-h).exp() * x - (-2 * h).expm1() * guesses[0]
            x = x + bent(guesses, steps, middle)
            x = x + path(sigma, target) * target * (-2 * h).expm1().neg().sqrt()
        yield x


def bent(guesses: list[Tensor], steps: list[Tensor], middle: bool) -> Tensor | float:
    """What the guesses' slope, and with three of them their bend, add over a step of 2 h."""
    if len(guesses) == 1:
        return 0.0
    h = steps[0]
    first = (guesses[0] - guesses[1]) / (steps[1] / h)
    if middle:
        return 0.5 * (-2 * h).expm1().neg() * first
    phi2 = (-2 * h).expm1() / (2 * h) + 1
    if len(guesses) == 2:
        return phi2 * first
    near, far = steps[1] / h, steps[2] / h
    bend = (first - (guesses[1] - guesses[2]) / far) / (near + far)
    return phi2 * (first + bend * near) - (phi2 / (2 * h) - 0.5) * bend


@sampler
def seeds_2(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """SEEDS-2 (Gonzalez et al. 2023, algorithm 3), data prediction: one look at the middle of λ."""
    for sigma, target in pairwise(sigmas):
        x0 = denoise(x, sigma)
        if target == 0:
            x = x0
        else:
            start, stop = log_snr(sigma), log_snr(target)
            h, middle = stop - start, (-torch.lerp(start, stop, 0.5)).exp()
            drawn = shaken(noise, 0.0, -0.5 * h)
            ahead = middle / sigma * (-0.5 * h).exp() * x - (-h).expm1() * x0 + drawn * middle
            x0 = denoise(ahead, middle)
            drawn = shaken(noise, drawn, -0.5 * h)
            x = target / sigma * (-h).exp() * x - (-2 * h).expm1() * x0 + drawn * target
        yield x


def shaken(noise: Noise, before: Tensor | float, h: Tensor) -> Tensor:
    """The noise of an Ornstein-Uhlenbeck walk, |h| of λ further on (h < 0)."""
    return before * h.exp() + (2 * h).expm1().neg().sqrt() * noise()


@sampler
def seeds_3(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """SEEDS-3 (algorithm 4), data prediction: looks at one and two thirds of the way in λ."""
    for sigma, target in pairwise(sigmas):
        x0 = denoise(x, sigma)
        if target == 0:
            x = x0
        else:
            start, stop = log_snr(sigma), log_snr(target)
            h = stop - start
            one, two = ((-torch.lerp(start, stop, r)).exp() for r in (1 / 3, 2 / 3))
            drawn = shaken(noise, 0.0, -1 / 3 * h)
            x1 = one / sigma * (-1 / 3 * h).exp() * x - (-2 / 3 * h).expm1() * x0 + drawn * one
            later = denoise(x1, one)
            drawn = shaken(noise, drawn, (1 / 3 - 2 / 3) * h)
            bend = 2 * phi2(-4 / 3 * h)
            mean = ((-4 / 3 * h).expm1() - bend) * x0 + bend * later
            x2 = two / sigma * (-2 / 3 * h).exp() * x - mean + drawn * two
            latest = denoise(x2, two)
            drawn = shaken(noise, drawn, (2 / 3 - 1) * h)
            bend = phi2(-2 * h) / (2 / 3)
            mean = ((-2 * h).expm1() - bend) * x0 + bend * latest
            x = target / sigma * (-h).exp() * x - mean + drawn * target
        yield x


def phi2(h: Tensor) -> Tensor:
    """h φ₂(h) = (eʰ - 1 - h) / h."""
    return (h.expm1() - h) / h


@sampler
def er_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """ER-SDE-Solver-3 (Cui et al. 2023, algorithm 3), noise scale φ(σ) = σ (exp(σ^0.3) + 10)."""
    guesses: list[Tensor] = []  # newest first
    slopes: list[Tensor] = []
    for place, (sigma, target) in enumerate(pairwise(sigmas)):
        guesses = [denoise(x, sigma), *guesses[:1]]
        if target == 0:
            x = guesses[0]
        else:
            ratio = noise_scale(target) / noise_scale(sigma)
            x = ratio * x + (1 - ratio) * guesses[0]
            if place:
                change = (guesses[0] - guesses[1]) / (sigma - sigmas[place - 1])
                slopes = [change, *slopes[:1]]
                first, second = er_integrals(sigma, target)
                x = x + first * change
            if place > 1:
                bend = (slopes[0] - slopes[1]) / ((sigma - sigmas[place - 2]) / 2)
                x = x + second * bend
            x = x + noise() * (target**2 - sigma**2 * ratio**2).sqrt().nan_to_num(nan=0.0)
        yield x


def noise_scale(sigma: Tensor) -> Tensor:
    return sigma * ((sigma**0.3).exp() + 10.0)


def er_integrals(sigma: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the guess's first and second change (same paper, eq. 17), by 200 points."""
    change = target - sigma
    width = -change / 200.0
    points = target + torch.arange(200, dtype=torch.float32, device=sigma.device) * width
    scale = noise_scale(points)
    area = (1 / scale).sum() * width
    moment = ((points - sigma) / scale).sum() * width
    end = noise_scale(target)
    return change + area * end, change**2 / 2 + moment * end
