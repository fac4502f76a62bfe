"""Kernels: two things a GPU does in one pass over memory instead of three or four, in Triton.

Both lay pictures channels last. float32 inside, whatever goes in and out. Without Triton, or on
a device it does not know, `usable` says no and the engine does the same in torch's own steps.
"""

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for the CPU, for Windows, for Apple
    triton = None  # type: ignore[assignment]

INTERPRETED = False  # tests run the kernels on the CPU (TRITON_INTERPRET=1)


def usable(x: Tensor) -> bool:
    return triton is not None and (x.is_cuda or INTERPRETED)


def norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """silu(group norm(x)) of a picture (B, C, H, W), channels last (Wu & He 2018, eq. 1).

    Two launches: sums by group in pieces of pixels, then one pass that uses them. Each piece sums
    squares about its own mean (Chan et al. 1979), so that a large mean costs no digits.
    """
    batch, width, high, wide = x.shape
    pixels, each = high * wide, width // groups
    rows = x.permute(0, 2, 3, 1)
    out = torch.empty_like(rows)
    piece = min(256, max(16, 1 << (pixels - 1).bit_length()))
    pieces = triton.cdiv(pixels, piece)
    sums = torch.empty((2, batch, groups, pieces), device=x.device, dtype=torch.float32)
    across = triton.next_power_of_2(each)
    sums_of_groups[batch, groups, pieces](rows, sums, pixels, width, each, piece, across)
    counts = counted(pixels, piece, pieces, x.device) * each
    mean = sums[0].sum(-1) / (pixels * each)
    between = (counts * (sums[0] / counts - mean[..., None]) ** 2).sum(-1)
    scale = ((sums[1].sum(-1) + between) / (pixels * each) + eps).rsqrt_()
    normalised[batch, groups, pieces](
        rows, mean, scale, weight, bias, out, pixels, width, each, piece, across
    )
    return out.permute(0, 3, 1, 2)


def counted(pixels: int, piece: int, pieces: int, device: torch.device) -> Tensor:
    """How many pixels each piece holds: all are full but the last."""
    counts = torch.full((pieces,), float(piece), device=device)
    counts[-1] = pixels - piece * (pieces - 1)
    return counts


def geglu(wide: Tensor) -> Tensor:
    """value · gelu(gate) of rows (..., 2 C), the gate behind the value (Shazeer 2020, eq. 5)."""
    out = wide.new_empty(*wide.shape[:-1], wide.shape[-1] // 2)
    size = 1024
    width = out.shape[-1]
    gated[out.numel() // width, triton.cdiv(width, size)](wide, out, width, size)
    return out


def silent(function: Any) -> Any:
    """Where there is no Triton a kernel is a name that nobody calls."""
    return triton.jit(function) if triton is not None else function


@silent
def sums_of_groups(x, sums, pixels, width, each, piece: "tl.constexpr", across: "tl.constexpr"):  # type: ignore[no-untyped-def]
    one, group, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    pixel = part * piece + tl.arange(0, piece)[:, None]
    channel = tl.arange(0, across)[None, :]
    there = (pixel < pixels) & (channel < each)
    at = (one * pixels + pixel).to(tl.int64) * width + group * each + channel
    value = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    place = (one * tl.num_programs(1) + group) * tl.num_programs(2) + part
    size = tl.num_programs(0) * tl.num_programs(1) * tl.num_programs(2)
    total = tl.sum(value)
    count = tl.sum(there.to(tl.float32))
    apart = tl.where(there, value - total / count, 0.0)
    tl.store(sums + place, total)
    tl.store(sums + size + place, tl.sum(apart * apart))


@silent
def normalised(  # type: ignore[no-untyped-def]
    x, mean, scale, weight, bias, out, pixels, width, each,
    piece: "tl.constexpr", across: "tl.constexpr",
):  # fmt: skip
    one, group, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    pixel = part * piece + tl.arange(0, piece)[:, None]
    channel = tl.arange(0, across)[None, :]
    there = (pixel < pixels) & (channel < each)
    at = (one * pixels + pixel).to(tl.int64) * width + group * each + channel
    value = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    place = one * tl.num_programs(1) + group
    value = (value - tl.load(mean + place)) * tl.load(scale + place)
    own = group * each + channel
    factor = tl.load(weight + own, mask=channel < each, other=0.0).to(tl.float32)
    offset = tl.load(bias + own, mask=channel < each, other=0.0).to(tl.float32)
    value = value * factor + offset
    value = value / (1 + tl.exp(-value))
    tl.store(out + at, value.to(out.dtype.element_ty), mask=there)


@silent
def gated(wide, out, width, size: "tl.constexpr"):  # type: ignore[no-untyped-def]
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = part * size + tl.arange(0, size)
    there = column < width
    value = tl.load(wide + row * 2 * width + column, mask=there, other=0.0).to(tl.float32)
    gate = tl.load(wide + row * 2 * width + width + column, mask=there, other=0.0).to(tl.float32)
    value = value * gate * 0.5 * (1 + tl.erf(gate * 0.7071067811865476))
    tl.store(out + row * width + column, value.to(out.dtype.element_ty), mask=there)
