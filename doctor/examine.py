"""Examine: find out everything about one patient, from outside. Changes nothing.

The patient's interpreter is only ever asked in children with time limits, so a torch that
crashes or hangs is an answer, and nothing of it is ever loaded here.
"""

import json
import os
import platform
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from doctor import cards, contents, flags, machine, verdict
from doctor.facts import (
    ComfyUI,
    Facts,
    Import,
    Package,
    Port,
    Proof,
    Python,
    Target,
    Torch,
    Unknown,
    build,
)
from doctor.locate import BadTarget
from doctor.manifest import read, world
from manifests import FOLDER

PROBE = Path(__file__).with_name("probe.py")
PACKS = Path(__file__).with_name("probe_packs.py")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Heard:
    """What a child of the patient said between the marks, and how it ended."""

    answers: tuple[dict[str, Any], ...]
    code: int | None  # None: stopped after the time limit
    noise: tuple[str, ...]  # the last lines it printed besides

    @property
    def signal(self) -> str:
        """SIGSEGV and the like; Windows reports them as exit codes above 0x80000000."""
        if self.code is None or 0 <= self.code < 0x80000000:
            return ""
        if self.code < 0:
            names = {s.value: s.name for s in signal.Signals}
            return names.get(-self.code, f"signal {-self.code}")
        return {0xC0000005: "access violation"}.get(self.code, f"0x{self.code:08X}")


def interview(
    target: Target,
    task: str,
    *modules: str,
    timeout: float,
    probe: Path = PROBE,
    without: Collection[str] = (),
) -> Heard:
    """Let the patient's interpreter run the probe, without these variables. A crash or a hang is
    an answer too."""
    mark = secrets.token_hex(8)  # tells our answers from what sitecustomize may print
    words = [str(target.python), *target.flags, "-B", str(probe), mark, target.comfyui or "", task]
    try:
        run = subprocess.run(
            [*words, *modules],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            cwd=tempfile.gettempdir(),
            env={name: value for name, value in os.environ.items() if name not in without},
        )
        out, err, code = run.stdout, run.stderr, run.returncode
    except subprocess.TimeoutExpired as late:
        out, err, code = late.stdout or b"", late.stderr or b"", None
    except OSError as error:
        return Heard((), 127, (f"it cannot be started: {error.strerror}",))
    return hear(out.decode(errors="replace"), err.decode(errors="replace"), code, mark)


def hear(out: str, err: str, code: int | None, mark: str) -> Heard:
    parts = out.split(mark)
    answers = tuple(json.loads(part) for part in parts[1::2] if part.startswith("{"))
    noise = [line for line in (err + "".join(parts[::2])).splitlines() if line.strip()]
    return Heard(answers, code, tuple(noise[-30:]))


LEADING = "PYTHONPATH"  # leads an interpreter to modules that are not its own


def describe(target: Target) -> dict[str, Any] | Unknown:
    """The interpreter in its own words: packages, torch, which heavy modules are there."""
    heard = interview(target, "describe", *candidates(), timeout=20)
    if heard.answers:
        return dict(heard.answers[0])
    if os.environ.get(LEADING):
        alone = interview(target, "describe", *candidates(), timeout=20, without=[LEADING])
        if alone.answers:
            return dict(alone.answers[0]) | {"led_astray": " ".join(heard.noise[-1:])}
    if heard.code is None:
        return Unknown("the interpreter did not answer within 20 s")
    if not is_python(str(target.python)):
        raise BadTarget(f"{target.python} is not a Python: it does not answer to --version.")
    said = heard.signal or (heard.noise[-1] if heard.noise else "nothing")
    return Unknown(f"the interpreter ended with {heard.signal or heard.code}: {said}")


def is_python(path: str) -> bool:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return os.path.islink(path) and not os.path.exists(path)  # a venv whose Python is gone
    return said.returncode != 0 or bool(re.match(r"Python \d", said.stdout + said.stderr))


def packs(target: Target) -> Any:
    """Node pack -> why this interpreter could not import it (dict[str, tuple[str, ...]])."""
    if target.comfyui is None:
        return {}
    heard = interview(target, "packs", timeout=60, probe=PACKS)
    if not heard.answers:
        return Unknown(f"the node packs could not be read: {' '.join(heard.noise[-1:])}")
    return {name: tuple(why) for name, why in heard.answers[0].items()}


def candidates() -> list[str]:
    return [row["module"] for row in read(FOLDER / "imports.toml")["imports"]]


def imports(
    target: Target, modules: list[str], progress: Progress, timeout: float = 60
) -> dict[str, Import]:
    """Import the modules in one child; where one fails, it alone, and the rest in another.

    What rests on a torch that crashed or hung is not tried: it would crash or hang as well.
    """
    found: dict[str, Import] = {}
    left = list(modules)
    while left:
        progress(", ".join(left))
        heard = interview(target, "import", *left, timeout=timeout)
        found |= dict(gone_well(heard))
        left = [name for name in left if name not in found]
        if left:
            culprit = left.pop(0)
            found[culprit] = once_more(target, culprit, heard, timeout)
            if found[culprit].signal or found[culprit].timeout:
                left = [name for name in left if culprit not in rests_on(name)]
    return {name: found[name] for name in modules if name in found}


def once_more(target: Target, name: str, heard: Heard, timeout: float) -> Import:
    """The first module that did not go well, in a child of its own, so that nothing imported
    before it is to blame. What seemed to hang gets twice the time: a machine under load, or a disk
    that reads all of it for the first time, looks the same."""
    patience = timeout * 2 if heard.code is None else timeout
    return alone(name, interview(target, "import", name, timeout=patience))


def rests_on(name: str) -> tuple[str, ...]:
    """The heavy modules that importing this one imports, by manifests/imports.toml."""
    rows = read(FOLDER / "imports.toml")["imports"]
    return tuple(next((row.get("rests_on", ()) for row in rows if row["module"] == name), ()))


def gone_well(heard: Heard) -> Iterator[tuple[str, Import]]:
    """The modules of a chain up to the first that did not go well."""
    for answer in heard.answers:
        if "error" in answer:
            return
        if answer.get("ok"):
            yield answer["module"], Import(True, seconds=answer["seconds"], detail=answer["detail"])


def alone(name: str, heard: Heard) -> Import:
    """How one module fared in a child of its own."""
    for answer in heard.answers:
        if answer.get("ok"):
            return Import(True, seconds=answer["seconds"], detail=answer["detail"])
        if "error" in answer:
            trace = (*answer["trace"], *heard.noise)
            return Import(False, answer["error"], trace, seconds=answer["seconds"])
    stage = "in its first operation" if heard.answers else "while being imported"
    if heard.code is None:
        return Import(False, f"{name} hung {stage}", heard.noise, timeout=True)
    how = heard.signal or f"exit code {heard.code}"
    return Import(False, f"{name} died {stage}: {how}", heard.noise, signal=heard.signal or how)


def maker() -> Python:
    """The Python that runs the doctor: what a new environment would be made with."""
    return Python(
        version=platform.python_version(),
        executable=sys.executable,
        implementation=sys.implementation.name,
        bits=64 if sys.maxsize > 1 << 32 else 32,
    )


def comfyui(folder: str | None) -> ComfyUI | None:
    """The checkout, by its own files. What the doctor keeps about it comes along."""
    if folder is None:
        return None
    here = Path(folder)
    own = kept(here).flags
    if not (here / "main.py").is_file():
        return ComfyUI(folder, present=False, empty=not any(here.iterdir()), flags=own)
    version = re.search(r'__version__ = "([^"]+)"', text(here / "comfyui_version.py"))
    return ComfyUI(
        folder,
        version=version[1] if version else "",
        commit=commit(here),
        requirements=tuple(text(here / "requirements.txt").splitlines()),
        flags=own,
        faults=faults(here),
        faults_at=written_at(contents.last_start(here)),
        cuda_malloc=malloc_list(text(here / "cuda_malloc.py")),
    )


def port(folder: str | None) -> Port:
    """The port that this ComfyUI would be started on."""
    usual = world().core[0].port
    kept_one = kept(Path(folder)).flags.get("--port") if folder else None
    number = int(kept_one.value) if kept_one and kept_one.value.isdecimal() else usual
    usual_free = number == usual or not machine.port(usual).taken
    return replace(machine.port(number), usual=usual_free)


def text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def commit(folder: Path) -> str:
    """The commit that is checked out, read from .git without git."""
    head = text(folder / ".git" / "HEAD").strip()
    if not head.startswith("ref: "):
        return head
    ref = head.removeprefix("ref: ")
    packed = text(folder / ".git" / "packed-refs").splitlines()
    of_ref = (line.split(" ")[0] for line in packed if line.endswith(" " + ref))
    return text(folder / ".git" / ref).strip() or next(of_ref, "")


def malloc_list(source: str) -> tuple[str, ...]:
    """The card names in `blacklist = {...}` of ComfyUI's cuda_malloc.py."""
    names = re.search(r"blacklist\s*=\s*\{(.*?)\}", source, re.DOTALL)
    return tuple(re.findall(r'"([^"]+)"', names[1])) if names else ()


def kept(folder: Path) -> flags.Kept:
    """Launch flags and start scripts kept for this installation."""
    return flags.read(text(folder / ".comfy-doctor" / flags.NAME))


FAULT = re.compile(
    r"operation not supported|cudaMallocAsync|out of memory|no kernel image"
    r"|invalid value encountered in cast|Allocation on device|attempting to bind on address"
    r"|WinError 100(13|49)|could not bind on any address",
    re.IGNORECASE,
)


WELL = re.compile(r"\bDevice: cuda")  # the line of a healthy start that names the allocator


def written_at(log: Path | None) -> str:
    if log is None:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(log.stat().st_mtime))


def faults(folder: Path) -> tuple[str, ...]:
    """Lines of the last start that name a fault of the card."""
    log = contents.last_start(folder)
    lines = contents.tail(log) if log else ()
    told = (line.strip() for line in lines if FAULT.search(line) and not WELL.search(line))
    return tuple(dict.fromkeys(told))[-8:]


NOT_TRIED: Any = Unknown("allocators are tried from level 3 on", skipped=True)
NOT_ASKED: Any = Unknown("the network is looked at with --network", skipped=True)


def examine(target: Target, level: int = 2, progress: Progress = lambda _: None) -> Facts:
    """Everything about this patient. Level 1 imports nothing; level 2 tries the heavy modules.

    Raises BadTarget where the interpreter named is not a Python at all.
    """
    said: dict[str, Any] | Unknown = Unknown("there is no interpreter to ask")
    if target.python is not None:
        progress(str(target.python))
        said = describe(target)
    place = Path(target.comfyui or target.python or ".")
    return Facts(
        target=target,
        host=machine.host(),
        gpus=cards.gpus(),
        comfyui=comfyui(target.comfyui),
        folder=contents.folder(target.comfyui),
        disks=machine.disks(places(place)),
        port=port(target.comfyui),
        environment=machine.environment(),
        maker=maker(),
        network=NOT_ASKED,
        allocators=NOT_TRIED,
        proof=proof(target.comfyui),
        world=world(),
        **patient(target, said, level, progress),
    )


def proof(folder: str | None) -> Proof:
    """What the newest verified render of this installation found wrong."""
    runs = Path(folder, ".comfy-doctor", "runs") if folder else None
    reports = sorted(runs.glob("*/report.json"), key=lambda p: p.stat().st_mtime) if runs else []
    if not reports:
        return Proof()
    return verdict.read(text(reports[-1]), written_at(reports[-1]))


def places(home: Path) -> dict[str, Path]:
    """Where things get written, each named once: what lies on the disk of the installation itself
    says nothing more."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    wanted = {
        "installation": home,
        "temp": Path(tempfile.gettempdir()),
        "cache": Path(os.environ.get("PIP_CACHE_DIR") or os.environ.get("HF_HOME") or caches),
        "models": home / "models",
        "output": home / "output",
    }
    own = device(home)
    elsewhere = {what: path for what, path in wanted.items() if device(path) not in (own, 0)}
    return {"installation": home, "temp": wanted["temp"], **elsewhere}


def device(path: Path) -> int:
    """The disk that a path, or what there is of it, lies on; 0 where none can be asked."""
    for place in (path, *path.parents):
        try:
            return os.stat(place).st_dev
        except FileNotFoundError:
            continue
        except OSError:
            return 0
    return 0


def patient(
    target: Target, said: Mapping[str, Any] | Unknown, level: int, progress: Progress
) -> dict[str, Any]:
    """The facts that only the patient's interpreter can give."""
    if isinstance(said, Unknown):
        return dict.fromkeys(("python", "packages", "torch", "imports", "packs"), said)
    own = {name: said[name] for name in Python.__dataclass_fields__ if name in said}
    facts = {
        "python": build(Python, own),
        "packages": build(dict[str, Package], said["packages"]),
        "torch": build(Torch | None, said["torch"]),
        "imports": Unknown("imports are tried from level 2 on", skipped=True),
        "packs": Unknown("node packs are read from level 2 on", skipped=True),
    }
    if level >= 2:
        there = [name for name in candidates() if name in said["modules"]]
        facts["imports"] = imports(target, there, progress) if there else {}
        facts["packs"] = packs(target)
    return facts
