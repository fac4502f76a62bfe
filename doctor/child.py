"""Child: a program that works for us, and never outlives an interruption of ours.

It runs in a process group of its own. Whatever ends us in an orderly way ends the group first, so
that nothing goes on writing behind a roll-back; if we are killed, it holds the installation's lock
(an inherited descriptor) until it has ended, so that no other doctor begins meanwhile.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (negative: the signal), and what it printed."""

    code: int
    out: str
    err: str


class TooLate(Exception):
    """It did not end in time, and was stopped."""


def run(
    words: Sequence[str],
    *,
    timeout: float,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    heard: Callable[[str], None] = lambda line: None,
) -> Ended:
    """Run it to its end; `heard` gets each line of its stderr. Raises TooLate, OSError."""
    child = subprocess.Popen(
        list(words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        cwd=cwd,
        env=env,
        start_new_session=os.name != "nt",
        close_fds=False,  # descriptors are not inherited (PEP 446), but for the lock's
    )
    out: list[str] = []
    err: list[str] = []
    readers = [
        Thread(target=read, args=(child.stdout, out.append), daemon=True),
        Thread(target=read, args=(child.stderr, both(err.append, heard)), daemon=True),
    ]
    try:
        for reader in readers:
            reader.start()
        code = child.wait(timeout)
        for reader in readers:
            reader.join(timeout=10)
    except subprocess.TimeoutExpired as late:
        end(child)
        raise TooLate(f"{words[0]} did not end within {timeout:.0f} s") from late
    except BaseException:
        end(child)
        raise
    if code:
        end(child)  # what it started must not go on writing behind a roll-back
    return Ended(code, "".join(out), "".join(err))


def read(stream: object, take: Callable[[str], None]) -> None:
    for line in stream:  # type: ignore[attr-defined]
        take(line)


def both(*takers: Callable[[str], None]) -> Callable[[str], None]:
    def take(line: str) -> None:
        for taker in takers:
            taker(line)

    return take


def end(child: "subprocess.Popen[str]") -> None:
    """The child and what it started, at once; returns when it has ended."""
    try:
        if os.name == "nt":
            child.kill()
        else:
            os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()
