"""Preview: a render's steps as small pictures, as they come or from its trace, without a decoder.

How a channel of the latent colours a picture is fitted to the very render: its last step against
the picture that was decoded from it, by least squares. So it holds for every model.
"""

import math
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from doctor.tensors import Tensor

WIDEST = 64  # latent pixels of the longer side; of a larger latent every n-th is taken
SHOWN = 20  # steps
RIDGE = 1e-3  # keeps a fit to few pixels tame


def strip(trace: Mapping[str, Tensor]) -> Iterator[Image.Image]:
    """The sampler's state after each step, brought to the spread of a latent without noise.

    At most SHOWN of them, the last among them. trace: names and tensors as the runner saves them.
    """
    sigmas = trace["sigmas"].numbers if "sigmas" in trace else ()
    steps = [n for n in range(1, len(sigmas)) if f"step/{n}" in trace]
    if not steps or "image/output" not in trace:
        return
    colours = fitted(trace[f"step/{steps[-1]}"], photo(trace["image/output"]))
    count = min(SHOWN, len(steps))
    for place in range(count):
        n = steps[math.ceil((place + 1) * len(steps) / count) - 1]
        yield coloured(trace[f"step/{n}"], colours, math.sqrt(1 + sigmas[n] ** 2))


def told(glimpse: Mapping[str, Any]) -> Image.Image:
    """What the runner says of a step: width, height, and rgb, row by row in base64."""
    size = glimpse["width"], glimpse["height"]
    return Image.frombytes("RGB", size, b64decode(glimpse["rgb"]))


def photo(image: Tensor) -> Image.Image:
    """A (1, H, W, 3) tensor in 0..1 as a picture."""
    _, high, wide, _ = image.shape
    data = bytes(map(byte, image.numbers[: high * wide * 3]))
    return Image.frombytes("RGB", (wide, high), data)


def byte(value: float) -> int:
    """0..1 to 0..255; what is not finite is black."""
    return round(min(1.0, max(0.0, value)) * 255) if math.isfinite(value) else 0


def spots(latent: Tensor) -> tuple[int, int, list[list[float]]]:
    """Width, height, and the channels of each place with a 1 behind them."""
    _, channels, high, wide = latent.shape
    every = max(1, math.ceil(max(high, wide) / WIDEST))
    xs, ys = range(0, wide, every), range(0, high, every)
    places = [y * wide + x for y in ys for x in xs]
    planes = [latent.numbers[c * high * wide : (c + 1) * high * wide] for c in range(channels)]
    return len(xs), len(ys), [[*(plane[at] for plane in planes), 1.0] for at in places]


def fitted(latent: Tensor, picture: Image.Image) -> list[list[float]]:
    """For red, green and blue: the share of each channel, then what is added."""
    wide, high, rows = spots(latent)
    small = picture.resize((wide, high), Image.Resampling.BOX).tobytes()
    side = range(len(rows[0]))
    normal = [[sum(row[a] * row[b] for row in rows) for b in side] for a in side]
    for a in side:
        normal[a][a] += RIDGE * len(rows)
    return [
        solved(normal, [sum(row[a] * v / 255 for row, v in zip(rows, small[c::3], strict=True))
                        for a in side])
        for c in range(3)
    ]  # fmt: skip


def solved(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """x of matrix · x = right, for a symmetric positive definite matrix (Gauss)."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for a in range(len(rows)):
        for b in range(a + 1, len(rows)):
            share = rows[b][a] / rows[a][a]
            rows[b] = [x - share * y for x, y in zip(rows[b], rows[a], strict=True)]
    found: list[float] = []
    for row in reversed(rows):
        known = row[len(rows) - len(found) : -1]
        rest = row[-1] - sum(x * y for x, y in zip(known, found, strict=True))
        found.insert(0, rest / row[len(rows) - 1 - len(found)])
    return found


def coloured(latent: Tensor, colours: Sequence[Sequence[float]], size: float) -> Image.Image:
    wide, high, rows = spots(latent)
    for row in rows:
        row[:-1] = [value / size for value in row[:-1]]
    data = bytes(
        byte(sum(share * value for share, value in zip(colour, row, strict=True)))
        for row in rows
        for colour in colours
    )
    return Image.frombytes("RGB", (wide, high), data)


def halves(picture: Image.Image, columns: int) -> Iterator[list[tuple[str, str]]]:
    """A picture as rows of (upper, lower) colours, "#rrggbb", two pixels in each place."""
    wide = min(columns, picture.width)
    high = max(2, round(picture.height * wide / picture.width) // 2 * 2)
    raw = picture.convert("RGB").resize((wide, high), Image.Resampling.BOX).tobytes().hex()
    colours = [f"#{raw[at : at + 6]}" for at in range(0, len(raw), 6)]
    for y in range(0, high, 2):
        upper, lower = (colours[row * wide : (row + 1) * wide] for row in (y, y + 1))
        yield list(zip(upper, lower, strict=True))
