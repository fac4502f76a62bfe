"""Outliers: what is wrong with none of them by itself, and is seen beside its siblings. Pure."""

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from doctor.fleet.places import ANSWERED, Outcome
from doctor.manifest import world

ALIKE = ("python", "torch", "driver", "comfyui")  # what all nodes should have in common
SIBLINGS = 3  # of a kind: fewer have no median that one could be beside


@dataclass(frozen=True)
class Outlier:
    """`kind` slow: steps a second, against the median of the siblings; differs: the version of
    `name`, against the most frequent one; pixels: a digest, against the most frequent one."""

    kind: str
    name: str
    slots: tuple[str, ...]
    value: str
    usual: str
    siblings: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"slots": list(self.slots)}


def outliers(outcomes: Sequence[Outcome]) -> Iterator[Outlier]:
    judged = [outcome for outcome in outcomes if outcome.state == ANSWERED]
    yield from slow(judged)
    yield from pixels(judged)
    yield from differing(judged)


def slow(outcomes: Sequence[Outcome]) -> Iterator[Outlier]:
    """Steps a second below the median of the same device at the same settings."""
    share = next(limit.warning for limit in world().limits if limit.what == "slower") / 100
    for (name, _), group in kinds(outcomes, speed_of).items():
        if len(group) < SIBLINGS:
            continue
        rates = {str(one.slot): float(one.answer["bench"]["steps_per_second"]) for one in group}
        usual = median(rates.values())
        for slot, rate in sorted(rates.items(), key=lambda pair: pair[1]):
            if rate < usual * (1 - share):
                yield Outlier("slow", str(name), (slot,), f"{rate:.3g}", f"{usual:.3g}", len(group))


def speed_of(outcome: Outcome) -> tuple[Hashable, Hashable] | None:
    bench = outcome.answer.get("bench")
    return bench and (device(bench["machine"]), json.dumps(bench["settings"], sort_keys=True))


def device(machine: Mapping[str, Any]) -> str:
    return str(machine["device_name"] or machine["cpu"])


def pixels(outcomes: Sequence[Outcome]) -> Iterator[Outlier]:
    """The digest of the verified picture, where recipe, device and torch are the same."""
    for (name, _), group in kinds(outcomes, picture_of).items():
        digests = {str(o.slot): str(o.answer["render"]["sha256"]["output"]) for o in group}
        yield from unlike("pixels", str(name), digests)


def picture_of(outcome: Outcome) -> tuple[Hashable, Hashable] | None:
    render, bench = outcome.answer.get("render"), outcome.answer.get("bench")
    if not render or not bench:
        return None
    same = [render["recipe"], render["checkpoint"], render["dtype"], render["threads"]]
    same += [bench["machine"]["torch"], bench["machine"]["capability"]]
    return device(bench["machine"]), json.dumps(same, sort_keys=True)


def differing(outcomes: Sequence[Outcome]) -> Iterator[Outlier]:
    """A version that most nodes have, and the nodes that have another; once for each node."""
    for name in ALIKE:
        known = {
            outcome.slot.node.name: str(outcome.answer.get("facts", {}).get(name, ""))
            for outcome in outcomes
        }
        yield from unlike("differs", name, {n: v for n, v in known.items() if v not in ("", "?")})


def unlike(kind: str, name: str, values: Mapping[str, str]) -> Iterator[Outlier]:
    """One for each value beside the most frequent one."""
    counts = Counter(values.values()).most_common()
    for value, _ in counts[1:]:
        who = tuple(sorted(slot for slot, own in values.items() if own == value))
        yield Outlier(kind, name, who, value, counts[0][0], len(values))


def kinds(outcomes: Sequence[Outcome], kind: Any) -> Mapping[Any, list[Outcome]]:
    """Those that have such a kind, by it."""
    found: dict[Any, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        own = kind(outcome)
        if own:
            found[own].append(outcome)
    return found
