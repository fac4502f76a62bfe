"""Memory: asked for once, in large pages, and refused before the system has to kill for it."""

import mmap
from collections.abc import Iterator
from contextlib import suppress
from math import inf, prod

import torch
from torch import Tensor

from runner import early
from runner.recipe import Refused
from runner.tables import Shape, width_of


def reserve(specs: list[tuple[Shape, torch.device, torch.dtype]]) -> Iterator[Tensor]:
    """Memory for tensors, in order; what lies on the CPU comes from one piece of large pages."""
    sizes = [prod(shape) * width_of(dtype) for shape, _, dtype in specs]
    ours = [device.type == "cpu" for _, device, _ in specs]
    total = sum(-(-size // 64) * 64 for size, cpu in zip(sizes, ours, strict=True) if cpu)
    enough_memory(total - early.held())
    try:
        arena, at = pages(total), 0
        for (shape, device, dtype), size in zip(specs, sizes, strict=True):
            if device.type != "cpu":
                yield torch.empty(shape, dtype=dtype, device=device)
                continue
            yield arena[at : at + size].view(dtype).view(shape)
            at += -(-size // 64) * 64
    except (MemoryError, RuntimeError, OSError) as error:
        raise Refused(
            "not-enough-memory", f"There is no memory for the weights: {error}."
        ) from error


def pages(size: int) -> Tensor:
    """Bytes of fresh memory. Linux is asked for large pages: touching small ones costs seconds."""
    if not hasattr(mmap, "MADV_HUGEPAGE") or not size:
        return torch.empty(size, dtype=torch.uint8)
    begun = early.ready(size)  # or none, and what was begun is given back
    if begun is not None:
        return torch.frombuffer(begun, dtype=torch.uint8)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without large pages: slower, and just as right
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def free_memory() -> float:
    """Bytes that Linux says are to be had; elsewhere nobody says, and it is infinity."""
    try:
        return early.free()
    except (OSError, StopIteration, ValueError, IndexError):
        return inf


def enough_memory(size: int) -> None:
    """Refuse what Linux says is not there, before it kills the process for it."""
    free = free_memory()
    if size > free:
        raise Refused(
            "not-enough-memory",
            f"The weights need {size / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free.",
        )
