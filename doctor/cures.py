"""Cures: what the output of a ComfyUI that failed says is wrong, and the flag that cures it.

Pure: text goes in. Which fault is worth a restart is rows of manifests/startup.toml, which flag
stands against it rows of manifests/launch.toml.
"""

import signal
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO

from doctor import hints, signatures, symptoms
from doctor.finding import Severity
from doctor.listen import names
from doctor.manifest import FlagCure, Row, World, read, rows
from doctor.symptoms import Judgement, Symptom
from manifests import FOLDER


@dataclass(frozen=True, kw_only=True)
class Restart(Row):
    """A fault that is worth starting ComfyUI once more, with a flag against it."""

    finding: str
    against: str = ""  # the finding that the flag stands against, where it is called otherwise
    when: str = ""  # "no-card": only on a machine without one
    live: bool = False  # also where the server goes on, and only its pictures fail
    least: str = "error"  # the severity from which it is worth it


@cache
def restarts() -> tuple[Restart, ...]:
    made = rows(read(FOLDER / "startup.toml"), "restarts", Restart)
    return tuple(row for row in made if isinstance(row, Restart))


@dataclass(frozen=True)
class Chosen:
    """The flag against a fault, or why the one there is does not suit."""

    symptom: Symptom
    cure: FlagCure
    contradicts: str = ""  # the user's own flag that main.py does not take beside it


def judged(output: bytes, code: int | None, world: World) -> Judgement:
    """What this output says, a signal that ended it in the words that a shell would print."""
    book = signatures.book()
    seen = symptoms.scan(BytesIO(output + f"\n{ending(code)}\n".encode()), book)
    here = hints.of_log(seen.hints, symptoms.modules(seen), world)
    return symptoms.judge(seen, book, here)


SHELL = {
    signal.SIGSEGV: "Segmentation fault (core dumped)",
    signal.SIGABRT: "Aborted (core dumped)",
    signal.SIGILL: "Illegal instruction (core dumped)",
    signal.SIGFPE: "Floating point exception (core dumped)",
    9: "Killed",
}


def ending(code: int | None) -> str:
    """What bash says of an end by a signal: code -11, or 139 where a shell stood between."""
    if code is None:
        return ""
    return SHELL.get(-code if code < 0 else code - 128, "")


def choose(
    judgement: Judgement,
    given: Sequence[str],
    world: World,
    *,
    card: bool,
    live: bool,
    tried: Collection[str],
) -> Chosen | None:
    """The flag against what blocks first; None where there is none that was not tried.

    given: what main.py was started with; card: is there one (or nobody knows); live: the server
    goes on; tried: findings that a restart was tried against.
    """
    for symptom in judgement.symptoms:
        row = next((row for row in restarts() if row.finding == symptom.finding.id), None)
        if row is None or symptom.finding.severity < Severity[row.least.upper()]:
            if symptom.finding.severity is Severity.ERROR and not live:
                return None  # what blocks first has no flag against it
            continue
        if live and not row.live:
            continue
        if symptom.finding.id in tried or (row.when == "no-card" and card):
            return None
        return next(against(symptom, row, given, world), None)
    return None


def against(symptom: Symptom, row: Restart, given: Sequence[str], world: World) -> Iterator[Chosen]:
    """The flags against it that main.py was not given, the one that costs least first."""
    here = names(given)
    for cure in world.flag_cures:
        if cure.finding == (row.against or row.finding) and cure.flag not in here:
            rivals = {
                f for group in world.exclusive for f in group.flags if cure.flag in group.flags
            }
            yield Chosen(symptom, cure, min(rivals & here, default=""))
