"""Products: x Wᵀ + b on the CPU, by oneDNN, where torch leaves it to the BLAS it was built with.

Measured on an AMD EPYC with AVX-512, float32: 5 to 60 % faster than MKL, most where rows are few.
torch reaches it by an operator of its own compiler (torch/_inductor/mkldnn_lowerings.py), which an
older torch has not, or wants packed weights for: it is tried once before it is used. It knows no
gradients: where they are wanted, torch's own product is taken.
"""

# mypy: disable-error-code="no-any-return"
# (torch says of no operator what it returns)

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

MACHINES = ("x86_64", "amd64")  # where oneDNN has its own kernels
FEWEST = 1 << 22  # multiplications below which calling takes longer than is saved
banned: list[bool] = []  # not empty while somebody wants none of it


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (…, I), weight (O, I), bias (O): (…, O); by oneDNN where that is there and pays."""
    if not suits(x, weight, bias):
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def products(x: Tensor, weight: Tensor) -> Sequence[Tensor]:
    """Of each of many: x (P, T, I), weight (P, O, I): P times (T, O)."""
    if not suits(x[0], weight[0]):
        return torch.bmm(x, weight.transpose(1, 2)).unbind()
    return [product(one, other) for one, other in zip(x, weight, strict=True)]


def suits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    big = x.numel() * len(weight) >= FEWEST
    given = [one for one in (x, weight, bias) if one is not None]
    learned = torch.is_grad_enabled() and any(one.requires_grad for one in given)
    return big and not learned and x.dtype == torch.float32 and x.device.type == "cpu" and usable()


def usable() -> bool:
    return not banned and there()


@lru_cache(1)
def there() -> bool:
    """Whether this torch has the operator, and it takes weights as they are and is right."""
    if platform.machine().lower() not in MACHINES:
        return False
    x, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    # no such operator; or one that wants other words, or packed weights
    with suppress(AttributeError, RuntimeError), torch.no_grad():
        made = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return torch.equal(made, x @ weight.T)
    return False


@contextmanager
def without() -> Iterator[None]:
    """Products by torch's own choice, for as long."""
    banned.append(True)
    try:
        yield
    finally:
        banned.pop()
