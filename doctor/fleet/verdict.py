"""Verdict: what many answers come to. Pure: outcomes in, one fleet with one exit code out."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from doctor.fleet.outliers import Outlier, outliers
from doctor.fleet.places import ANSWERED, CRASHED, LATE, REFUSED, Lost, Outcome, Reply, Slot, Work

SCHEMA, PART = "comfy-doctor.fleet/1", "comfy-doctor.fleet-part/1"
PLAN = "comfy-doctor.fleet-plan/1"
JUDGED = (0, 1, 4)  # exit codes that are a judgement
SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Group:
    """One finding, and every slot that has it."""

    row: Mapping[str, Any]  # as the first of them told it, in every language
    slots: tuple[str, ...]


@dataclass(frozen=True)
class Fleet:
    act: str
    when: str
    outcomes: tuple[Outcome, ...]  # in order of their slots
    outliers: tuple[Outlier, ...]

    @property
    def groups(self) -> list[Group]:
        """The findings of all, worst and most frequent first."""
        found: dict[tuple[str, str], tuple[Mapping[str, Any], list[str]]] = {}
        for outcome in self.outcomes:
            for row in outcome.answer.get("findings", ()):
                key = (str(row["id"]), str(row["severity"]))
                found.setdefault(key, (row, []))[1].append(str(outcome.slot))
        groups = [Group(row, tuple(slots)) for row, slots in found.values()]
        return sorted(groups, key=lambda g: (SEVERITIES.index(g.row["severity"]), -len(g.slots)))

    @property
    def code(self) -> int:
        """The worst of all: 3 a bug of ours, 1 errors, 4 not judged, 0. And 2 where every one of
        them was refused: then it was asked wrongly."""
        states = [outcome.state for outcome in self.outcomes]
        if not states or all(state == REFUSED for state in states):
            return 2
        if any(outcome.code == 3 for outcome in self.outcomes):
            return 3
        if any(outcome.bad for outcome in self.outcomes):
            return 1
        return 0 if all(outcome.good for outcome in self.outcomes) else 4


def fleet(act: str, when: str, outcomes: Iterable[Outcome]) -> Fleet:
    ordered = sorted(outcomes, key=lambda o: (o.slot.node.name, o.slot.gpu or 0))
    judged = tuple(once(ordered))
    return Fleet(act, when, judged, tuple(outliers(judged)))


def once(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Where other work held a card of the node, Ray gave one card twice, and that one never."""
    seen: set[tuple[str, str]] = set()
    for one in outcomes:
        own = (one.slot.node.id, one.device)
        if one.device and own in seen:
            why = f"Ray gave it GPU {one.device} once more; another GPU of this node was busy"
            yield replace(one, state=REFUSED, code=None, answer={}, why=why)
        else:
            yield one
        seen.add(own)


def outcome(slot: Slot, work: Work, result: Reply | Lost) -> Outcome:
    """What one end means. Only an answer of ours with a code that judges was judged."""
    if isinstance(result, Lost):
        return Outcome(slot, result.state, why=result.why, attempts=work.attempt)
    more: dict[str, Any] = {"seconds": result.seconds, "attempts": work.attempt}
    more["device"] = result.device
    if result.late:
        return Outcome(slot, LATE, why=f"stopped after {work.limit:.0f} s", **more)
    said = read(result.out)
    if result.code in JUDGED and said.get("schema") == PART:
        beside = on_cpu(slot, work, said)
        return Outcome(slot, ANSWERED, 1 if beside else result.code, said, beside, **more)
    error = said.get("error")
    why = str(error["message"]) if isinstance(error, dict) and "message" in error else ""
    if result.code == 2 and why:
        return Outcome(slot, REFUSED, 2, why=why, **more)
    return Outcome(slot, CRASHED, result.code, why=why or last_words(result), **more)


def on_cpu(slot: Slot, work: Work, said: Mapping[str, Any]) -> str:
    """Why a part that was a GPU's is none, where it was computed without it, unasked."""
    where = ((said.get("bench") or {}).get("machine") or {}).get("device")
    unasked = slot.gpu is not None and "--device=cpu" not in work.words
    return "the GPU was not used: torch computed on the CPU" if unasked and where == "cpu" else ""


def read(out: str) -> dict[str, Any]:
    try:
        said = json.loads(out)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def last_words(reply: Reply) -> str:
    how = f"signal {-reply.code}" if reply.code < 0 else f"exit code {reply.code}"
    lines = [line.strip() for line in reply.err.splitlines() if line.strip()]
    return f"it ended with {how} and said: {lines[-1][:200] if lines else 'nothing'}"


def to_json(whole: Fleet) -> dict[str, Any]:
    """comfy-doctor.fleet/1."""
    return {
        "schema": SCHEMA,
        "act": whole.act,
        "when": whole.when,
        "healthy": whole.code == 0,
        "exit": whole.code,
        "parts": [part_json(outcome) for outcome in whole.outcomes],
        "findings": [
            {"id": g.row["id"], "severity": g.row["severity"], "slots": list(g.slots)}
            for g in whole.groups
        ],
        "outliers": [one.to_json() for one in whole.outliers],
    }


def part_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "slot": str(outcome.slot),
        "node": outcome.slot.node.name,
        "address": outcome.slot.node.address,
        "gpu": outcome.slot.gpu,
        "device": outcome.device,
        "state": outcome.state,
        "exit": outcome.code,
        "why": outcome.why,
        "seconds": round(outcome.seconds, 3),
        "attempts": outcome.attempts,
        "answer": dict(outcome.answer),
    }
