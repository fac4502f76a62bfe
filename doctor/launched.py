"""Launched: what is written down about a ComfyUI under watch, for `status`, `stop` and others.

A pid is believed only together with the time its process began: numbers are used again.
"""

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from doctor.facts import build
from doctor.receipts import now, open_home

STARTING, READY, RESTARTING, ENDED = "starting", "ready", "restarting", "ended"
NAME = "launch.json"


@dataclass(frozen=True)
class Launched:
    state: str
    url: str
    watcher: int  # pid of the comfy-doctor that watches it
    watcher_began: float
    pid: int = 0  # of ComfyUI
    since: str = ""  # ISO 8601, UTC
    seconds: float = 0.0  # until it was ready
    restarts: int = 0
    flags: dict[str, str] = field(default_factory=dict)  # kept or found, with the finding's id
    command: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()  # ids, of the last failure
    code: int | None = None

    @property
    def alive(self) -> bool:
        """Does the watcher, this very process, still run?"""
        return began(self.watcher) == self.watcher_began


def began(pid: int) -> float:
    """When the process of this number began, in seconds; 0 where there is none (or a zombie)."""
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.Error, OSError):
        return 0.0


def mine(url: str) -> Launched:
    return Launched(STARTING, url, os.getpid(), began(os.getpid()), since=now())


def write(home: Path, launched: Launched) -> None:
    """Whole or not at all; a disk that is full takes no server down."""
    with suppress(OSError):
        open_home(home)
        half = home / f".{NAME}.part"
        half.write_text(json.dumps(asdict(launched), indent=2) + "\n", encoding="utf-8")
        os.replace(half, home / NAME)


def read(home: Path) -> Launched | None:
    """What was written last; None where nothing was, or nothing that can be read."""
    try:
        said: Launched = build(Launched, json.loads((home / NAME).read_text(encoding="utf-8")))
        return said if isinstance(said, Launched) else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def end(launched: Launched, patience: float = 45.0) -> bool:
    """Ask the watcher to end ComfyUI and itself; was it gone in time?"""
    if launched.alive:
        with suppress(OSError):
            os.kill(launched.watcher, signal.SIGINT if os.name != "nt" else signal.SIGTERM)
    until = time.monotonic() + patience
    while launched.alive and time.monotonic() < until:
        time.sleep(0.1)
    return not launched.alive
