"""Hand: what Ray starts on a node. It starts our command line there as a child, and no more: the
environment may be broken, torch may crash, the child may hang, and Ray's worker outlives it.

Standard library, `places` and `guard` only: it runs in Ray's own Python, whatever is missing there.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from doctor.fleet.places import Reply, Work

ROOT = Path(__file__).parents[2]  # where the doctor lies that this belongs to
FOLDER = "@FOLDER@"  # what a word begins with that names a file of the task's own folder
MARK = "COMFY_DOCTOR_TASK"  # in the environment of all that a task started, wherever it went
GRACE = 20.0  # seconds from being asked to end until being ended: time to take a change back
LARGEST = 64 << 20  # bytes that one child may say
INTERRUPTED = 130  # our own exit code, and no signal
TAIL = 4000  # bytes of its stderr that are brought back
# What Ray's worker has in its environment and the machine has not.
RAYS = ("PYTHONPATH", "OMP_NUM_THREADS", "PYTHONBREAKPOINT", "CUDA_VISIBLE_DEVICES")


def serve(work: Work, python: str, gpus: Sequence[str]) -> Reply:
    """One child of our own command line, from its start to its end."""
    with tempfile.TemporaryDirectory(prefix="comfy-doctor-fleet-") as name:
        folder = Path(name)
        for path in (*work.files, *work.bring):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
        for path, data in work.files.items():
            (folder / path).write_bytes(data)
        words = [name + w.removeprefix(FOLDER) if w.startswith(FOLDER) else w for w in work.words]
        began = time.monotonic()
        reply = ended([*start(python), *words], environment(os.environ, gpus), work.limit, folder)
        there = {path: folder / path for path in work.bring}
        files = {path: file.read_bytes() for path, file in there.items() if file.is_file()}
    seconds = time.monotonic() - began
    return replace(reply, seconds=seconds, files=files, device=",".join(gpus))


def start(python: str) -> list[str]:
    """How the doctor is started here: one that is installed, or the one that came along. It comes
    as a folder, and not on PYTHONPATH, where the patient would find it, too."""
    if python:
        return [os.path.expandvars(os.path.expanduser(python)), "-m", "doctor"]
    return [sys.executable, "-B", str(ROOT)]


def environment(outer: Mapping[str, str], gpus: Sequence[str]) -> dict[str, str]:
    """As on the machine itself, before Ray: a patient is judged as it would be started."""
    kept = {n: v for n, v in outer.items() if n not in RAYS and not n.startswith("RAY_")}
    if gpus:
        kept["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return {**kept, MARK: uuid.uuid4().hex, "PYTHONUTF8": "1"}


def ended(command: Sequence[str], env: Mapping[str, str], limit: float, folder: Path) -> Reply:
    """The child's code and words. The guard before it sees to it that it ends with this worker."""
    late = False
    with open(folder / ".out", "w+b") as out, open(folder / ".err", "w+b") as err:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), *command],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            cwd=Path.home() if Path.home().is_dir() else folder,
            env=dict(env),
            start_new_session=os.name != "nt",
        )
        with stopped(child, env[MARK]):
            try:
                code = child.wait(limit)
            except subprocess.TimeoutExpired:
                late, code = True, 128 + signal.SIGTERM
        return Reply(
            128 - code if 128 < code != INTERRUPTED else code, start_of(out), end_of(err), 0.0, late
        )


def start_of(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(LARGEST).decode("utf-8", "replace")


def end_of(file: BinaryIO) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
    return file.read().decode("utf-8", "replace")


@contextmanager
def stopped(child: "subprocess.Popen[bytes]", mark: str) -> Iterator[None]:
    """However this is left: the child asked to end, then ended, and with it all that it started,
    in whatever session that is now."""
    try:
        yield
    finally:
        try:
            if child.poll() is None:
                child.terminate()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(GRACE)
        finally:  # whoever does not wait for that
            for pid in (*([child.pid] if child.poll() is None else []), *marked(mark)):
                kill(pid)
            child.wait()
            if child.stdin:
                child.stdin.close()


def kill(pid: int) -> None:
    with suppress(OSError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def marked(mark: str) -> Iterator[int]:
    """Processes with this mark in their environment, by /proc; elsewhere none is found."""
    needle = f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if needle in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)
