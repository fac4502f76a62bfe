"""Ceiling: what this device can do at best, measured here and now, and how much a step asks for.

A figure says little without it: half the steps of another machine may be all that this one has.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runner import products
from runner.devices import settle

SIDE = {"cpu": 2048}  # of the square matrices that are multiplied; 8192 on anything else
BLOCK = 1 << 26  # bytes that are copied


@dataclass(frozen=True)
class Ceiling:
    """flops: multiplications and additions a second in a large product; bytes: moved a second."""

    flops: float
    bytes: float


def ceiling(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> Ceiling:
    """The best of as many products, and copies, as fit into so many seconds each.

    On the CPU by torch's own BLAS and by oneDNN: the faster one is what the machine can do.
    """
    side = SIDE.get(device.type, 8192)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    result = torch.empty_like(a)
    here = torch.ones(BLOCK, dtype=torch.uint8, device=device)
    there = torch.empty_like(here)
    product_time = best(lambda: torch.mm(a, b, out=result), device, seconds)
    if products.suits(a, b):
        product_time = min(product_time, best(lambda: products.product(a, b), device, seconds))
    copy_time = best(lambda: there.copy_(here), device, seconds)
    return Ceiling(2 * side**3 / product_time, 2 * BLOCK / copy_time)


def best(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """The shortest time, seconds, of one piece of work; the first only warms up."""
    work()
    settle(device)
    shortest, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        work()
        settle(device)
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def flops(network: nn.Module, *inputs: Tensor | None) -> int | None:
    """Multiplications and additions of one pass, as the plain network does them; None before torch
    2.1. Nothing is computed: a copy without numbers walks over inputs without numbers.
    """
    try:
        from torch.utils.flop_counter import FlopCounterMode
    except ImportError:
        return None
    bare = without_numbers(network)
    shapes = [None if one is None else torch.empty_like(one, device="meta") for one in inputs]
    with FlopCounterMode(display=False) as count, torch.no_grad():
        bare(*shapes)
    return int(count.get_total_flops())


def without_numbers(network: nn.Module) -> nn.Module:
    """A copy whose weights have shapes and nothing else; the network itself is not touched."""
    from copy import deepcopy

    memo = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)
        for weight in (*network.parameters(), *network.buffers())
    }
    return deepcopy(network, memo)


def memory_peak(device: torch.device) -> int | None:
    """Bytes, at most, on a GPU since it was reset, else of this process; None where untold."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(ImportError):  # Windows has no such module
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None


def others() -> float:
    """How many processes beside this one wanted a core in the last minute, by the system's load;
    0 where it does not tell.
    """
    with suppress(AttributeError, OSError):
        return max(0.0, os.getloadavg()[0] - torch.get_num_threads())
    return 0.0
