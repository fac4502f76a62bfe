"""Receipts: what was done to an installation, one line of JSON for each event.

A line is on the disk before the step that it announces, so a kill at any instant leaves a trail.
"""

import calendar
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from doctor.facts import Refusal, build


@dataclass(frozen=True)
class Receipt:
    """One treatment, as the journal has it."""

    id: str
    when: str  # ISO 8601, UTC
    fix: str
    cures: tuple[str, ...]
    steps: tuple[str, ...]  # as they were shown
    state: str  # open, done, rolled-back, undone; damaged: rolled back but for what is lost
    home: str = ""  # the doctor's folder it was done from
    why: str = ""  # of a roll-back
    lost: tuple[str, ...] = ()  # what a roll-back could not bring back
    seconds: float = 0.0  # from its first line in the journal to that of its end
    kept: int = 0  # bytes held so that it can be undone


ENDS = ("done", "rolled-back", "undone", "damaged")


class Journal:
    """The notes of one installation, in its folder `.comfy-doctor`."""

    def __init__(self, home: Path, waited: bool = False) -> None:
        self.home, self.waited = home, waited  # waited: another doctor was at work until now
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
            elif event["event"] in ENDS and event["receipt"] in found:
                row = found[event["receipt"]]
                spent = seconds_between(row["when"], event["when"])
                row |= {
                    "state": event["event"],
                    "why": event.get("why", ""),
                    "lost": event.get("lost", ()),
                    "seconds": row.get("seconds", spent),  # of the treatment, not until its undo
                    "kept": size_of(self.home / "kept" / event["receipt"]),
                }
        names = [f.name for f in fields(Receipt)]
        blank = {"seconds": 0.0, "kept": 0, "home": "", "lost": ()}
        rows = ({"id": id, **blank, **row} for id, row in found.items())
        return tuple(build(Receipt, {name: row[name] for name in names}) for row in rows)


def open_home(home: Path) -> None:
    """The doctor's own folder, which ignores itself as a venv does, so that git stays quiet."""
    home.mkdir(parents=True, exist_ok=True)
    ignore = home / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


STAMP = "%Y-%m-%dT%H:%M:%SZ"


def seconds_between(first: str, last: str) -> float:
    both = (calendar.timegm(time.strptime(stamp, STAMP)) for stamp in (last, first))
    return float(next(both) - next(both))


def size_of(folder: Path) -> int:
    """Bytes of the files below a folder; 0 where there is none (any more)."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def now() -> str:
    return time.strftime(STAMP, time.gmtime())


TURN = 0.2  # seconds between two tries to get the lock


class Busy(Refusal):
    """Another doctor is treating this installation now."""


@contextmanager
def locked(home: Path, patience: float = 0.0) -> Iterator[Journal]:
    """The journal, while nobody else holds it. Busy if somebody does for so many seconds."""
    open_home(home)
    with (home / "lock").open("a+") as file:
        began, waited = time.monotonic(), False
        while True:
            try:
                lock(file.fileno())
                break
            except OSError as error:
                if time.monotonic() - began >= patience:
                    busy = f"Another comfy-doctor is at work on {home.parent}; wait for it."
                    raise Busy(busy) from error
                waited = True
                time.sleep(TURN)
        yield Journal(home, waited)


def lock(descriptor: int) -> None:
    """Until the file is closed here and in every child, by however the processes end."""
    os.set_inheritable(descriptor, True)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
