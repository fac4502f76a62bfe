"""Schedules: which noise levels σ to visit. steps + 1 values, large to small, the last one 0.

A schedule is a function of the model's table; ComfyUI's float operations and their order are
kept (comfy/samplers.py, model_sampling.py), so equal settings give equal bits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

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
def karras(table: Table, steps: int) -> Tensor:
    """Evenly spaced in σ^(1/7), which spends most steps near the image (Karras et al., eq. 5)."""
    low, high = float(table.sigmas[0]) ** (1 / 7.0), float(table.sigmas[-1]) ** (1 / 7.0)
    ramp = torch.linspace(0, 1, steps)
    return torch.cat([(high + ramp * (low - high)) ** 7.0, torch.zeros(1)])


@schedule
def normal(table: Table, steps: int) -> Tensor:
    """Evenly spaced in training steps, from the last to the first."""
    first = float(table.timestep(table.sigmas[-1]))
    last = float(table.timestep(table.sigmas[0]))
    visited = [float(table.sigma(t)) for t in torch.linspace(first, last, steps)]
    return torch.tensor([*visited, 0.0])


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
