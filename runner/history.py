"""History: results of bench, kept one a line, and held against each other where they may be.

Only runs of equal machine and equal settings compare; everything else is another question.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.recipe import Refused

Json = Mapping[str, Any]
SCHEMA = "runner.bench/1"
PARTS = ("machine", "settings")


def read(path: Path) -> list[dict[str, Any]]:
    """The results in a file, oldest first: one object, or one a line. A line that was cut short
    (the last, when the machine went down) is passed over. Refused: bench-not-comparable.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise Refused("bench-not-comparable", f"{path} cannot be read: {error}.") from None
    found = []
    with suppress(ValueError):
        found = [json.loads(text)]
    if not found:
        for line in text.splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    found = [one for one in found if isinstance(one, dict) and one.get("schema") == SCHEMA]
    if not found:
        raise Refused("bench-not-comparable", f"{path} holds no result of bench ({SCHEMA}).")
    return found


def keep(path: Path, result: Json) -> None:
    """Add a result to a file of them. Refused: cannot-write."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"when": when, **result}) + "\n")
    except OSError as error:
        raise Refused("cannot-write", f"{path} cannot be written: {error.strerror}.") from None


def different(ours: Json, theirs: Json) -> list[str]:
    """What in machine and settings is not the same: "settings.size"."""
    found = []
    for part in PARTS:
        here, there = ours.get(part), theirs.get(part)
        if not isinstance(here, Mapping) or not isinstance(there, Mapping):
            return [part]
        names = sorted(here.keys() | there.keys())
        found += [f"{part}.{name}" for name in names if here.get(name) != there.get(name)]
    return found


def newest(ours: Json, results: Sequence[Json]) -> Json:
    """The newest result that compares. Refused: bench-not-comparable, naming what differs from
    the newest of all.
    """
    for one in reversed(results):
        if not different(ours, one):
            return one
    names = ", ".join(different(ours, results[-1]))
    raise Refused("bench-not-comparable", f"The results differ in {names}.")


def compare(ours: Json, theirs: Json) -> float:
    """How many times as fast we are as an earlier result. Refused: bench-not-comparable."""
    theirs = newest(ours, [theirs])
    try:
        return float(theirs["median"]) / float(ours["median"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise Refused("bench-not-comparable", "The other result has no usable median.") from None


def beside(path: Path, results: Sequence[Json]) -> dict[str, float]:
    """Keep results in a file, and how many times as fast the first is as the newest equal one
    that was there: {"times_as_fast": ...}, or {} where there was none.
    """
    there = read(path) if path.exists() else []
    for result in results:
        keep(path, result)
    if not there:
        return {}
    with suppress(Refused):
        return {"times_as_fast": compare(results[0], newest(results[0], there))}
    return {}
