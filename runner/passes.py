"""Passes: the kernels of kernels.py, in Triton. Only there to be imported where Triton is.

A picture's rows are its pixels (channels last); numbers are float32 inside.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# (Triton compiles these; their arguments are pointers)

import triton
import triton.language as tl


@triton.jit
def sums_of_groups(x, sums, pixels, width, each, piece: tl.constexpr, across: tl.constexpr):
    """The sum of one piece of one group, and of its squares about the piece's own mean."""
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


@triton.jit
def normalised(
    x, sums, weight, bias, out, pixels, width, each, eps,
    piece: tl.constexpr, across: tl.constexpr, parts: tl.constexpr,
):  # fmt: skip
    """silu((x - mean) / deviation · weight + bias) of one piece of one group.

    The pieces' means and squares are put together here, by each piece again: they are few.
    """
    one, group, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    groups, pieces = tl.num_programs(1), tl.num_programs(2)
    every = tl.arange(0, parts)
    place = (one * groups + group) * pieces + every
    size = tl.num_programs(0) * groups * pieces
    total = tl.load(sums + place, mask=every < pieces, other=0.0)
    apart = tl.load(sums + size + place, mask=every < pieces, other=0.0)
    count = tl.minimum(piece, tl.maximum(pixels - every * piece, 0)) * each
    mean = tl.sum(total) / (pixels * each)
    between = total / tl.maximum(count, 1) - mean
    spread = tl.sum(apart) + tl.sum(tl.where(count > 0, between * between * count, 0.0))
    scale = 1 / tl.sqrt(spread / (pixels * each) + eps)
    pixel = part * piece + tl.arange(0, piece)[:, None]
    channel = tl.arange(0, across)[None, :]
    there = (pixel < pixels) & (channel < each)
    at = (one * pixels + pixel).to(tl.int64) * width + group * each + channel
    value = (tl.load(x + at, mask=there, other=0.0).to(tl.float32) - mean) * scale
    own = group * each + channel
    factor = tl.load(weight + own, mask=channel < each, other=0.0).to(tl.float32)
    offset = tl.load(bias + own, mask=channel < each, other=0.0).to(tl.float32)
    value = value * factor + offset
    value = value / (1 + tl.exp(-value))
    tl.store(out + at, value.to(out.dtype.element_ty), mask=there)


@triton.jit
def gated(wide, out, width, size: tl.constexpr):
    """value · gelu(gate) for a piece of one row (exact gelu)."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = part * size + tl.arange(0, size)
    there = column < width
    value = tl.load(wide + row * 2 * width + column, mask=there, other=0.0).to(tl.float32)
    gate = tl.load(wide + row * 2 * width + width + column, mask=there, other=0.0).to(tl.float32)
    value = value * gate * 0.5 * (1 + tl.erf(gate * 0.7071067811865476))
    tl.store(out + row * width + column, value.to(out.dtype.element_ty), mask=there)
