"""Schedules: which noise levels σ to visit. steps + 1 values, large to small, the last one 0.

A schedule is a function of the model's table; ComfyUI's float operations and their order are
kept (comfy/samplers.py, model_sampling.py), so equal settings give equal bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from runner.recipe import Refused

BETA_START, BETA_END, TIMESTEPS = 0.00085, 0.012, 1000
LAST_ALPHA_BAR = 4.8973451890853435e-08  # of zero-terminal-SNR models; 0 would divide by zero
DROPS_LAST_BUT_ONE = frozenset({"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"})


@dataclass(frozen=True)
class Table:
    """σ of every training step, small to large, and its logarithm; both (1000,) float32."""

    sigmas: Tensor
    log_sigmas: Tensor  # the float64 logarithm, rounded: not the logarithm of the rounded σ

    def timestep(self, sigma: Tensor) -> Tensor:
        """The training step nearest to σ in log σ: a whole number, as the denoiser expects."""
        apart = sigma.log() - self.log_sigmas.to(sigma.device)[:, None]
        return apart.abs().argmin(dim=0).view(sigma.shape)

    def sigma(self, timestep: Tensor) -> Tensor:
        """σ between training steps, interpolated in log σ."""
        t = timestep.float().clamp(min=0, max=len(self.sigmas) - 1)
        low, high, w = t.floor().long(), t.ceil().long(), t.frac()
        return ((1 - w) * self.log_sigmas[low] + w * self.log_sigmas[high]).exp()


Schedule = Callable[[Table, int], Tensor]
SCHEDULES: dict[str, Schedule] = {}


def schedule(visit: Schedule) -> Schedule:
    """Register a schedule under the name of its function, which is its name in ComfyUI."""
    SCHEDULES[visit.__name__] = visit
    return visit


def sigma_table(zero_snr: bool = False) -> Table:
    """The table of Stable Diffusion: betas linear in their roots, in float64, then rounded."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    kept = torch.cumprod(1.0 - betas, dim=0)
    sigmas = ((1 - kept) / kept) ** 0.5
    if zero_snr:
        sigmas = to_zero_snr(sigmas)
    return Table(sigmas.float(), sigmas.log().float())


def to_zero_snr(sigmas: Tensor) -> Tensor:
    """Shift and scale √ᾱ so that the last step is pure noise (Lin et al. 2023, algorithm 1)."""
    root = (1 / (sigmas * sigmas + 1)).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    kept = ((root - last) * (first / (first - last))) ** 2
    kept[-1] = LAST_ALPHA_BAR
    return ((1 - kept) / kept) ** 0.5


@schedule
def simple(table: Table, steps: int) -> Tensor:
    """Every n-th entry of the table, from the noisy end."""
    stride = len(table.sigmas) / steps
    visited = [float(table.sigmas[-(1 + int(i * stride))]) for i in range(steps)]
    return torch.tensor([*visited, 0.0])


@schedule
def sgm_uniform(table: Table, steps: int) -> Tensor:
    """Evenly spaced in training steps, from the last to one short of the first."""
    return torch.tensor([*evenly(table, steps + 1)[:-1], 0.0])


@schedule
def karras(table: Table, steps: int) -> Tensor:
    """Evenly spaced in σ^(1/7), which spends most steps near the image (Karras et al., eq. 5)."""
    low, high = float(table.sigmas[0]) ** (1 / 7.0), float(table.sigmas[-1]) ** (1 / 7.0)
    ramp = torch.linspace(0, 1, steps)
    return torch.cat([(high + ramp * (low - high)) ** 7.0, torch.zeros(1)])


@schedule
def exponential(table: Table, steps: int) -> Tensor:
    """Evenly spaced in ln σ (k-diffusion)."""
    low, high = math.log(float(table.sigmas[0])), math.log(float(table.sigmas[-1]))
    return torch.cat([torch.linspace(high, low, steps).exp(), torch.zeros(1)])


@schedule
def ddim_uniform(table: Table, steps: int) -> Tensor:
    """Every n-th entry of the table, from the clean end (Song et al. 2021).

    Where `steps` does not divide the table it is one step more, and starts below the largest σ.
    """
    stride = max(len(table.sigmas) // steps, 1)
    return torch.cat([torch.zeros(1), table.sigmas[1::stride]]).flip(0)


@schedule
def beta(table: Table, steps: int) -> Tensor:
    """Training steps at quantiles of Beta(0.6, 0.6), dense at both ends (Lee et al., 2407.12173).

    Steps that fall on the same entry are one: fewer than asked for from about 150 on.
    """
    quantiles = torch.arange(steps, dtype=torch.float64) / steps
    visited = torch.searchsorted(beta_borders(len(table.sigmas) - 1), 1 - quantiles)
    visited = torch.unique_consecutive(visited)  # type: ignore[no-untyped-call]
    return torch.cat([table.sigmas[visited], torch.zeros(1)])


@lru_cache(maxsize=2)
def beta_borders(last: int) -> Tensor:
    """P(X last < n + 1/2) for n = 0 .. last - 1, X of Beta(0.6, 0.6): (last,) float64.

    A quantile between two borders rounds to their n: no inverse is needed. The series is
    xᵃ / (a B) · ₂F₁(a, 1 - b; a + 1; x) (DLMF 8.17.7), mirrored above the middle.
    """
    a = b = 0.6
    x = (torch.arange(last // 2, dtype=torch.float64) + 0.5) / last
    term, total = torch.ones_like(x), torch.full_like(x, 1 / a)
    for n in range(1, 80):
        term = term * (n - b) / n * x
        total = total + term / (a + n)
    whole = math.exp(2 * math.lgamma(a) - math.lgamma(2 * a))
    lower = x**a * total / whole
    middle = [0.5 - 1e-12] * (last % 2)  # the border that 1/2 lies on: half to even is upwards
    return torch.cat([lower, torch.tensor(middle, dtype=torch.float64), 1 - lower.flip(0)])


@schedule
def normal(table: Table, steps: int) -> Tensor:
    """Evenly spaced in training steps, from the last to the first."""
    return torch.tensor([*evenly(table, steps), 0.0])


@schedule
def linear_quadratic(table: Table, steps: int) -> Tensor:
    """Half the steps in the first 2.5 % of the largest σ, then quadratically (Genmo's Mochi)."""
    if steps == 1:
        return torch.tensor([1.0, 0.0]) * table.sigmas[-1]
    threshold, straight = 0.025, steps // 2
    rest, short = steps - straight, straight - threshold * steps
    square = short / (straight * rest**2)
    linear = threshold / straight - 2 * short / rest**2
    const = square * straight**2
    gone = [i * threshold / straight for i in range(straight)]
    gone += [square * i**2 + linear * i + const for i in range(straight, steps)]
    return torch.tensor([1.0 - share for share in [*gone, 1.0]]) * table.sigmas[-1]


@schedule
def kl_optimal(table: Table, steps: int) -> Tensor:
    """Evenly spaced in arctan σ (Sabour et al. 2024, Align Your Steps, eq. 11).

    Refused: bad-steps at one step, where the formula is 0 / 0 (ComfyUI gives NaN).
    """
    if steps == 1:
        raise Refused("bad-steps", "kl_optimal needs at least 2 steps: with 1 it divides 0 by 0.")
    low, high = math.atan(float(table.sigmas[0])), math.atan(float(table.sigmas[-1]))
    ramp = torch.arange(steps).float() / (steps - 1)
    return torch.cat([(ramp * low + (1 - ramp) * high).tan(), torch.zeros(1)])


def evenly(table: Table, count: int) -> list[float]:
    """σ at `count` timesteps from the table's last to its first."""
    first = float(table.timestep(table.sigmas[-1]))
    last = float(table.timestep(table.sigmas[0]))
    return [float(table.sigma(t)) for t in torch.linspace(first, last, count)]


def walk(table: Table, scheduler: str, sampler_name: str, steps: int, denoise: float) -> Tensor:
    """The σ that KSampler visits: the last `steps` of a walk of steps / denoise; none at 0."""
    if denoise <= 0.0:
        return torch.empty(0)
    total = steps if denoise > 0.9999 else int(steps / denoise)
    if sampler_name in DROPS_LAST_BUT_ONE:
        sigmas = SCHEDULES[scheduler](table, total + 1)
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
    else:
        sigmas = SCHEDULES[scheduler](table, total)
    return sigmas if denoise > 0.9999 else sigmas[-(steps + 1) :]


def part(sigmas: Tensor, start: int, end: int, leftover: bool) -> Tensor:
    """KSamplerAdvanced's part of a walk, from step `start` to `end`; none if nothing is left.

    A walk that ends early jumps to σ = 0 in its last step unless the noise is to be left over.
    """
    if end < len(sigmas) - 1:
        sigmas = sigmas[: end + 1].clone()
        if not leftover:
            sigmas[-1] = 0
    return sigmas[start:] if start < len(sigmas) - 1 else torch.empty(0)
