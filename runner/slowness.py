"""Slowness: experiments on a device that did less than it could, each a few tenths of a second.

What they mean is said by causes.py. Only what this device has is tried; the rest is left out.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from runner.ceiling import best, ceiling
from runner.devices import settle

SECONDS = 0.2  # that one experiment repeats itself
HEADS, PIXELS, DEEP = 8, 1024, 40  # of the attention that is tried: one of SD 1.5's
BLOCK = 1 << 28  # bytes that are sent over the link


def measured(
    network: nn.Module, device: torch.device, dtype: torch.dtype, step: Callable[[], object]
) -> dict[str, object]:
    """What was found: seconds, bytes a second, operations a second, bytes.

    step: computes one guided step and does not wait for the device.
    """
    found: dict[str, object] = {
        "attention": attention(device, dtype),
        "elsewhere": elsewhere(network, device),
        **asking(device, step),
    }
    if device.type == "cuda":
        found["link"] = link(device)
        found["half"] = ceiling(device, torch.float16, SECONDS).flops
        found["memory"] = torch.cuda.get_device_properties(device).total_memory
    return found


def asking(device: torch.device, step: Callable[[], object]) -> dict[str, float]:
    """Seconds until a step was asked for, and until it was done: the shortest of three each."""
    rows = []
    for _ in range(3):
        settle(device)
        start = time.perf_counter()
        step()
        asked = time.perf_counter() - start
        settle(device)
        rows.append((asked, time.perf_counter() - start))
    return {"asking": min(a for a, _ in rows), "step": min(s for _, s in rows)}


def attention(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Seconds of attention as torch chooses it, and by the plain formula."""
    q, k, v = (
        torch.randn(2, HEADS, PIXELS, DEEP, device=device, dtype=torch.float32).to(dtype)
        for _ in range(3)
    )

    def work() -> object:
        return F.scaled_dot_product_attention(q, k, v)

    chosen = best(work, device, SECONDS)
    with plainly():
        plain = best(work, device, SECONDS)
    return {"chosen": chosen, "plain": plain}


@contextmanager
def plainly() -> Iterator[None]:
    """Attention by the plain formula alone, where this torch can be told so (since 2.3)."""
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def link(device: torch.device) -> float:
    """Bytes a second from pinned memory to the device."""
    here = torch.empty(BLOCK, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(BLOCK, dtype=torch.uint8, device=device)
    return BLOCK / best(lambda: there.copy_(here, non_blocking=True), device, SECONDS)


def elsewhere(network: nn.Module, device: torch.device) -> int:
    """Bytes of weights that do not lie on the device."""
    return sum(
        weight.numel() * weight.element_size()
        for weight in network.parameters()
        if weight.device.type != device.type
    )
