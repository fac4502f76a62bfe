"""Launch: ComfyUI as its user would start it, watched until it serves, ended with all it started.

It runs in a process group of its own, so that a signal reaches the whole of it exactly once: the
one who watches passes on what he gets. Its output goes on as it comes, and into a file.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from doctor import listen
from doctor.api import Server
from doctor.facts import Target
from doctor.mirrors import Unreachable
from doctor.startup import Startup

KEPT, FILES = 4 << 20, 4  # bytes of one file of output, and how many of them are kept
TAIL = 1 << 20  # bytes of output that are searched for faults
POLL = 0.2  # seconds between two looks
Heard = Callable[[bytes], None]


@dataclass(frozen=True)
class Command:
    """What is started, where, and where it will answer."""

    words: tuple[str, ...]
    folder: str
    listening: listen.Listening


def command(target: Target, kept: Sequence[str], own: Sequence[str]) -> Command:
    """main.py in the patient's interpreter: kept flags, then the user's, which count where both
    name the same."""
    words = [str(target.python), *target.flags, str(Path(str(target.comfyui), "main.py"))]
    return Command((*words, *kept, *own), str(target.comfyui), listen.of_words((*kept, *own)))


class Kept:
    """The output of the last start in `path`, that of the ones before in path.1, path.2 ..."""

    def __init__(self, path: Path, limit: int = KEPT, files: int = FILES) -> None:
        self.path, self.limit, self.files, self.size = path, limit, files, 0
        if path.exists() and path.stat().st_size:
            self.turn()
        self.file = path.open("wb")

    def turn(self) -> None:
        for number in range(self.files - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path if number == 1 else older.with_name(f"{self.path.name}.{number - 1}")
            if newer.exists():
                os.replace(newer, older)

    def write(self, block: bytes) -> None:
        if self.size + len(block) > self.limit:
            self.file.close()
            self.turn()
            self.file, self.size = self.path.open("wb"), 0
        self.size += self.file.write(block)
        self.file.flush()

    def close(self) -> None:
        self.file.close()


@dataclass
class Running:
    """A ComfyUI that was started here."""

    command: Command
    process: "subprocess.Popen[bytes]"
    began: float
    startup: Startup = field(default_factory=Startup)
    tail: bytearray = field(default_factory=bytearray)  # the last of its output
    fresh: bytearray = field(default_factory=bytearray)  # of that, what nobody judged yet
    last: float = 0.0  # when it printed last, in seconds after the start
    reader: threading.Thread | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def unjudged(self) -> bytes:
        """What it printed since this was asked last."""
        with self.lock:
            taken, self.fresh = bytes(self.fresh), bytearray()
        return taken

    def signal(self, number: int) -> None:
        """To all it started; on Windows, which knows no groups of this kind, to it alone."""
        with suppress(ProcessLookupError, PermissionError, OSError):
            if os.name == "nt":
                self.process.send_signal(number)
            else:
                os.killpg(self.process.pid, number)

    def end(self, patience: float = 30.0) -> int:
        """Asked to end, then made to; what it started goes with it. Its exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
        return self.reap()

    def reap(self) -> int:
        """Nothing of it is left when this returns."""
        if os.name == "nt":
            if self.process.poll() is None:
                self.process.kill()
        else:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        if self.reader is not None:
            self.reader.join(timeout=5)  # a stranger may still hold the pipe
        return code


def start(
    command: Command, log: Path, heard: Heard, variables: Mapping[str, str] | None = None
) -> Running:
    """Start it. OSError where the interpreter cannot be started or the log not be written."""
    kept = Kept(log)
    try:
        process = subprocess.Popen(
            list(command.words),
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(variables or {})},
            start_new_session=os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            preexec_fn=end_with_us(),
        )
    except BaseException:
        kept.close()
        raise
    running = Running(command, process, time.monotonic())
    running.reader = threading.Thread(target=pump, args=(running, kept, heard), daemon=True)
    running.reader.start()
    return running


def end_with_us() -> Callable[[], object] | None:
    """Linux ends it when we are killed and can no longer do it (prctl(2), PR_SET_PDEATHSIG).

    Everything is loaded before the fork: after it, another thread's locks may stay locked."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGTERM)


def pump(running: Running, kept: Kept, heard: Heard) -> None:
    """Its output, as it comes, to whoever listens; what cannot be passed on stops nothing."""
    assert running.process.stdout is not None
    descriptor = running.process.stdout.fileno()
    with suppress(OSError, ValueError):
        while block := os.read(descriptor, 1 << 16):
            running.last = running.seconds
            running.startup.feed(block, running.last)
            with running.lock:
                for kind in (running.tail, running.fresh):
                    kind += block
                    del kind[:-TAIL]
            for take in (kept.write, heard):
                with suppress(OSError, ValueError):  # a full disk, a closed terminal
                    take(block)
    kept.close()


@dataclass(frozen=True)
class Outcome:
    """How a start went: ready, ended with a code, or neither in time."""

    ready: bool
    code: int | None
    seconds: float
    why: str = ""


def until_ready(
    running: Running, patience: float = 600.0, wanted: Callable[[], bool] = lambda: False
) -> Outcome:
    """Until /system_stats answers, it ends, patience is over, or `wanted` says to stop waiting."""
    server = Server(running.command.listening.url, patience=5.0)
    while not wanted():
        code = running.process.poll()
        if code is not None:
            if running.reader is not None:
                running.reader.join(timeout=2)
            return Outcome(False, code, running.seconds)
        if running.seconds > patience:
            return Outcome(False, None, running.seconds, f"not ready after {patience:.0f} s")
        if answers(server):
            running.startup.reached("ready", running.seconds)
            return Outcome(True, None, running.seconds)
        time.sleep(POLL)
    return Outcome(False, None, running.seconds, "it was to stop")


def answers(server: Server) -> bool:
    """Is it ComfyUI that answers there: the shape of /system_stats, and not any page."""
    try:
        stats = server.get("/system_stats")
    except Unreachable:
        return False
    return isinstance(stats, dict) and "system" in stats and "devices" in stats
