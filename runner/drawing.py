"""Drawing: small pictures as PNG in data URIs, and plots as SVG that follow the page's colours."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from math import floor, log10

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from runner.pixels import to_bytes

COLD_TO_WARM = np.array(  # dark blue, teal, yellow: order is seen without colour vision, too
    [(22, 22, 60), (28, 92, 132), (64, 160, 140), (190, 200, 90), (253, 232, 120)], float
)


def uri(pixels: np.ndarray) -> str:
    """(H, W) grey or (H, W, 3) colours, uint8, as a data URI."""
    packed = BytesIO()
    Image.fromarray(pixels).save(packed, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(packed.getvalue()).decode()


def picture(image: Tensor, widest: int = 512) -> str:
    """An (H, W, 3) picture in 0..1, no side over `widest` pixels."""
    shown = Image.fromarray(to_bytes(image))
    shown.thumbnail((widest, widest), Image.Resampling.LANCZOS)
    return uri(np.asarray(shown))


def tiles(latent: Tensor, limit: float | None = None) -> str:
    """The four channels (C, h, w) side by side as greys: 0 in the middle, ±limit at the ends."""
    limit = limit or float(latent.abs().max()) or 1.0
    grey = ((latent / limit).clamp(-1, 1) * 127 + 128).to(torch.uint8)
    gap = torch.full((grey.shape[1], 1), 128, dtype=torch.uint8)
    row = [part for channel in grey for part in (channel, gap)][:-1]
    return uri(torch.cat(row, dim=1).numpy())


def heat(values: Tensor) -> str:
    """(h, w) numbers from 0 up, as colours from dark blue to yellow."""
    top = float(values.max()) or 1.0
    at = (values / top).clamp(0, 1).numpy() * (len(COLD_TO_WARM) - 1)
    low = np.minimum(np.floor(at).astype(int), len(COLD_TO_WARM) - 2)
    share = (at - low)[..., None]
    colours = COLD_TO_WARM[low] * (1 - share) + COLD_TO_WARM[low + 1] * share
    return uri(colours.round().astype(np.uint8))


WIDE, HIGH, LEFT, BELOW = 640, 240, 56, 36
STYLES = ("line", "line second", "line third")


def plot(
    title: str, lines: Sequence[tuple[str, Sequence[float]]], across: str, up: str, log: bool
) -> str:
    """Lines over whole numbers from 0; on a logarithmic axis what is not above 0 is left out."""
    values = [v for _, line in lines for v in line if v > 0 or not log]
    if not values:
        return ""
    low, high = (min(values), max(values)) if log else (min(0.0, *values), max(values))
    ticks = decades(low, high) if log else evenly(low, high)
    low, high = min(low, *ticks), max(high, *ticks)
    count = max(len(line) for _, line in lines)

    def x(place: float) -> float:
        return LEFT + (WIDE - LEFT - 16) * place / max(1, count - 1)

    def y(value: float) -> float:
        a, b, v = (log10(n) for n in (low, high, value)) if log else (low, high, value)
        return 12 + (HIGH - BELOW - 12) * (1 - (v - a) / ((b - a) or 1))

    drawn = [f'<line class="grid" x1="{LEFT}" x2="{WIDE - 16}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
             f'<text x="{LEFT - 8}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
             for t in ticks]  # fmt: skip
    for place in range(0, count, max(1, (count - 1) // 10)):
        drawn.append(
            f'<text x="{x(place):.1f}" y="{HIGH - 18}" text-anchor="middle">{place}</text>'
        )
    for style, (name, line) in zip(STYLES, lines, strict=False):
        points = [(x(n), y(v)) for n, v in enumerate(line) if v > 0 or not log]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        drawn.append(
            f'<polyline class="{style}" points="{path}"><title>{escape(name)}</title></polyline>'
        )
        drawn += [f'<circle class="{style}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points]
    drawn.append(f'<text x="{WIDE - 16}" y="{HIGH - 3}" text-anchor="end">{escape(across)}</text>')
    drawn.append(f'<text x="4" y="{HIGH - 3}">{escape(up)}</text>')
    legend = "".join(
        f'<li><svg class="key" viewBox="0 0 24 8" aria-hidden="true"><polyline class="{style}" '
        f'points="0,4 24,4"/></svg> {escape(name)}</li>'
        for style, (name, _) in zip(STYLES, lines, strict=False)
    )
    keys = f'<ul class="legend">{legend}</ul>' if len(lines) > 1 else ""
    return (
        f'<svg class="plot" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(drawn)}</svg>{keys}"
    )


def decades(low: float, high: float) -> list[float]:
    first, last = floor(log10(low)), floor(log10(high))
    return [10.0**n for n in range(first, last + 2)]


def evenly(low: float, high: float) -> list[float]:
    """Three to six round numbers from low to above high."""
    span = (high - low) or 1.0
    unit = 10.0 ** floor(log10(span))
    unit = next(unit * k for k in (0.2, 0.5, 1, 2) if span / (unit * k) <= 5)
    first = floor(low / unit)
    return [round(unit * (first + n), 10) for n in range(int(span / unit) + 2)]
