"""A newcomer's path: what README and guides tell people to type, typed in the order of the page in
a clean place: a fresh clone, an empty home, no environment active, the system's PATH.

    python -m tests.lab.newcomer [--out FILE] [PAGE ...]   all pages: half an hour, much to download

Questions are answered with yes, as a person would. `HEAD:6379` is a head of Ray's on this machine.
~/ComfyUI is there from before, of ComfyUI's shape and with no environment; numpy is taken from it
before something broke. Where GitHub is out of reach the new one comes from an archive of the same
shape, as the guide tells people with a bad line.
The suite runs what is quick of the same commands in tests/test_docs.py, and holds that both
languages tell the same ones.
"""

import argparse
import json
import os
import platform
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from select import select
from typing import Any

from doctor.fleet.cluster import started
from doctor.manifest import world
from tests.doctor.command import ROOT
from tests.doctor.test_page import ANIMAL
from tests.lab.installation import write
from tests.lab.mains import main_py
from tests.test_docs import typed

PAGES = (
    "README.md",
    *(f"docs/guides/{n}.md" for n in ("first-setup", "servers", "something-broke")),
)
PAGES += ("docs/fleets.md",)
LIMIT = 1200.0  # seconds for one command
READY = b"http://127.0.0.1"  # what `launch` says when there is nothing left to wait for
FLEET = f"~/doctor/bin/pip install --quiet ray=={metadata.version('ray')}"  # as docs/fleets.md says
LEFT_OUT = {"make test": "the suite, which is run by itself: 20 minutes"}
SHORTER = {  # on a processor; a card takes seconds for them
    "--model sd15 --size 512": "--model sd15 --size 64 --steps 1 --runs 1",
    "--out painted": "--out painted --steps 2",
}
FINDS = (" check ", " fix ", " log ", " run ", " setup ", " launch ")  # may find something: 1
SETUP = "comfy-doctor setup ~/ComfyUI-new --yes"
ARCHIVE = f"{SETUP} --allow-unproven --source ~/ComfyUI-master.zip"
GONE = "import numpy, shutil; shutil.rmtree(numpy.__path__[0])"
BREAKS = {"docs/guides/something-broke.md": f"~/ComfyUI/.venv/bin/python -c '{GONE}'"}
NOTHING_YET = " undo "  # 2 and a sentence where nothing was changed
KEPT = re.compile(r"PIP_.*|.*CERT_(FILE|DIR)|.*CA_BUNDLE|https?_proxy")  # of this machine's line
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ASIDE = ("WARNING:", "[notice]")  # pip's words about itself and its index
ASKS, LATER = b"[y/N]", 3.0  # a question, and the seconds that a server gets before it is ended


@dataclass(frozen=True)
class Typed:
    page: str
    command: str
    code: int
    seconds: float
    last: str  # line that it said
    wrong: str = ""


@contextmanager
def clean() -> Iterator[tuple[Path, dict[str, str]]]:
    """A clone, and the variables of somebody who has just logged in."""
    with tempfile.TemporaryDirectory(prefix="newcomer-", dir="/tmp") as name:
        place = Path(name)
        subprocess.run(["git", "clone", "-q", str(ROOT), str(place / "clone")], check=True)
        home = place / "home"
        comfyui(home / "ComfyUI")
        shutil.make_archive(
            str(home / "ComfyUI-master"), "zip", place, comfyui(place / "ComfyUI-master").name
        )
        (home / "comfyui.log").write_text("ModuleNotFoundError: No module named 'torchsde'\n")
        (place / "clone" / "photos").mkdir()
        for n in range(3):
            (place / "clone" / "photos" / f"{n}.png").write_bytes(ANIMAL)
        python = Path(sys.executable).resolve().parent
        own = [str(home / "doctor" / "bin"), str(place / "clone" / ".venv" / "bin")]
        path = [*own, str(python), "/usr/local/bin", "/usr/bin", "/bin"]
        config = Path("~/.config/pip/pip.conf").expanduser()  # which index this machine asks
        if config.exists():
            (home / ".config" / "pip").mkdir(parents=True)
            shutil.copy(config, home / ".config" / "pip")
        kept = {n: value for n, value in os.environ.items() if KEPT.fullmatch(n)}
        env = {"HOME": str(home), "PATH": ":".join(path), "LANG": "C.UTF-8", "TERM": "xterm"}
        yield place / "clone", kept | env


TRIED = 'if "--quick-test-for-ci" in sys.argv:\n    sys.exit()'  # as ComfyUI's own: start, and end
COMFYUI = {  # beside main.py
    "requirements.txt": "torch\nnumpy>=1.25.0\nsafetensors\nPillow\n",
    "comfyui_version.py": '__version__ = "0.3.64"\n',
    "comfy/samplers.py": "",
    "custom_nodes/websocket_image_save.py": "NODE_CLASS_MAPPINGS = {}\n",
}


def comfyui(folder: Path) -> Path:
    """A folder of ComfyUI's shape, whose main.py and requirements.txt are the lab's."""
    main_py(folder, before=TRIED)
    for name, text in COMFYUI.items():
        write(folder / name, text)
    return folder


def reached(address: str) -> bool:
    """Whether git gets an answer from there."""
    ask = ["git", "ls-remote", "-q", address, "HEAD"]
    with suppress(subprocess.TimeoutExpired):
        return not subprocess.run(ask, capture_output=True, timeout=30).returncode
    return False


def said(command: str, place: Path, env: dict[str, str]) -> tuple[int, bytes]:
    """Typed on a terminal: its exit code, and what it said. A server is ended by Ctrl-C."""
    ours, theirs = pty.openpty()
    pipes = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    child = subprocess.Popen(
        ["sh", "-c", command], cwd=place, env=env, start_new_session=True, **pipes
    )
    os.close(theirs)
    text, answered, stopped, end = b"", 0, False, time.monotonic() + LIMIT
    try:
        with suppress(OSError):  # the other end is closed
            while time.monotonic() < end:
                if select([ours], [], [], 1.0)[0]:
                    text += os.read(ours, 65536)
                if text.count(ASKS) > answered:
                    answered += 1
                    os.write(ours, b"y\n")
                if " launch " in command and READY in text and not stopped:
                    stopped = True  # asked twice it would not take its time
                    time.sleep(LATER)
                    os.killpg(child.pid, signal.SIGINT)
                    end = min(end, time.monotonic() + 60)
    finally:
        left(child)
    code = child.wait()
    os.close(ours)
    return code, text


def left(child: "subprocess.Popen[bytes]") -> None:
    """Ended, if it has not by now: first as somebody asks for it, then at once."""
    for sent, patience in ((signal.SIGTERM, 5), (signal.SIGTERM, 30), (signal.SIGKILL, 5)):
        with suppress(subprocess.TimeoutExpired):
            child.wait(patience)
            return
        with suppress(ProcessLookupError):
            os.killpg(child.pid, sent)


def judged(command: str, code: int, text: str) -> str:
    """What is wrong with how a command ended; nothing, where it is as a newcomer expects."""
    if "Traceback" in text or "bug in comfy-doctor" in text:
        return "a bug of ours"
    spaced = f" {command} "
    fine = {0} | ({1} if any(verb in spaced for verb in FINDS) else set())
    fine |= {2} if NOTHING_YET in spaced else set()
    fine |= {130} if " launch " in spaced else set()
    return "" if code in fine else f"exit code {code}"


def one(page: str, command: str, head: str, place: Path, env: dict[str, str]) -> Typed:
    words = command.replace("HEAD:6379", head)
    for long, short in SHORTER.items():
        words = words.replace(long, short)
    began = time.monotonic()
    code, raw = said(words, place, env)
    text = raw.decode("utf-8", "replace")
    last = ended(text).replace(env["HOME"], "~")[-160:]
    wrong = judged(words, code, text)
    if wrong:
        print(text[-3000:], file=sys.stderr)
    return Typed(
        page, words.replace(head, "HEAD:6379"), code, time.monotonic() - began, last, wrong
    )


def ended(text: str) -> str:
    """The last line that tells something, as it is read."""
    lines = [line.strip() for line in ANSI.sub("", text).splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith(ASIDE)), "")


@contextmanager
def at_home(home: str) -> Iterator[None]:
    """What is started meanwhile has that home, as a node of the same person would."""
    before = os.environ.get("HOME", "")
    os.environ["HOME"] = home
    try:
        yield
    finally:
        os.environ["HOME"] = before


def commands(pages: list[str], reached: bool) -> Iterator[tuple[str, str]]:
    """(page, command), once each, with what has to come in between for the next to be of use."""
    seen = set(LEFT_OUT)
    for page in pages:
        if page in BREAKS:
            yield page, BREAKS[page]
        for command in typed(page):
            if " fleet " in command and FLEET not in seen:
                seen.add(FLEET)
                yield page, FLEET
            if command not in seen:
                seen.add(command)
                yield page, command
            if command == SETUP and not reached:
                yield page, ARCHIVE


def walked(pages: list[str], reached: bool) -> Iterator[Typed]:
    with clean() as (place, env), at_home(env["HOME"]), started(1) as head:
        shutil.rmtree(place / ".git", ignore_errors=True)  # nothing may need it
        for page, command in commands(pages, reached):
            yield one(page, command, head, place, env)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("pages", nargs="*", metavar="PAGE", default=list(PAGES))
    options.add_argument("--out", type=Path)
    asked = options.parse_args()
    github = reached(world().core[0].repository)
    told = results(github)
    for row in walked(asked.pages, github):
        told["typed"].append(asdict(row) | {"seconds": round(row.seconds)})
        print(f"{'✗' if row.wrong else '✓'} {row.command}  ({row.code}, {row.seconds:.0f} s)")
        print(f"    {row.wrong or row.last}", flush=True)
        if asked.out:  # after each, so that a walk that is cut short keeps what it has
            text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
            asked.out.write_text(text, encoding="utf-8")
    wrong = sum(bool(row["wrong"]) for row in told["typed"])
    print(f"{len(told['typed'])} commands typed, {wrong} did not do what the page says")
    return 1 if wrong else 0


def results(github: bool) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    return {
        "command": "python -m tests.lab.newcomer --out tests/lab/newcomer.json",
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip()[:12],
        "machine": {"system": platform.platform(), "processors": os.cpu_count()},
        "left out": LEFT_OUT,
        "GitHub": "answers" if github else "out of reach: an archive of ComfyUI's shape",
        "typed": [],
    }


if __name__ == "__main__":
    sys.exit(main())
