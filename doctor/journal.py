"""Journal: carries out a treatment, and remembers enough to carry it back.

One line of JSON for each event, on the disk before the step it announces: a kill at any instant
leaves a trail that the next run follows back. One lock for each installation.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from doctor import snapshot
from doctor.facts import Refusal, build
from doctor.plan import Treatment
from doctor.step import Packages, Step, StepFailed

KINDS = {kind.__name__: kind for kind in get_args(Step)}
Progress = Callable[[str], None]


class Busy(Refusal):
    """Another doctor is treating this installation now."""


class Undoable(Refusal):
    """There is nothing to bring back, or it cannot be brought back; the sentence says why."""


@dataclass(frozen=True)
class Receipt:
    """One treatment, as the journal has it."""

    id: str
    when: str  # ISO 8601, UTC
    fix: str
    cures: tuple[str, ...]
    steps: tuple[str, ...]  # as they were shown
    state: str  # open, done, rolled-back, undone
    why: str = ""  # of a roll-back


class Journal:
    """The notes of one installation, in its folder `.comfy-doctor`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "journal.jsonl"

    def write(self, event: str, receipt: str, **more: Any) -> None:
        """One line, on the disk when this returns. A torn last line is cut off first."""
        self.mend()
        line = json.dumps({"event": event, "receipt": receipt, "when": now(), **more})
        with self.path.open("a", encoding="utf-8") as paper:
            paper.write(line + "\n")
            paper.flush()
            os.fsync(paper.fileno())

    def mend(self) -> None:
        """Power loss can leave half a line; what it announced was not begun."""
        open_home(self.home)
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            with self.path.open("r+b") as paper:
                paper.truncate(data.rfind(b"\n") + 1)

    def events(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue  # the torn last line

    def kept(self, receipt: str, step: int) -> Path:
        return self.home / "kept" / receipt / str(step)

    def history(self) -> tuple[Receipt, ...]:
        """All receipts, oldest first."""
        found: dict[str, dict[str, Any]] = {}
        for event in self.events():
            if event["event"] == "begin":
                found[event["receipt"]] = event | {"state": "open", "why": ""}
            elif event["event"] in ("done", "rolled-back", "undone"):
                found[event["receipt"]] |= {"state": event["event"], "why": event.get("why", "")}
        names = [f.name for f in fields(Receipt)]
        rows = ({"id": id, **row} for id, row in found.items())
        return tuple(build(Receipt, {name: row[name] for name in names}) for row in rows)

    def undos(self, receipt: str) -> list[Step]:
        """The inverses of its steps, the last step's first."""
        own = [e for e in self.events() if e["receipt"] == receipt and e["event"] == "step"]
        return [unpack(event["undo"]) for event in reversed(own)]


def open_home(home: Path) -> None:
    """The doctor's own folder, which ignores itself as a venv does, so that git stays quiet."""
    home.mkdir(parents=True, exist_ok=True)
    ignore = home / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def treat(journal: Journal, treatment: Treatment, progress: Progress) -> str:
    """Do the steps of a treatment; on any failure, the ones done are taken back at once.

    Returns the receipt's id; the caller verifies, and then calls `commit` or `take_back`. Raises
    StepFailed (taken back already), or whatever interrupted it (left for `recover`).
    """
    receipt = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(2)
    shown = [str(step) for step in treatment.steps]
    journal.write("begin", receipt, fix=treatment.fix, cures=treatment.cures, steps=shown)
    try:
        for number, step in enumerate(treatment.steps):
            do(journal, receipt, number, step, progress)
    except (StepFailed, OSError, snapshot.SnapshotDamaged) as error:
        take_back(journal, receipt, str(error), progress)
        raise StepFailed(str(error)) from error
    return receipt


def do(journal: Journal, receipt: str, number: int, step: Step, progress: Progress) -> None:
    progress(str(step))
    kept = journal.kept(receipt, number)
    undo = step.inverse(kept, progress)
    journal.write("step", receipt, number=number, step=pack(step), undo=pack(undo))
    step.do(progress)
    if isinstance(step, Packages):
        snapshot.settle(kept)


def commit(journal: Journal, receipt: str) -> None:
    journal.write("done", receipt)


def take_back(journal: Journal, receipt: str, why: str, progress: Progress) -> None:
    """Roll an open treatment back."""
    for step in journal.undos(receipt):
        progress(str(step))
        step.do(progress)
    journal.write("rolled-back", receipt, why=why)


def recover(journal: Journal, progress: Progress) -> tuple[Receipt, ...]:
    """Roll back what a kill left open. Call with the lock held, before anything else."""
    left = [receipt for receipt in journal.history() if receipt.state == "open"]
    for receipt in reversed(left):
        take_back(journal, receipt.id, "it was interrupted", progress)
    return tuple(left)


def undo(journal: Journal, receipt: str | None, progress: Progress) -> Receipt:
    """Bring back what a treatment changed, by default the last one; later ones must go first."""
    done = [r for r in journal.history() if r.state == "done"]
    if not done:
        raise Undoable("Nothing was changed that could be undone.")
    chosen = done[-1] if receipt is None else next((r for r in done if r.id == receipt), None)
    if chosen is None:
        raise Undoable(f"There is no treatment {receipt} to undo; `history` lists them.")
    if chosen is not done[-1]:
        raise Undoable(f"{done[-1].id} ({done[-1].fix}) came later: undo that one first.")
    try:
        for step in journal.undos(chosen.id):
            progress(str(step))
            step.do(progress)
    except (StepFailed, OSError, snapshot.SnapshotDamaged) as error:
        raise Undoable(f"{chosen.id} could not be brought back whole: {error}") from error
    journal.write("undone", chosen.id)
    return chosen


@contextmanager
def locked(home: Path) -> Iterator[Journal]:
    """The journal, while nobody else holds it. Busy if somebody does."""
    open_home(home)
    with (home / "lock").open("a+") as file:
        try:
            lock(file.fileno())
        except OSError as error:
            raise Busy(f"Another comfy-doctor is at work on {home.parent}; wait for it.") from error
        yield Journal(home)


def lock(descriptor: int) -> None:
    """Until the file is closed, by however the process ends."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def pack(step: Step) -> list[Any]:
    return [type(step).__name__, asdict(step)]


def unpack(packed: list[Any]) -> Step:
    kind, own = packed
    step: Step = build(KINDS[kind], own)
    return step
