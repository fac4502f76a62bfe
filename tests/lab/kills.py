"""Kill a real treatment of a real environment at random instants, many times.

python -m tests.lab.kills [--count 200] [--seed 0]

Each time `comfy-doctor fix` is started on an environment and killed (SIGKILL), alone
or with all that it started, somewhere between its first and its last moment; a power cut may take
part of the journal's last line, too. Then `comfy-doctor undo` runs, as a person would, and may be
killed itself and run again. Afterwards the tree must be byte-identical to the one before, or,
where the treatment had ended, be so once it is undone; it must have said so; and imports work.
"""

import argparse
import collections
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path

import psutil

from doctor import installer
from doctor.machine import users_of
from doctor.receipts import Busy, locked
from tests.doctor.command import ROOT
from tests.doctor.test_snapshot import tree
from tests.doctor.wheels import wheel


def shop(folder: Path) -> dict[str, str]:
    """Wheels with enough files that every phase takes a while; the variables that serve them."""
    many = {f"alpha/part{n}.py": f"number = {n}\n" * 50 for n in range(400)}
    other = {f"alpha/part{n}.py": f"number = -{n}\n" * 50 for n in range(300)}
    wheel(folder, "alpha", "1.0", files=many)
    wheel(folder, "alpha", "2.0", "beta", files=other)
    wheel(folder, "beta", "1.0", files={f"beta/b{n}.py": "x = 1\n" for n in range(200)})
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}


def patient(folder: Path, online: dict[str, str]) -> Path:
    here = folder / "ComfyUI"
    (here / "comfy").mkdir(parents=True)
    (here / "main.py").touch()
    (here / "requirements.txt").write_text("alpha>=2\n")
    venv.create(here / ".venv", with_pip=False, symlinks=True)
    python = str(here / ".venv" / "bin" / "python")
    words = [*installer.pip(python), "install", "--quiet", "alpha==1.0"]
    subprocess.run(words, check=True, env={**os.environ, **online})
    return here


def doctor(here: Path, online: dict[str, str], *words: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "doctor", *words, "--comfyui", str(here), "--yes"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **online, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def held(here: Path) -> dict[str, object]:
    return {k: v for k, v in tree(here).items() if not k.startswith(".comfy-doctor")}


def version(here: Path) -> str:
    words = [str(here / ".venv/bin/python"), "-B", "-c", "import alpha; print(alpha.__version__)"]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def said(here: Path) -> str:
    """The whole lines that the journal holds now."""
    journal = here / ".comfy-doctor" / "journal.jsonl"
    text = journal.read_text() if journal.exists() else ""
    return text[: text.rfind("\n") + 1]


def wait_for(event: str, here: Path, run: "subprocess.Popen[bytes]") -> float:
    """Seconds until the journal names the event, or the run ends."""
    start = time.monotonic()
    while f'"event": "{event}"' not in said(here) and run.poll() is None:
        time.sleep(0.001)
    return time.monotonic() - start


def kill(run: "subprocess.Popen[bytes]", everything: bool) -> None:
    """The doctor alone, as by the system's out-of-memory killer; or all that it started too, as
    by a power cut."""
    try:
        children = psutil.Process(run.pid).children(recursive=True) if everything else []
    except psutil.NoSuchProcess:
        children = []
    run.kill()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    run.wait()


def free(here: Path) -> None:
    """What a killed doctor had started holds the lock until it has ended."""
    while any(users_of(str(here / ".venv"))):  # a child begun in the very instant of the kill
        time.sleep(0.05)
    while True:
        try:
            with locked(here / ".comfy-doctor"):
                return
        except Busy:
            time.sleep(0.05)


@dataclass(frozen=True)
class Fate:
    """What befalls one treatment, and the undo after it."""

    after: str  # the journal's event that it is counted from
    instant: float  # seconds
    everything: bool  # all that the doctor started goes with it
    torn: float  # the share of the journal's last line that the disk kept; 1: all of it
    again: float  # seconds until the undo is killed, too; 0: it is not


def tear(here: Path, share: float) -> None:
    journal = here / ".comfy-doctor" / "journal.jsonl"
    if share < 1 and journal.exists():
        data = journal.read_bytes()
        last = data[:-1].rfind(b"\n") + 1
        journal.write_bytes(data[: last + int((len(data) - last) * share)])


def one(here: Path, online: dict[str, str], fate: Fate) -> str:
    """Kill as fate has it; what was left, or an AssertionError. The patient is as before."""
    before = held(here)
    run = doctor(here, online, "fix", "core-requirement-version")
    if fate.after:
        wait_for(fate.after, here, run)
    time.sleep(fate.instant)
    kill(run, fate.everything)
    free(here)
    tear(here, fate.torn)
    touched, told = held(here) != before, said(here)
    begun, finished = '"event": "begin"' in told, '"event": "done"' in told
    assert begun or not touched, "changed without a word in the journal"
    if fate.again:
        second = doctor(here, online, "undo")
        time.sleep(fate.again)
        kill(second, everything=True)
        free(here)
    between = said(here)
    answer = doctor(here, online, "undo").communicate()[0].decode()
    assert held(here) == before, f"not byte-identical: {fate}: {answer}"
    assert version(here) == "1.0"
    if '"event": "rolled-back"' in between or '"event": "undone"' in between or not begun:
        assert "Nothing was changed" in answer, answer
    else:
        assert ("Undone" if finished else "was taken back") in answer, answer
    shutil.rmtree(here / ".comfy-doctor", ignore_errors=True)
    if finished:
        return "had ended, undone"
    return "in the middle, taken back" if touched else "nothing touched yet"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    dice = random.Random(asked.seed)
    found: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        online = shop(Path(folder, "shop"))
        here = patient(Path(folder, "whole"), online)
        run = doctor(here, online, "fix", "core-requirement-version")
        phases = {"": wait_for("begin", here, run)}  # looking and planning
        phases["begin"] = wait_for("step", here, run)  # the snapshot
        phases["step"] = wait_for("done", here, run)  # installing and verifying
        run.communicate()
        began = time.monotonic()
        doctor(here, online, "undo").communicate()
        undoing = time.monotonic() - began
        shutil.rmtree(here / ".comfy-doctor")
        for number in range(asked.count):
            after = dice.choice(["", "begin", "step", "step", "step"])
            everything = dice.random() < 0.5
            fate = Fate(
                after,
                dice.uniform(0, phases[after] * 1.1),
                everything,
                torn=dice.random() if everything and dice.random() < 0.4 else 1,
                again=dice.uniform(0, undoing) if dice.random() < 0.3 else 0,
            )
            found[one(here, online, fate)] += 1
            sys.stdout.write(f"\r{number + 1} of {asked.count}: {dict(found)}")
            sys.stdout.flush()
    sys.stdout.write(
        "\nevery tree byte-identical, every import works, every undo said what it did\n"
    )


if __name__ == "__main__":
    main()
