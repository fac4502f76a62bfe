"""Mutations: is there a test for everything that judges?

    python -m tests.mutations symptoms
    python -m tests.mutations checks

takes out one signature after another and judges the logs of tests/logs again; or one check after
another, and judges the patients of tests/machines again, which must differ then. A check is also
made to speak always, which a patient that it must be silent about has to notice. Names what nobody
missed. Exit 1 where something was not missed.
"""

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

from doctor import hints, symptoms
from doctor.check import CHECKS, Check
from doctor.diagnose import diagnose
from doctor.facts import Facts
from doctor.finding import Finding, Severity
from doctor.manifest import world
from doctor.signatures import Book
from doctor.signatures import book as book_of_signatures
from doctor.symptoms import Judgement, Reading
from tests.doctor.test_machines import PATIENTS, read
from tests.logs import Log, sick

Missed = Iterator[tuple[str, list[str]]]  # what was taken out, and the tests that then fail


def signatures() -> Missed:
    """A log whose first finding is another one without a signature is a test of it."""
    book = book_of_signatures()
    logs = [(log, seen(log)) for log in sick() if first(judged(seen(log), book)) == owed(log, book)]
    for number, signature in enumerate(book.signatures):
        less = without(book, number)
        yield (
            f"{signature.id} ({signature.why})",
            [
                str(log)
                for log, reading in logs
                if number in reading.matches
                and first(judged(renumbered(reading, number), less)) != owed(log, book)
            ],
        )


@cache
def seen(log: Log) -> Reading:
    return symptoms.scan(io.BytesIO(log.text), book_of_signatures())


def judged(reading: Reading, book: Book) -> Judgement:
    here = hints.of_log(reading.hints, symptoms.modules(reading), world())
    return symptoms.judge(reading, book, here)


def first(judgement: Judgement) -> tuple[str, str, bool]:
    """The id and the severity of what stands first, and whether that is read as a last resort."""
    if not judgement.symptoms:
        return "", "", False
    symptom = judgement.symptoms[0]
    return symptom.finding.id, symptom.finding.severity.name.lower(), symptom.rest


def owed(log: Log, book: Book) -> tuple[str, str, bool]:
    return log.owed, log.severity or book.severity[log.owed].name.lower(), log.rest


def without(book: Book, number: int) -> Book:
    kept = (*book.signatures[:number], *book.signatures[number + 1 :])
    return replace(book, signatures=kept)


def renumbered(reading: Reading, number: int) -> Reading:
    """What would have been seen without the signature: those after it move up by one."""

    def kept(many: dict[int, object]) -> dict[int, object]:
        return {n - (n > number): value for n, value in many.items() if n != number}

    return replace(reading, matches=kept(reading.matches), counts=kept(reading.counts))


def checks() -> Missed:
    """A patient that owes a finding is a test of its check; one that does not owe it is a test
    that it can be silent. The findings are those that test_machines.py compares."""
    patients = {name: read(name) for name in PATIENTS}
    for id in CHECKS:
        had = [name for name in patients if id in PATIENTS[name]["findings"]]
        told = (name for name in had if owes_less(patients[name], id, PATIENTS[name]["findings"]))
        yield f"{id}, taken out", list(told)
        rest = (name for name in patients if name not in had)
        yield f"{id}, always speaking", [name for name in rest if noticed(patients[name], id)]


def owes_less(facts: Facts, id: str, owed: Sequence[str]) -> bool:
    """Is the list of findings another one without this check, and the owed one with it?"""
    whole = [finding.id for finding in diagnose(facts).findings]
    with changed(id, None):
        return whole == owed and [finding.id for finding in diagnose(facts).findings] != owed


def noticed(facts: Facts, id: str) -> bool:
    """Is the patient fully judged by this check, and does it say so when it is always accused?"""
    if any(n.id == id for n in diagnose(facts, only=[id]).not_judged):
        return False

    def always(_: Facts) -> Iterator[Finding]:
        yield Finding(Severity.ERROR, because=("always",))

    with changed(id, always):
        return [f.id for f in diagnose(facts, only=[id]).findings] == [id]


@contextmanager
def changed(id: str, other: Check | None) -> Iterator[None]:
    """The registry with another check of this id, or without one."""
    kept = dict(CHECKS)
    if other is None:
        del CHECKS[id]
    else:
        CHECKS[id] = other
    try:
        yield
    finally:
        CHECKS.clear()
        CHECKS.update(kept)


MODES: dict[str, Callable[[], Missed]] = {"symptoms": signatures, "checks": checks}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("mode", choices=MODES)
    done = list(MODES[parser.parse_args(arguments).mode]())
    for name, failing in done:
        if not failing:
            print(f"nobody misses {name}")
    print(f"{sum(bool(failing) for _, failing in done)} of {len(done)} are missed when taken out")
    return any(not failing for _, failing in done)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
