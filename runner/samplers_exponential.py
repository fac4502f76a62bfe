"""Samplers exact for the linear part of the ODE, in t = -ln σ: DPM-Solver, RES, UniPC.

Lu et al. 2022 (DPM-Solver, arXiv 2206.00927; DPM-Solver++, 2211.01095), Zhang et al. 2023 (RES,
2308.02157), Zhao et al. 2023 (UniPC, 2302.04867).
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from runner.sampler import Denoise, Noise, ancestral, log_snr, sampler, slope


@sampler
def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2: extrapolate x₀ from its last two guesses."""
    last: tuple[Tensor, Tensor] | None = None  # h and x₀
    for sigma, target in pairwise(sigmas):
        x0 = guess = denoise(x, sigma)
        t, t_next = log_snr(sigma), log_snr(target)
        h = t_next - t
        if last is not None and target > 0:
            r = last[0] / h
            guess = (1 + 1 / (2 * r)) * x0 - (1 / (2 * r)) * last[1]
        x = ((-t_next).exp() / (-t).exp()) * x - (-h).expm1() * guess
        last = h, x0
        yield x


@sampler
def dpmpp_2s_ancestral(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """DPM-Solver++(2S), algorithm 1 with r = 1/2, to below the target σ; then fresh noise."""
    for sigma, target in pairwise(sigmas):
        x0 = denoise(x, sigma)
        down, up = ancestral(sigma, target)
        if down == 0:
            x = x + slope(x, x0, sigma) * (down - sigma)
        else:
            t, t_next = log_snr(sigma), log_snr(down)
            h = t_next - t
            middle = (-(t + h / 2)).exp()
            ahead = (middle / (-t).exp()) * x - (-h / 2).expm1() * x0
            x = ((-t_next).exp() / (-t).exp()) * x - (-h).expm1() * denoise(ahead, middle)
        x = x + noise() * up if target > 0 else x
        yield x


class Solver:
    """One interval of DPM-Solver, in noise predictions ε (Lu et al. 2022, algorithms 1 and 2).

    Guesses are kept by where they were made, so that two orders share them.
    """

    def __init__(self, denoise: Denoise, x: Tensor, t: Tensor, t_next: Tensor):
        self.denoise, self.x, self.t, self.h = denoise, x, t, t_next - t
        self.after = (-t_next).exp()
        self.eps = self.ask(x, t)
        self.kept: dict[float, Tensor] = {}

    def ask(self, x: Tensor, t: Tensor) -> Tensor:
        sigma = (-t).exp()
        return slope(x, self.denoise(x, sigma), sigma)

    def at(self, r: float) -> Tensor:
        """ε at t + r h, where an order-1 step leads."""
        if r not in self.kept:
            t = self.t + r * self.h
            ahead = self.x - (-t).exp() * (r * self.h).expm1() * self.eps
            self.kept[r] = self.ask(ahead, t)
        return self.kept[r]

    def step(self, order: int, r: float = 0.5) -> Tensor:
        """x at t_next. r: where order 2 looks; order 3 looks at 1/3 and 2/3."""
        h, after, eps = self.h, self.after, self.eps
        straight = self.x - after * h.expm1() * eps
        if order == 1:
            return straight
        if order == 2:
            return straight - after / (2 * r) * h.expm1() * (self.at(r) - eps)
        third, t = self.at(1 / 3), self.t + 2 / 3 * h
        bend = (-t).exp() * 2 * ((2 / 3 * h).expm1() / (2 / 3 * h) - 1)
        ahead = self.x - (-t).exp() * (2 / 3 * h).expm1() * eps - bend * (third - eps)
        return straight - after * 1.5 * (h.expm1() / h - 1) * (self.ask(ahead, t) - eps)


def ends(sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """t at both ends; these two samplers stop at the last σ above 0."""
    return log_snr(sigmas[0]), log_snr(sigmas[-1] if sigmas[-1] > 0 else sigmas[-2])


@sampler
def dpm_fast(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """DPM-Solver-fast (appendix C): orders 3, 3, .., as many guesses as steps; σ of its own."""
    if len(sigmas) < 2:
        return
    guesses, (start, stop) = len(sigmas) - 1, ends(sigmas)
    count = guesses // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if guesses % 3 == 0 else [3] * (count - 1) + [guesses % 3]
    times = torch.linspace(float(start), float(stop), count + 1).to(sigmas)
    for order, (t, t_next) in zip(orders, pairwise(times), strict=True):
        x = Solver(denoise, x, t, t_next).step(order)
        yield x


@sampler
def dpm_adaptive(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """DPM-Solver-23 (appendix C.2): steps as long as orders 2 and 3 agree to 0.0078 or 5 %.

    Takes as many guesses as it needs, three a try, whatever number of steps was asked for.
    """
    if len(sigmas) < 2:
        return
    t, stop = ends(sigmas)
    h, before = 0.05, x
    while t < stop - 1e-5:
        t_next = torch.minimum(stop, t + h)
        solver = Solver(denoise, x, t, t_next)
        low, high = solver.step(2, 1 / 3), solver.step(3)
        allowed = (0.05 * torch.maximum(low.abs(), before.abs())).clamp(min=0.0078)
        error = float(torch.linalg.norm((low - high) / allowed)) / x.numel() ** 0.5
        if not math.isfinite(error):  # no step will ever do: say so by what comes out
            yield high
            return
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / 3) - 1)
        h *= factor
        if factor >= 0.81:
            before, x, t = low, high, t_next
            yield x


@sampler
def res_multistep(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Refined exponential solver, second order, from the last two guesses (RES, section 4.2)."""
    yield from refined(denoise, x, sigmas, noise, random=False)


@sampler
def res_multistep_ancestral(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """The same to below the target σ, then fresh noise."""
    yield from refined(denoise, x, sigmas, noise, random=True)


def refined(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, random: bool
) -> Iterator[Tensor]:
    last: tuple[Tensor, Tensor, Tensor] | None = None  # guess, σ there, where its step led
    for sigma, target in pairwise(sigmas):
        x0 = denoise(x, sigma)
        down, up = ancestral(sigma, target) if random else (target, torch.zeros_like(target))
        if last is None or down == 0:
            x = x + slope(x, x0, sigma) * (down - sigma)
        else:
            h, here, there = refined_weights(sigma, down, last[1], last[2])
            x = (-h).exp() * x + h * (here * x0 + there * last[0])
        x = x + noise() * up if random and target > 0 else x
        last = x0, sigma, down
        yield x


def refined_weights(
    sigma: Tensor, down: Tensor, sigma_before: Tensor, down_before: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """h, and the weights of this guess and the last: φ₁ - φ₂ / c₂ and φ₂ / c₂ (RES, eq. 5)."""
    h = log_snr(down) - log_snr(sigma)
    c2 = (log_snr(sigma_before) - log_snr(down_before)) / h
    phi1 = (-h).expm1() / -h
    phi2 = (phi1 - 1) / -h
    b1, b2 = phi1 - phi2 / c2, phi2 / c2
    return h, b1.nan_to_num(nan=0.0), b2.nan_to_num(nan=0.0)


LAST_SIGMA = 0.001  # where UniPC stops instead of 0


@sampler
def uni_pc(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """UniPC-3 with B(h) = h (Zhao et al. 2023, algorithms 5 and 6, predicting data)."""
    yield from unified(denoise, x, sigmas, grows=False)


@sampler
def uni_pc_bh2(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """UniPC-3 with B(h) = eʰ - 1."""
    yield from unified(denoise, x, sigmas, grows=True)


def unified(denoise: Denoise, x: Tensor, sigmas: Tensor, grows: bool) -> Iterator[Tensor]:
    """In the scaling where variance is kept. One step alone is no step (in ComfyUI, too)."""
    if len(sigmas) < 2:
        return
    last = sigmas[-1:] if sigmas[-1] > 0 else torch.full_like(sigmas[-1:], LAST_SIGMA)
    sigmas = torch.cat([sigmas[:-1], last])
    steps, (alphas, stds) = len(sigmas) - 1, kept_variance(sigmas)
    times = 0.5 * torch.log(alphas**2) - 0.5 * torch.log(1.0 - alphas**2)

    def guess(x: Tensor, place: int) -> Tensor:
        full = x * (sigmas[place] ** 2 + 1.0) ** 0.5
        eps = slope(full, denoise(full, sigmas[place]), sigmas[place])
        return (x - stds[place] * eps) / alphas[place]

    x = x / torch.sqrt(1.0 + sigmas[0] ** 2.0)
    guesses = [guess(x, 0)]
    if steps == 1:
        yield x / alphas[-1]
    for place in range(1, steps + 1 if steps > 1 else 0):
        order = min(place, 3, steps + 1 - place)
        h = times[place] - times[place - 1]
        ratios = (times[place - order : place - 1].flip(0) - times[place - 1]) / h
        newest, *older = guesses[: -order - 1 : -1]
        bends = [(one - newest) / r for one, r in zip(older, ratios, strict=True)]
        predict, correct, scale = unified_weights(-h, ratios, grows)
        straight = stds[place] / stds[place - 1] * x - alphas[place] * (-h).expm1() * newest
        x = straight - alphas[place] * scale * mixed(predict, bends, x)
        if place < steps:
            ahead = guess(x, place)
            bends.append(ahead - newest)
            x = straight - alphas[place] * scale * mixed(correct, bends, x)
            guesses = [*guesses[-2:], ahead]
        yield x / alphas[place]


def kept_variance(sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """α and the spread of the noise, α² + spread² = 1, rounded as ComfyUI's SigmaConvert does."""
    log_alphas = 0.5 * torch.log(1 / (sigmas * sigmas + 1))
    return log_alphas.exp(), torch.sqrt(1.0 - torch.exp(2.0 * log_alphas))


def mixed(weights: Tensor, bends: list[Tensor], like: Tensor) -> Tensor:
    total = torch.zeros_like(like)
    for weight, bend in zip(weights, bends, strict=True):
        total = total + weight * bend
    return total


def unified_weights(h: Tensor, ratios: Tensor, grows: bool) -> tuple[Tensor, Tensor, Tensor]:
    """a of predictor and corrector, and B(h): R a = b / B(h) (UniPC, eq. 5, theorem 3.1)."""
    scale = h.expm1() if grows else h
    nodes = torch.cat([ratios, torch.ones_like(h).view(1)])
    phi, factorial, right = h.expm1() / h - 1, 1, []
    for order in range(1, len(nodes) + 1):
        right.append(phi * factorial / scale)
        factorial *= order + 1
        phi = phi / h - 1 / factorial
    b, powers = torch.stack(right), torch.stack([nodes**n for n in range(len(nodes))])
    half = torch.full_like(b[:1], 0.5)  # both papers' simpler weight for a single unknown
    few = half if len(b) == 2 else torch.linalg.solve(powers[:-1, :-1], b[:-1])
    return few, half if len(b) == 1 else torch.linalg.solve(powers, b), scale
