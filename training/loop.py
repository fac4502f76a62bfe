"""The loop of all trainings: Adam, a warm start, a cosine, averaged weights, taken up again.

Whoever stops it loses a minute at most: everything is in FOLDER/NAME.pt, written whole.
"""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

MEET = 10  # steps after which workers, where there are several, agree
Losses = dict[str, Tensor]  # "loss" is the one that is followed


@dataclass(frozen=True)
class Plan:
    name: str
    steps: int
    rate: float  # Adam's learning rate at its highest
    warm: int = 50  # steps until it is
    keep: float = 0.995  # of the averaged weights, each step
    every: float = 60.0  # seconds between savings


def train(network: nn.Module, plan: Plan, folder: Path, step: Callable[[int], Losses]) -> nn.Module:
    """Train in place and return the network with its averaged weights."""
    path = folder / f"{plan.name}.pt"
    weights = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=plan.rate, betas=(0.9, 0.99))
    mean = [p.detach().clone() for p in weights]
    start = take_up(path, network, optimiser, mean)
    saved, sums, since = time.monotonic(), dict[str, float](), 0
    for number in range(start, plan.steps):
        torch.manual_seed(number)
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * pace(number, plan)
        losses = step(number)
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        if (number + 1) % MEET == 0:
            meet([*weights, *moments(optimiser)])
        keep = min(plan.keep, (number + 1) / (number + 10))
        torch._foreach_lerp_(mean, [p.detach() for p in weights], 1 - keep)
        since += 1
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        last = number + 1 == plan.steps
        if rank() == 0 and (time.monotonic() - saved > plan.every or last):
            tell(folder, plan.name, number + 1, {k: v / since for k, v in sums.items()})
            keep_all(path, network, optimiser, mean, number + 1)
            saved, sums, since = time.monotonic(), {}, 0
    for weight, average in zip(weights, mean, strict=True):
        weight.data.copy_(average)
    return network.eval()


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def workers() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def together() -> None:
    """Join the other workers, where RANK, WORLD_SIZE and MASTER_PORT name some.

    Each takes its share of every batch, and every MEET steps they go on from their mean.
    """
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("gloo", timeout=timedelta(hours=2))


def meet(tensors: list[Tensor]) -> None:
    """Each of these becomes the mean of all workers' own."""
    if workers() == 1:
        return
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, mean in zip(tensors, (flat / workers()).split(sizes), strict=True):
        tensor.detach().copy_(mean.view_as(tensor))


def moments(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [state[name] for state in optimiser.state.values() for name in ("exp_avg", "exp_avg_sq")]


def pace(number: int, plan: Plan) -> float:
    """The share of the learning rate at a step: up in a line, down in half a cosine."""
    return min(1.0, (number + 1) / plan.warm) * (
        0.02 + 0.98 * (1 + math.cos(math.pi * number / plan.steps)) / 2
    )


def take_up(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, mean: list[Tensor]
) -> int:
    if not path.exists():
        return 0
    kept = torch.load(path, weights_only=True)
    network.load_state_dict(kept["network"])
    optimiser.load_state_dict(kept["optimiser"])
    for ours, theirs in zip(mean, kept["mean"], strict=True):
        ours.copy_(theirs)
    return int(kept["step"])


def keep_all(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, mean: list[Tensor], step: int
) -> None:
    kept = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(kept | {"mean": mean, "step": step}, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def averaged(path: Path, network: nn.Module) -> nn.Module:
    """The network with the averaged weights of a training, finished or not."""
    kept = torch.load(path, weights_only=True)
    network.load_state_dict(kept["network"])
    weights = [p for p in network.parameters() if p.requires_grad]
    for ours, theirs in zip(weights, kept["mean"], strict=True):
        ours.data.copy_(theirs)
    return network.eval()


def tell(folder: Path, name: str, step: int, losses: dict[str, float]) -> None:
    told = {"step": step, "cpu_seconds": round(time.process_time(), 1)}
    line = json.dumps(told | {k: round(v, 5) for k, v in losses.items()})
    with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(f"{name}: {line}", flush=True)
