"""Kernels: two things a GPU does in one pass over memory instead of three or four, in Triton.

Both lay pictures channels last. float32 inside, whatever goes in and out. Without Triton, or on
a device it does not know, `usable` says no and the engine does the same in torch's own steps.
"""

import torch
from torch import Tensor

try:
    import triton

    from runner import passes
except ImportError:  # torch for the CPU, for Windows, for Apple
    triton = None

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
    passes.sums_of_groups[batch, groups, pieces](rows, sums, pixels, width, each, piece, across)
    passes.normalised[batch, groups, pieces](
        rows, sums, weight, bias, out, pixels, width, each, eps, piece, across,
        triton.next_power_of_2(pieces),
    )  # fmt: skip
    return out.permute(0, 3, 1, 2)


def geglu(wide: Tensor) -> Tensor:
    """value · gelu(gate) of rows (..., 2 C), the gate behind the value (Shazeer 2020, eq. 5)."""
    out = wide.new_empty(*wide.shape[:-1], wide.shape[-1] // 2)
    size = 1024
    width = out.shape[-1]
    passes.gated[out.numel() // width, triton.cdiv(width, size)](wide, out, width, size)
    return out
