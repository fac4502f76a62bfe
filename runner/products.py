"""Products: x Wᵀ + b on the CPU, by oneDNN, where torch leaves it to the BLAS it was built with.

Measured on an AMD EPYC with AVX-512, float32: 5 to 60 % faster than MKL, most where rows are few.
torch reaches it by an operator of its own compiler (torch/_inductor/mkldnn_lowerings.py), which an
older torch has not, or wants packed weights for: it is tried once before it is used. It knows no
gradients: where they are wanted, torch's own product is taken.
"""

# mypy: disable-error-code="no-any-return,no-untyped-call"
# (torch says of no operator what it returns)

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MACHINES = ("x86_64", "amd64")  # where oneDNN has its own kernels
ROWS, PART = 256, 1 << 21  # rows, and numbers, of a weight that are widened at a time
FEWEST = 1 << 22  # multiplications below which calling takes longer than is saved
banned: list[bool] = []  # not empty while somebody wants none of it


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (…, I), weight (O, I), bias (O): (…, O); by oneDNN where that is there and pays.

    The weight may be kept in fewer bits than x.
    """
    if narrower(weight, x):
        return product_by_parts(x, weight, bias)
    if not suits(x, weight, bias):
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def narrower(weight: Tensor, x: Tensor) -> bool:
    """Whether a weight is kept in fewer bits than what it meets."""
    return weight.element_size() < x.element_size()


def product_by_parts(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same with a weight of fewer bits, widened in parts that stay in the cache.

    So many rows of it that oneDNN gives each half to the thread that has widened it (measured: in
    parts of 32 or 64 rows numbers go from one core to the other, and the time doubles).
    """
    rows = max(ROWS, PART // weight.shape[1] // ROWS * ROWS)
    biases = bias.split(rows) if bias is not None else repeat(None)
    parts = zip(weight.split(rows), biases, strict=False)
    return torch.cat([product(x, part.to(x.dtype), b) for part, b in parts], dim=-1)


def by_columns(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A convolution of (B, I, H, W) as one product, each pixel's surroundings laid out in a row."""
    stride, edge = conv.stride, conv.padding
    assert isinstance(edge, tuple)
    size = [(n + 2 * e - k) // s + 1 for n, e, k, s in
            zip(x.shape[2:], edge, conv.kernel_size, stride, strict=True)]  # fmt: skip
    rows = F.unfold(x, conv.kernel_size, padding=edge, stride=stride).transpose(1, 2)
    made = product(rows.contiguous(), conv.weight.flatten(1), conv.bias)
    return made.unflatten(1, size).permute(0, 3, 1, 2)


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
