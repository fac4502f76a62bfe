"""Speeds: a timed figure beside those that others have published for the same card."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from doctor.manifest import Published, world

SIZES = {  # column of manifests/published.toml -> model, pixels a side, operations of a guided step
    "sd15_512": ("sd15", 512, 1.60654688256e12),  # torch.utils.flop_counter
    "sdxl_1024": ("sdxl", 1024, 13.52247279616e12),
}


@dataclass(frozen=True)
class Neighbour:
    """A published figure: steps a second of a model at a size, and the same in TFLOP/s."""

    row: Published
    model: str
    size: int
    rate: float
    tera: float
    same: bool  # model and size are those that were timed


def tera(bench: Mapping[str, Any]) -> float | None:
    """TFLOP/s of an object of schema runner.bench/1; None where its work was not counted."""
    asked = bench.get("flops")
    return asked / bench["median"] / 1e12 if asked else None


def neighbours(bench: Mapping[str, Any]) -> Iterator[Neighbour]:
    """What is published for the card that was timed, fastest first; nothing for other devices."""
    card = bench["machine"].get("device_name") or ""
    found = [one for row in world().published if named(row.card, card) for one in of(row, bench)]
    yield from sorted(found, key=lambda one: (one.model, -one.rate))


def named(short: str, whole: str) -> bool:
    """Whether a card's short name stands in its whole name as words: H100, and not GH100."""
    return bool(re.search(rf"(?<![A-Za-z0-9]){re.escape(short)}(?![A-Za-z0-9])", whole))


def of(row: Published, bench: Mapping[str, Any]) -> Iterator[Neighbour]:
    settings = bench["settings"]
    for column, (model, size, work) in SIZES.items():
        rate = getattr(row, column)
        if rate:
            same = (settings.get("model"), settings.get("size")) == (model, size)
            yield Neighbour(row, model, size, rate, rate * work / 1e12, same)
