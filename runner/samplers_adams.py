"""Samplers that remember their last slopes: Adams-Bashforth in its several forms.

Zhang & Chen 2022 (DEIS, arXiv 2204.13902), Xue et al. 2023 (SA-Solver, 2309.05019), k-diffusion.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from runner.sampler import Denoise, Noise, log_snr, sampler, slope, table_of

ADAMS = (  # weights of the slope here, one step before ..., for equal steps (Butcher 2016, 240)
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@sampler
def lms(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Integrate the polynomial through the last four slopes (Adams-Bashforth, k-diffusion)."""
    levels: list[float] = sigmas.double().tolist()
    slopes: list[Tensor] = []
    for place, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        slopes = [slope(x, x0, sigma), *slopes[:3]]
        if target == 0:
            x = x0
        else:
            known = levels[place::-1][: len(slopes)]
            weights = lagrange_integrals(known, levels[place], levels[place + 1])
            x = x + sum(weight * one for weight, one in zip(weights, slopes, strict=True))
        yield x


def lagrange_integrals(known: Sequence[float], start: float, stop: float) -> list[float]:
    """∫ of each Lagrange polynomial of up to four points; Gauss's two-point rule is exact."""
    middle, half = (start + stop) / 2, (stop - start) / 2
    nodes = middle - half / 3**0.5, middle + half / 3**0.5

    def basis(j: int, tau: float) -> float:
        product = 1.0
        for k, other in enumerate(known):
            product *= 1.0 if k == j else (tau - other) / (known[j] - other)
        return product

    return [half * sum(basis(j, tau) for tau in nodes) for j in range(len(known))]


@sampler
def ipndm(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Adams-Bashforth of order 4, as if all steps were equal (Liu et al. 2022, eq. 12)."""
    slopes: list[Tensor] = []
    for sigma, target in pairwise(sigmas):
        x0 = denoise(x, sigma)
        slopes = [slope(x, x0, sigma), *slopes[:3]]
        x = x0 if target == 0 else x + (target - sigma) * weighed(ADAMS[len(slopes) - 1], slopes)
        yield x


def weighed(weights: Sequence[Tensor | float], slopes: Sequence[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, one in zip(weights[1:], slopes[1:], strict=True):
        total = total + weight * one
    return total


@sampler
def ipndm_v(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """The same for unequal steps, with the weights of zju-pi's diff-solvers as they stand there."""
    slopes: list[Tensor] = []
    for place, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        slopes = [slope(x, x0, sigma), *slopes[:3]]
        if target == 0:
            x = x0
        else:
            near = sigmas[max(0, place - 3) : place + 2]
            x = x + (target - sigma) * weighed(unequal_adams(near.diff().flip(0)), slopes)
        yield x


def unequal_adams(steps: Tensor) -> list[Tensor]:
    """Weights for the slopes at up to four σ; steps: this one, the one before, ... (n,).

    The third difference's weight is not Adams's own: a bracket stands elsewhere. ComfyUI's
    numbers need it so, and it costs an order where neighbouring steps differ.
    """
    h, *past = steps
    if not past:
        return [torch.ones_like(h)]
    r = h / past[0]
    weights = [(2 + r) / 2, -r / 2]
    if len(past) == 1:
        return weights
    p, q = past[0], past[1]
    third = (1 - h / (3 * (h + p)) * (h * (h + p)) / (p * (p + q))) / 2
    weights = [weights[0] + third, weights[1] - (1 + p / q) * third, third * p / q]
    if len(past) == 2:
        return weights
    s = past[2]
    reach = p * (p + q) / (q * (q + s))
    fourth = (1 - h / (3 * (h + p))) / 2 + (1 - h / (2 * (h + p))) * h / (6 * (h + p + q))
    fourth = fourth * (h * (h + p) * (h + p + q)) / (p * (p + q) * (p + q + s))
    return [
        weights[0] + fourth,
        weights[1] - (1 + p / q + reach) * fourth,
        weights[2] + (p / q + reach * (1 + q / s)) * fourth,
        -fourth * reach * p / q,
    ]


@sampler
def deis(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Exponential Adams-Bashforth of order 3 in the time of the VP process (DEIS, eq. 14: tAB)."""
    times, rates = vp_times(sigmas.cpu())
    slopes: list[Tensor] = []
    for place, (sigma, target) in enumerate(pairwise(sigmas)):
        slopes = [slope(x, denoise(x, sigma), sigma), *slopes[:2]]
        if place == 0 or target <= 0:
            x = x + (target - sigma) * slopes[0]
        else:
            known = times[torch.arange(place, place - len(slopes), -1)]
            x = x + weighed(vp_integrals(known, times[place + 1], rates), slopes)
        yield x


def vp_times(sigmas: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """t of each σ in a VP process with β linear from 0.002 at t = 0.001 to 80 at 1; (β₀, β₁)."""
    first, last = torch.tensor(0.002) ** 2 + 1, torch.tensor(80) ** 2 + 1
    spread = 2 * (first.log() / 1e-3 - last.log()) / (1e-3 - 1)
    low = last.log() - 0.5 * spread
    times = ((low**2 + 2 * spread * (sigmas**2 + 1).log()).sqrt() - low) / spread
    return times, (low, spread + low)


def vp_integrals(known: Tensor, stop: Tensor, rates: tuple[Tensor, Tensor]) -> list[Tensor]:
    """∫ of the VP integrand times each Lagrange basis, by 10,000 points as in ComfyUI's deis.py.

    ½ (β₀ + (β₁ - β₀) τ) / √(α (1 - α)), α = exp(-½ τ² (β₁ - β₀) - τ β₀).
    """
    low, high = rates
    taus = torch.linspace(float(known[0]), float(stop), 10_000, dtype=known.dtype)
    alpha = torch.exp(-0.5 * taus**2 * (high - low) - taus * low)
    integrand = 0.5 * (taus * (high - low) + low) / torch.sqrt(alpha * (1 - alpha))
    integrals = []
    for j, mine in enumerate(known):
        basis = torch.ones_like(taus)
        for k, other in enumerate(known):
            basis = basis if k == j else basis * (taus - other) / (mine - other)
        integrals.append((integrand * basis).sum() * ((stop - known[0]) / len(taus)))
    return integrals


@sampler
def gradient_estimation(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """Euler along 2 d - d_last (Permenter & Yuan 2024, algorithm 2 with γ = 2; o2ND9v0CeK)."""
    last = None
    for sigma, target in pairwise(sigmas):
        x0 = denoise(x, sigma)
        here = slope(x, x0, sigma)
        if target == 0:
            x = x0
        else:
            x = x + here * (target - sigma)
            if last is not None:
                x = x + (here - last) * (target - sigma)
        last = here
        yield x


@sampler
def sa_solver(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """Stochastic Adams: predict by 3 guesses, correct by 4 (SA-Solver, algorithm 1)."""
    yield from stochastic_adams(denoise, x, sigmas, noise, twice=False)


@sampler
def sa_solver_pece(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Tensor]:
    """The same, looking once more after it has corrected."""
    yield from stochastic_adams(denoise, x, sigmas, noise, twice=True)


def stochastic_adams(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, twice: bool
) -> Iterator[Tensor]:
    """Noise between 20 % and 80 % of the training steps. Where the last σ is not 0, the end is the
    corrected latent of the σ before it, as in ComfyUI.
    """
    times, last = log_snr(sigmas), len(sigmas) - 1
    table = table_of(denoise)
    high, low = (float(table.sigma(torch.tensor((1 - share) * 999.0))) for share in (0.2, 0.8))
    ends_at_zero, tau, drawn = bool(sigmas[-1] == 0), 0.0, None
    guess, guesses = x, list[Tensor]()
    for place, (sigma, target) in enumerate(pairwise(sigmas)):
        guesses = [*guesses, denoise(guess, sigma)][-4:]
        fewest = last - place if ends_at_zero else 4  # lower orders near the end
        if place == 0 or (target == 0 and not twice):
            x = guess
        else:
            used = guesses[-min(4, fewest) :]
            x = adams(x, used, times[: place + 1], sigmas[place - 1 : place + 1], tau, True)
            x = x + drawn if drawn is not None else x
            if twice:
                guesses[-1] = denoise(x, sigma)
        if target == 0:
            yield guesses[-1]
            continue
        tau = 1.0 if high >= float(target) >= low else 0.0
        used = guesses[-min(3, fewest - 1 if ends_at_zero else 3) :]
        guess = adams(x, used, times[: place + 2], sigmas[place : place + 2], tau, False)
        drawn = None
        if tau:
            h = times[place + 1] - times[place]
            drawn = noise() * target * (-2 * tau**2 * h).expm1().neg().sqrt()
            guess = guess + drawn
        yield guess if place + 1 < last else x


def adams(
    x: Tensor, guesses: Sequence[Tensor], times: Tensor, sigmas: Tensor, tau: float, correct: bool
) -> Tensor:
    """SA-Solver eq. 14 (predict) and 17 (correct): x at the last of `times` from the one before.

    sigmas (2,): there and here. Guesses belong to the last times, the newest included if correct.
    """
    start, stop = times[-2], times[-1]
    known = times[len(times) - len(guesses) - (not correct) : len(times) - (not correct)]
    moments = exponential_moments(start, stop, len(guesses), tau)
    powers = torch.vander(known, len(guesses), increasing=True).T
    weights = sigmas[1] * stop.exp() * torch.linalg.solve(powers, moments)
    stack = torch.stack(list(guesses), dim=-1)
    kept: Tensor = sigmas[1] / sigmas[0] * (-(tau**2) * (stop - start)).exp() * x
    return kept + torch.matmul(stack, weights.to(stack.device))


def exponential_moments(start: Tensor, stop: Tensor, count: int, tau: float) -> Tensor:
    """m ∫ exp(m (τ - stop)) τᵖ dτ for p < count, m = 1 + τ²: by parts, Iₚ = [..] - p/m Iₚ₋₁."""
    m = 1 + tau**2
    p = torch.arange(count, dtype=start.dtype, device=start.device)
    ends = stop**p - start**p * (-m * (stop - start)).exp()
    out: list[Tensor] = []
    for power, end in enumerate(ends):
        out.append(end - power / m * out[-1] if out else end)
    return torch.stack(out)
