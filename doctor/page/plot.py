"""Plots as SVG that follow the page's colours and stay readable on paper."""

from collections.abc import Sequence
from math import floor, log10

from doctor.page.markup import safe

WIDE, HIGH, LEFT, BELOW = 640, 220, 64, 34


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
        middle = f'x="{x(place):.1f}" y="{HIGH - 16}" text-anchor="middle"'
        drawn.append(f"<text {middle}>{place + 1}</text>")
    line = f'y1="{y(level):.1f}" y2="{y(level):.1f}"'
    drawn.append(f'<line class="level" x1="{LEFT}" x2="{WIDE - 16}" {line}/>')
    drawn += [
        f'<circle class="dot" cx="{x(n):.1f}" cy="{y(v):.1f}" r="4"><title>{n + 1}: '
        f"{safe(f'{v:.4g}')}</title></circle>"
        for n, v in enumerate(values)
    ]
    drawn.append(f'<text x="{WIDE - 16}" y="{HIGH - 2}" text-anchor="end">{across}</text>')
    drawn.append(f'<text x="4" y="{HIGH - 2}">{up}</text>')
    return (
        f'<svg class="plot" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{title}">'
        f"{''.join(drawn)}</svg>"
    )


def round_steps(top: float) -> list[float]:
    """From 0 to above top in three to six round steps."""
    unit = 10.0 ** floor(log10(top))
    unit = next(unit * k for k in (0.2, 0.5, 1, 2) if top / (unit * k) <= 5)
    return [round(unit * n, 10) for n in range(int(top / unit) + 2)]
