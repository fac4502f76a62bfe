"""Plots of a bench for a terminal: where the time went, how steps are spread, how far the roof is.

Pure functions of the JSON object, one line each; blocks are eighths of a character wide.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any

from runner.report import say

Json = Mapping[str, Any]
WIDE = 32  # characters of the longest bar
BINS = 8  # at most, of a distribution
EIGHTHS = " ▏▎▍▌▋▊▉"


def lines(bench: Json, lang: str) -> Iterator[str]:
    """All plots that there is something to show in."""
    yield from titled("plot-stages", bars(stages(bench)), lang)
    if len(bench["seconds"]) > 2:
        yield from titled("plot-spread", bars(bins(bench["seconds"])), lang)
    if len(bench.get("sizes", ())) > 1:
        rows = [(f"{one['size']}²", one["steps_per_second"], "/s") for one in bench["sizes"]]
        yield from titled("plot-sizes", bars(rows), lang)
    if bench.get("weights") and bench["flops"]:
        yield say("plot-roof", lang, **roof(bench))


def titled(word: str, drawn: Iterator[str], lang: str) -> Iterator[str]:
    yield say(word, lang)
    yield from drawn


def stages(bench: Json) -> list[tuple[str, float, str]]:
    """Seconds of each stage, a steady step beside the very first one."""
    rows = [(name, took, " s") for name, took in bench["stages"].items()]
    place = next((n for n, row in enumerate(rows) if row[0] == "first step"), len(rows) - 1)
    return [*rows[: place + 1], ("step", bench["median"], " s"), *rows[place + 1 :]]


def bins(seconds: Sequence[float]) -> list[tuple[str, float, str]]:
    """How many steps took how long, in bins of equal width from the shortest to the longest."""
    low, high = min(seconds), max(seconds)
    count = min(BINS, max(1, ceil(len(seconds) ** 0.5)))
    width = (high - low) / count or high or 1.0
    found = [0] * count
    for second in seconds:
        found[min(count - 1, int((second - low) / width))] += 1
    edges = [low + width * n for n in range(count + 1)]
    return [
        (f"{1e3 * a:.4g}–{1e3 * b:.4g} ms", float(n), "")
        for a, b, n in zip(edges, edges[1:], found, strict=False)
    ]


def bars(rows: Sequence[tuple[str, float, str]]) -> Iterator[str]:
    """A label, a bar from 0, and the number, of each row."""
    longest = max((value for _, value, _ in rows), default=0.0) or 1.0
    label = max((len(name) for name, *_ in rows), default=0)
    for name, value, unit in rows:
        yield f"  {name:>{label}}  {bar(value / longest)} {value:.4g}{unit}"


def bar(share: float) -> str:
    eighths = round(8 * WIDE * share)
    return "█" * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")


def roof(bench: Json) -> dict[str, float]:
    """The roofline's three numbers (Williams et al. 2009): operations for every byte of weights,
    the rate that products or memory allow at that, and the rate there was, TFLOP/s.
    """
    intensity = bench["flops"] / bench["weights"]
    ceiling = bench["ceiling"]
    allowed = min(ceiling["flops"], intensity * ceiling["bytes"])
    rate = bench["flops"] / bench["median"]
    return {"intensity": intensity, "allowed": allowed / 1e12, "rate": rate / 1e12}
