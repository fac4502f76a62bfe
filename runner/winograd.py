"""Winograd: a 3 x 3 convolution with fewer multiplications.

Minimal filtering (Winograd 1980; Lavin & Gray 2016, eq. 8-12): the picture is cut into overlapping
tiles, tiles and weights are transformed, the products are matrix products, one for each number of a
tile, and the way back sums them up. Two ways, by the pixels that come out of a tile:

SMALL   2 x 2 from 4 x 4: 16 multiplications where the plain way takes 36
LARGE   4 x 4 from 6 x 6: 36 for 144, and 36 / 16 as many weights: for many pixels

A polynomial is evaluated at points, multiplied there, and interpolated (Toom-Cook). SMALL has the
points 0, ±1 and ∞. LARGE has 0, ±5/8, ±3/2 and ∞, which lose fewer bits than the usual 0, ±1, ±2
and ∞: a relative error of 1.4e-6 in float32, for 3.3e-6 there, 5e-7 of SMALL and 2e-7 of the plain
way (256 channels, measured).

Shapes: B batch, H, W size, I channels in, O out; n pixels of a tile's side come out, and n + 2 = N
go in; T tiles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runner.products import products

BLOCK = 1 << 21  # numbers in the transformed tiles of one piece: what stays in the cache
PIECE = 1 << 18  # pairs of channels whose weights are transformed at a time, likewise
A, B = 5 / 8, 3 / 2  # points of LARGE; of 197 pairs of sixteenths the best lost 2 % fewer bits

Row = Sequence[Tensor]


@dataclass(frozen=True)
class Way:
    """out: n. weights: G (N, 3). ahead: Bᵀ d of N tensors, into N others if given. back: Aᵀ m, of
    N tensors (which it may use up) n."""

    out: int
    weights: Sequence[Sequence[float]]
    ahead: Callable[[Row, Row | None], Row]
    back: Callable[[Row], Row]


def four_ahead(d: Row, out: Row | None = None) -> Row:
    out = out or [torch.empty_like(d[0]) for _ in d]
    torch.sub(d[0], d[2], out=out[0])
    torch.add(d[1], d[2], out=out[1])
    torch.sub(d[2], d[1], out=out[2])
    torch.sub(d[1], d[3], out=out[3])
    return out


def two_back(m: Row) -> Row:
    return (m[1] + m[2]).add_(m[0]), m[1].sub_(m[2]).sub_(m[3])


def six_ahead(d: Row, out: Row | None = None) -> Row:
    """Of x(x² - A²)(x² - B²), divided by each of its factors, the coefficients."""
    out = out or [torch.empty_like(d[0]) for _ in d]
    for near, far, plus, minus in ((A, B, 1, 2), (B, A, 3, 4)):
        even = torch.sub(d[4], d[2], alpha=far**2)
        odd = torch.sub(d[3], d[1], alpha=far**2)
        torch.add(even, odd, alpha=near, out=out[plus])
        torch.sub(even, odd, alpha=near, out=out[minus])
    other = torch.sub(d[2], d[0], alpha=A**2)
    torch.sub(even, other, alpha=B**2, out=out[0])
    torch.sub(d[5], d[3], alpha=A**2, out=even)
    torch.sub(even, odd, alpha=B**2, out=out[5])
    return out


def four_back(m: Row) -> Row:
    """Σ pᵏ m(p), the products at ±A held A times, those at ±B B² times as large."""
    even, odd = m[1] + m[2], m[1].sub_(m[2])
    outer, last = m[3] + m[4], m[3].sub_(m[4])
    return (
        m[0].add_(even, alpha=1 / A).add_(outer, alpha=1 / B**2),
        torch.add(odd, last, alpha=1 / B),
        torch.add(outer, even, alpha=A),
        m[5].add_(odd, alpha=A**2).add_(last, alpha=B),
    )


def at(point: float, times: float) -> tuple[float, float, float]:
    return times, times * point, times * point**2


near, far = 1 / (2 * A * (A**2 - B**2)), 1 / (2 * (B**2 - A**2))
SMALL = Way(2, (at(0, 1), at(1, 0.5), at(-1, 0.5), (0, 0, 1)), four_ahead, two_back)
LARGE = Way(
    4,
    (at(0, 1 / (A * B) ** 2), at(A, near), at(-A, near), at(B, far), at(-B, far), (0, 0, 1)),
    six_ahead,
    four_back,
)


def suits(conv: nn.Module) -> bool:
    """Whether a layer is what this file computes: 3 x 3, stride 1, one pixel of padding."""
    return (
        isinstance(conv, nn.Conv2d)
        and (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
        and (conv.groups, conv.dilation) == (1, (1, 1))
    )


def transformed(weight: Tensor, way: Way = SMALL, dtype: torch.dtype | None = None) -> Tensor:
    """G g Gᵀ for every pair of channels: (O, I, 3, 3) to (N², O, I), of another dtype if asked."""
    dtype = dtype or weight.dtype
    o, i = weight.shape[:2]
    side = torch.tensor(way.weights, dtype=torch.float64)
    both = torch.kron(side, side)  # (N², 9): of a weight's nine numbers in a row
    both = both.to(weight.device, dtype)
    rows = weight.flatten(2).permute(2, 0, 1)
    out = weight.new_empty(len(both), o, i, dtype=dtype)
    some = max(1, PIECE // i)
    for first in range(0, o, some):
        part = rows[:, first : first + some].reshape(9, -1).to(dtype)
        out[:, first : first + some] = (both @ part).view(len(both), -1, i)
    return out


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, way: Way = SMALL) -> Tensor:
    """x (B, H, W, I) with transformed weights (N², O, I); (B, H, W, O)."""
    batch, high, wide, width = x.shape
    n = way.out
    down, across = -(-high // n), -(-wide // n)  # tiles
    padded = framed(x, n * down + 2, n * across + 2)
    out = x.new_empty(batch, n * down, n * across, weight.shape[1])
    row = len(weight) * batch * across * max(width, weight.shape[1])  # numbers in a row of tiles
    rows = max(1, BLOCK // row)
    for top in range(0, down, rows):
        count = min(rows, down - top)
        part = padded[:, n * top : n * (top + count) + 2]
        made = products(tiles(part, count, across, way), weight)
        back(made, out[:, n * top : n * (top + count)], bias, way)
    return out[:, :high, :wide]


def framed(x: Tensor, down: int, across: int) -> Tensor:
    """x (B, H, W, I) behind a row and a column of zeros, and with more behind it, up to a size."""
    batch, high, wide, width = x.shape
    out = x.new_empty(batch, down, across, width)
    for edge in (out[:, 0], out[:, high + 1 :], out[:, :, 0], out[:, :, wide + 1 :]):
        edge.zero_()
    out[:, 1 : high + 1, 1 : wide + 1] = x
    return out


def tiles(part: Tensor, down: int, across: int, way: Way) -> Tensor:
    """Bᵀ d B of every tile of (B, n down + 2, n across + 2, I): (N², B · down · across, I)."""
    n = way.out
    size = n + 2
    made = part.new_empty(size, size, len(part), down, across, part.shape[3])
    lines = [part[:, first : first + n * (down - 1) + 1 : n] for first in range(size)]
    for line, into in zip(way.ahead(lines, None), made, strict=True):
        last = n * (across - 1) + 1
        way.ahead([line[:, :, first : first + last : n] for first in range(size)], list(into))
    return made.view(size * size, -1, part.shape[3])


def back(made: Row, out: Tensor, bias: Tensor | None, way: Way) -> None:
    """Aᵀ m A of every tile, N² times (T, O), into the pixels of `out` (B, n down, n across, O)."""
    batch, high, wide, width = out.shape
    n, size = way.out, way.out + 2
    m = [one.view(batch, high // n, wide // n, width) for one in made]
    pixels = out.view(batch, high // n, n, wide // n, n, width)
    columns = [way.back(m[column::size]) for column in range(size)]
    for y, line in enumerate(zip(*columns, strict=True)):
        for x, one in enumerate(way.back(line)):
            place = pixels[:, :, y, :, x]
            torch.add(one, bias, out=place) if bias is not None else place.copy_(one)
