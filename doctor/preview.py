"""Preview: the steps of a render as small pictures, from its trace and without a decoder."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from doctor.manifest import read
from doctor.tensors import Tensor
from manifests import FOLDER

WIDEST = 64  # latent pixels of the longer side; of a larger latent every n-th is taken
SHOWN = 20  # steps


def strip(trace: Mapping[str, Tensor]) -> Iterator[Image.Image]:
    """The sampler's state after each step, brought to the spread of a latent without noise.

    At most SHOWN of them, the last among them. trace: names and tensors as the runner saves them.
    """
    sigmas = trace["sigmas"].numbers if "sigmas" in trace else ()
    steps = [n for n in range(1, len(sigmas)) if f"step/{n}" in trace]
    family = "sdxl" if "pooled/positive" in trace else "sd"
    share = next(
        row for row in read(FOLDER / "previews.toml")["latents"] if row["family"] == family
    )
    count = min(SHOWN, len(steps))
    for place in range(count):
        n = steps[math.ceil((place + 1) * len(steps) / count) - 1]
        yield coloured(trace[f"step/{n}"], share, math.sqrt(1 + sigmas[n] ** 2))


def coloured(latent: Tensor, share: Mapping[str, Any], size: float) -> Image.Image:
    """(1, 4, h, w) numbers as a picture: -1 is black and 1 is full, as in ComfyUI's previews."""
    _, channels, high, wide = latent.shape
    every = max(1, math.ceil(max(high, wide) / WIDEST))
    plane = high * wide
    shift = share.get("shift", (0.0, 0.0, 0.0))
    spots = [y * wide + x for y in range(0, high, every) for x in range(0, wide, every)]

    def band(name: str, more: float) -> Sequence[int]:
        factors = [factor / size for factor in share[name]][:channels]
        parts = [latent.numbers[c * plane : (c + 1) * plane] for c in range(len(factors))]
        return [
            byte(sum(f * part[at] for f, part in zip(factors, parts, strict=True)) + more)
            for at in spots
        ]

    bands = (band(name, more) for name, more in zip(("red", "green", "blue"), shift, strict=True))
    picture = Image.new("RGB", (len(range(0, wide, every)), len(range(0, high, every))))
    picture.putdata(list(zip(*bands, strict=True)))
    return picture


def byte(value: float) -> int:
    """-1..1 to 0..255; what is not finite is black."""
    return round(min(1.0, max(0.0, (value + 1) / 2)) * 255) if math.isfinite(value) else 0


def halves(picture: Image.Image, columns: int) -> Iterator[list[tuple[str, str]]]:
    """A picture as rows of (upper, lower) colours, "#rrggbb", two pixels in each place."""
    wide = min(columns, picture.width)
    high = max(2, round(picture.height * wide / picture.width) // 2 * 2)
    small = picture.convert("RGB").resize((wide, high), Image.Resampling.BOX)
    raw = small.tobytes().hex()
    colours = [f"#{raw[at : at + 6]}" for at in range(0, len(raw), 6)]
    for y in range(0, high, 2):
        upper, lower = (colours[row * wide : (row + 1) * wide] for row in (y, y + 1))
        yield list(zip(upper, lower, strict=True))
