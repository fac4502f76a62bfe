"""Plots as SVG that follow the page's colours and stay readable on paper."""

from collections.abc import Sequence
from math import floor, log10

from doctor.page.markup import safe

WIDE, HIGH, LEFT, BELOW = 640, 236, 64, 50  # room for the larger letters of a narrow page
BAR_LEFT, BAR_RIGHT = 190, 110


def dots(title: str, values: Sequence[float], level: float, across: str, up: str) -> str:
    """Every value as a dot over its number, from 0 up, with one level drawn through them.

    `title`, `across` and `up` are texts for attributes and axes, already safe.
    """
    ticks = round_steps(max((*values, level)) or 1.0)
    top = ticks[-1]

    def x(place: int) -> float:
        return LEFT + (WIDE - LEFT - 16) * (place + 0.5) / len(values)

    def y(value: float) -> float:
        return 12 + (HIGH - BELOW - 12) * (1 - value / top)

    drawn = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDE - 16}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in ticks
    ]
    for place in range(0, len(values), max(1, len(values) // 10)):
        middle = f'x="{x(place):.1f}" y="{HIGH - 30}" text-anchor="middle"'
        drawn.append(f"<text {middle}>{place + 1}</text>")
    line = f'y1="{y(level):.1f}" y2="{y(level):.1f}"'
    drawn.append(f'<line class="level" x1="{LEFT}" x2="{WIDE - 16}" {line}/>')
    drawn += [
        f'<circle class="dot" cx="{x(n):.1f}" cy="{y(v):.1f}" r="4"><title>{n + 1}: '
        f"{safe(f'{v:.4g}')}</title></circle>"
        for n, v in enumerate(values)
    ]
    drawn.append(f'<text x="{WIDE - 16}" y="{HIGH - 6}" text-anchor="end">{across}</text>')
    drawn.append(f'<text x="4" y="{HIGH - 6}">{up}</text>')
    return svg(title, HIGH, drawn)


def bars(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """A bar from 0 for each row of (label, value, value as told); labels as dots() takes them."""
    longest = max((value for _, value, _ in rows), default=0.0) or 1.0
    each, room = 26, WIDE - BAR_LEFT - BAR_RIGHT
    high = each * len(rows) + 8
    drawn = []
    for place, (label, value, told) in enumerate(rows):
        y, wide = 6 + each * place, room * value / longest
        drawn.append(
            f'<text x="{BAR_LEFT - 8}" y="{y + 14}" text-anchor="end">{label}</text>'
            f'<rect class="block" x="{BAR_LEFT}" y="{y}" width="{wide:.1f}" height="{each - 8}"/>'
            f'<text x="{BAR_LEFT + wide + 6:.1f}" y="{y + 14}">{safe(told)}</text>'
        )
    return svg(title, high, drawn)


def roof(title: str, intensity: float, rate: float, most: float, slope: float, units: str) -> str:
    """The roofline on logarithmic axes: min(most, slope · x) as a line, and where a step is.

    intensity: operations a byte; rate, most: operations a second; slope: bytes a second.
    """
    knee = most / slope
    left, right = (10 ** floor(log10(min(intensity, knee) / 3)), max(intensity, knee) * 10)
    low, top = min(rate, left * slope) / 2, most * 2

    def x(value: float) -> float:
        return LEFT + (WIDE - LEFT - 16) * log10(value / left) / log10(right / left)

    def y(value: float) -> float:
        return 12 + (HIGH - BELOW - 12) * (1 - log10(value / low) / log10(top / low))

    corners = ((left, left * slope), (knee, most), (right, most))
    line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in corners)
    told = f"{intensity:.0f}, {rate / 1e12:.3g} / {min(most, slope * intensity) / 1e12:.3g} TFLOP/s"
    drawn = [
        f'<polyline class="level" fill="none" points="{line}"/>',
        f'<circle class="dot" cx="{x(intensity):.1f}" cy="{y(rate):.1f}" r="5"/>',
        f'<text x="{x(intensity):.1f}" y="{y(rate) + 20:.1f}" text-anchor="middle">{told}</text>',
        f'<text x="{WIDE - 16}" y="{HIGH - 6}" text-anchor="end">{units}</text>',
        f'<text x="{LEFT + 4}" y="{y(most) - 6:.1f}">{most / 1e12:.3g} TFLOP/s</text>',
        f'<text x="{LEFT + 4}" y="{HIGH - BELOW + 14}">{slope / 1e9:.3g} GB/s</text>',
    ]
    return svg(title, HIGH, drawn)


def svg(title: str, high: int, drawn: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDE} {high}" role="img" aria-label="{title}">'
        f"{''.join(drawn)}</svg>"
    )


def round_steps(top: float) -> list[float]:
    """From 0 to above top in three to six round steps."""
    unit = 10.0 ** floor(log10(top))
    unit = next(unit * k for k in (0.2, 0.5, 1, 2) if top / (unit * k) <= 5)
    return [round(unit * n, 10) for n in range(int(top / unit) + 2)]
