"""Mapped: layers whose weights stay as their file has them, widened to what they compute in.

A checkpoint's weights have mostly 16 bits, and the CPU computes in 32. Kept in 32 they take twice
the memory, fresh and touched, which costs more than reading them (early.py); widened as they are
used, a part at a time that stays in the cache (products.py), they cost 3 to 4 % of a step. Every
16-bit number is a 32-bit one: what comes out is the same but for the order of sums. ComfyUI does so
on GPUs that lack a precision (ops.py: manual_cast).
"""

# mypy: disable-error-code="no-any-return,no-untyped-call"
# (torch says of no module what it returns)

import torch.nn.functional as F
from torch import Tensor, nn

from runner.products import narrower


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, widened(self.weight, x), self.bias)


class Conv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, widened(self.weight, x), self.bias)


def widened(weight: Tensor, x: Tensor) -> Tensor:
    """A weight in the precision of what it meets, where it is kept in a narrower one."""
    return weight.to(x.dtype) if narrower(weight, x) else weight
