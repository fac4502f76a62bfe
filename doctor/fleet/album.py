"""Album: a folder of pictures handed out to slots in portions, and given back by those that fail.

Pure but for reading the pictures. A slot that never brought one is blamed before a picture is.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from statistics import median
from typing import Any

from doctor.fleet import verdict
from doctor.fleet.hand import FOLDER
from doctor.fleet.ledger import Picture
from doctor.fleet.places import ANSWERED, DEAD, REFUSED, Outcome, Slot, Work
from doctor.fleet.rounds import Ended

SPELL = 30.0  # seconds of work in one portion: loading is worth it, and little is lost
FIRST = 4  # pictures of a portion while nobody knows how long one takes
LARGEST = 16 << 20  # bytes of one portion
MOST = 32  # pictures of one portion
DEATHS = 3  # nodes that may die over one picture
ROW = 2  # portions that may fail one after another on a slot that brought pictures before
BAD_INPUT = "image-unreadable"  # the runner's word for a file that is no picture


@dataclass(frozen=True)
class Done:
    picture: Picture
    png: bytes
    row: dict[str, Any]  # runner.render/1
    slot: Slot
    device: str


@dataclass(frozen=True)
class Failed:
    picture: Picture
    why: str


@dataclass
class Album:
    """`order` makes the words for files that lie in the folder of the task."""

    order: Callable[[Sequence[str]], tuple[str, ...]]
    left: deque[Picture]
    slots: int
    limit: float  # seconds for loading and the first portion, or a picture slower than ten others
    retries: int = 1
    out: dict[str, list[Picture]] = field(default_factory=dict)  # key of a work -> its pictures
    brought: Counter[Slot] = field(default_factory=Counter)
    failures: Counter[Slot] = field(default_factory=Counter)  # one after another
    retired: dict[Slot, Outcome] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    paces: list[float] = field(default_factory=list)
    count: int = 0

    @property
    def pace(self) -> float:
        """Seconds a picture takes, without loading; what a portion may take before any is known."""
        return median(self.paces[-99:]) if self.paces else SPELL / FIRST

    def take(self, slot: Slot) -> Work | None:
        """The next portion for a free slot."""
        if slot in self.retired or not self.left:
            return None
        portion = list(self.portion())
        self.count += 1
        key = f"render {self.count}"
        self.out[key] = portion
        files = {f"in/{base(one)}": one.path.read_bytes() for one in portion}
        return Work(
            key,
            self.order([f"{FOLDER}/in/{base(one)}" for one in portion]),
            self.limit + (10 * self.pace * (len(portion) - 1) if self.paces else 0),
            files,
            tuple(f"out/{base(one)}.png" for one in portion),
        )

    def portion(self) -> Iterator[Picture]:
        """As many as fill a spell, and no more than a fair share; one alone that failed before."""
        fair = -(-len(self.left) // self.slots)
        most = max(1, min(MOST, int(SPELL / max(self.pace, 0.01)), fair))
        size, names = 0, set[str]()
        while self.left and len(names) < most:
            one = self.left[0]
            alone = bool(self.tries[one.name] + self.deaths[one.name])
            full = size + one.size > LARGEST or base(one) in names or alone
            if names and full:
                return
            size, names = size + one.size, names | {base(one)}
            yield self.left.popleft()
            if alone:
                return

    def ended(self, end: Ended) -> Iterator[Done | Failed]:
        """What one portion brought; what it did not bring is handed out again."""
        outcome = verdict.outcome(end.slot, end.work, end.result)
        portion = self.out.pop(end.work.key)
        if outcome.state != ANSWERED:
            yield from self.spoiled(end.slot, outcome, portion)
            return
        self.failures[end.slot] = 0
        rows = {PurePosixPath(row["image"]).name: row for row in outcome.answer["many"]["pictures"]}
        files = getattr(end.result, "files", {})
        for one in portion:
            row, png = rows.get(base(one), {}), files.get(f"out/{base(one)}.png", b"")
            if png and row.get("finite"):
                self.brought[end.slot] += 1
                self.paces.append(row["seconds"]["total"] - row["seconds"].get("weights", 0.0))
                yield Done(one, png, row, end.slot, outcome.device)
            else:
                yield from self.missing(one, row)

    def missing(self, one: Picture, row: dict[str, Any]) -> Iterator[Failed]:
        """One picture of a portion that was done otherwise."""
        if row.get("finite") is False:
            yield Failed(one, f"the result is not finite, first in {row['not_finite'][0]}")
            return
        error = row.get("error") or {"id": "", "message": "the runner wrote nothing for it"}
        self.tries[one.name] += 1
        if error["id"] == BAD_INPUT or self.tries[one.name] > self.retries:
            yield Failed(one, str(error["message"]).replace(str(row.get("image")), one.name))
        else:
            self.left.append(one)

    def spoiled(self, slot: Slot, outcome: Outcome, portion: list[Picture]) -> Iterator[Failed]:
        """A portion that came to nothing: is it the slot, or one of the pictures?"""
        self.failures[slot] += 1
        fresh = not self.brought[slot]
        if outcome.state in (DEAD, REFUSED) or fresh or self.failures[slot] >= ROW:
            self.retired[slot] = outcome
        for one in reversed(portion):
            counts = self.deaths if outcome.state == DEAD else self.tries
            counts[one.name] += int(outcome.state == DEAD or not fresh)
            if self.tries[one.name] > self.retries or self.deaths[one.name] >= DEATHS:
                yield Failed(one, outcome.why)
            else:
                self.left.appendleft(one)


def base(picture: Picture) -> str:
    return PurePosixPath(picture.name).name
