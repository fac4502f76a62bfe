"""The benchmark on the page: its figures, its plots, and what others have published."""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

from doctor import speeds
from doctor.page.markup import (
    both,
    code,
    folded,
    phrased,
    plainly,
    safe,
    section,
    table,
    tag,
    terms,
)
from doctor.page.patient import Report, mark
from doctor.page.plot import bars, dots, roof

MOST_BINS = 8
CARD = {  # what a card told while it was timed -> its unit
    "clock": "MHz", "clock_most": "MHz", "power": "W", "power_limit": "W",
    "temperature_most": "°C", "joules_a_step": "J",
}  # fmt: skip


def bench(run: Report) -> str:
    timed = run["bench"]
    if not timed or not timed["seconds"]:
        return ""
    rate, ms = timed["steps_per_second"], 1000 * timed["median"]
    line = both(
        "html-rate", rate=f"{rate:.2f}", ms=f"{ms:.0f}", spread=f"{1000 * timed['spread']:.1f}"
    )
    doubts = "".join(tag("p", f"{mark('warning')} {phrased(doubt)}") for doubt in timed["doubts"])
    about = {**timed["machine"], **timed["settings"]}
    rows = ((code(name), code(value)) for name, value in about.items() if value not in (None, ""))
    whole = folded(both("html-bench-about"), terms(rows))
    plots = "".join(figure(key, drawn) for key, drawn in figures(timed))
    return section(
        "bench", tag("p", line) + doubts + plots + card(timed) + published(timed) + whole
    )


def figure(key: str, drawn: str) -> str:
    return f"<figure>{drawn}<figcaption>{both(key)}</figcaption></figure>"


def figures(timed: Any) -> Iterator[tuple[str, str]]:
    """Every plot that there is something to show in, by the key of its caption."""
    milliseconds = [1000 * second for second in timed["seconds"]]
    title, number = plainly("html-bench-plot"), plainly("html-step-number")
    level = 1000 * timed["median"]
    yield "html-bench-plot", dots(title, milliseconds, level, number, "ms")
    if len(milliseconds) > 2:
        yield "html-spread-plot", bars(plainly("html-spread-plot"), binned(milliseconds))
    if timed.get("stages"):
        yield "html-stages-plot", bars(plainly("html-stages-plot"), stages(timed))
    if len(timed.get("sizes", ())) > 1:
        rates = [(safe(one["size"]), one["steps_per_second"]) for one in timed["sizes"]]
        rows = [(f"{name}²", rate, f"{rate:.3g}/s") for name, rate in rates]
        yield "html-sizes-plot", bars(plainly("html-sizes-plot"), rows)
    if timed.get("flops") and timed.get("weights"):
        ceiling, asked = timed["ceiling"], timed["flops"]
        place = asked / timed["weights"], asked / timed["median"]
        title, units = plainly("html-roof-plot"), plainly("html-roof-units")
        yield "html-roof-plot", roof(title, *place, ceiling["flops"], ceiling["bytes"], units)


def stages(timed: Any) -> list[tuple[str, float, str]]:
    seconds = {**timed["stages"], "step": timed["median"]}
    return [(safe(name), took, f"{took:.3g} s") for name, took in seconds.items()]


def binned(values: Sequence[float]) -> list[tuple[str, float, str]]:
    """How many values lie in each of a few bins of equal width."""
    low, high = min(values), max(values)
    count = min(MOST_BINS, ceil(len(values) ** 0.5))
    width = (high - low) / count or 1.0
    bins = [0] * count
    for value in values:
        bins[min(count - 1, int((value - low) / width))] += 1
    edges = [(low + width * n, low + width * (n + 1)) for n in range(count)]
    return [
        (f"{a:.4g} – {b:.4g} ms", float(n), str(n)) for (a, b), n in zip(edges, bins, strict=True)
    ]


def card(timed: Any) -> str:
    """What the card told while it was timed."""
    told = timed.get("card") or {}
    rows = [(code(name), f"{told[name]:.4g} {unit}") for name, unit in CARD.items() if name in told]
    return terms(rows) if rows else ""


def published(timed: Any) -> str:
    """The figures of others for the same card, with where they stand, and ours in the same unit."""
    rows = [
        [
            code(one.row.stack),
            code(f"{one.model} {one.size}²"),
            f"{one.rate:.1f}/s",
            f"{one.tera:.0f}",
            f"{timed['steps_per_second'] / one.rate:.2f} ×" if one.same else "–",
            code(one.row.source[0]),
        ]
        for one in speeds.neighbours(timed)
    ]
    if not rows:
        return ""
    names = ("stack", "model", "rate-short", "tera", "ours", "source")
    heads = [both(f"html-{name}") for name in names]
    ours = speeds.tera(timed)
    line = "" if ours is None else tag("p", both("html-ours-tera", tera=f"{ours:.1f}"))
    return line + table(both("html-published"), heads, rows, plainly("html-published"))
