"""Mutations: is there a test for everything that judges?

    python -m tests.mutations symptoms [ID ...]

takes out one signature after another, judges the logs of tests/logs again, and names what nobody
missed. Exit 1 where something was not missed.
"""

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from doctor import hints, symptoms
from doctor.manifest import world
from doctor.signatures import Book
from doctor.signatures import book as book_of_signatures
from doctor.symptoms import Judgement, Reading
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


def first(judgement: Judgement) -> tuple[str, str]:
    """The id and the severity of what stands first."""
    if not judgement.symptoms:
        return "", ""
    finding = judgement.symptoms[0].finding
    return finding.id, finding.severity.name.lower()


def owed(log: Log, book: Book) -> tuple[str, str]:
    return log.owed, log.severity or book.severity[log.owed].name.lower()


def without(book: Book, number: int) -> Book:
    kept = (*book.signatures[:number], *book.signatures[number + 1 :])
    return replace(book, signatures=kept)


def renumbered(reading: Reading, number: int) -> Reading:
    """What would have been seen without the signature: those after it move up by one."""

    def kept(many: dict[int, object]) -> dict[int, object]:
        return {n - (n > number): value for n, value in many.items() if n != number}

    return replace(reading, matches=kept(reading.matches), counts=kept(reading.counts))


MODES: dict[str, Callable[[], Missed]] = {"symptoms": signatures}


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
