"""An installation of the lab: a ComfyUI-shaped folder with an environment of its own.

ComfyUI itself is not here: main.py, comfy/ and requirements.txt stand in for it, and nothing of it
is started. The environment is a real one, with the torch and numpy of the Python that runs the
tests; one is made, and every installation gets its files as hard links.
"""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.environments import healthy_environment, site


@dataclass
class Here:
    """One installation, as its builder finds it, changes it, and wants it looked at."""

    root: Path
    base: Path  # the environment that all are linked from
    python: Path = Path()  # the interpreter that must be named
    asked: list[str] = field(default_factory=list)  # options instead of --comfyui ROOT
    variables: dict[str, str] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)  # words before the command: setpriv ...
    ended: ExitStack = field(default_factory=ExitStack)  # mounts and processes, taken back

    @property
    def site(self) -> Path:
        return site(self.root / ".venv")


Build = Callable[[Here], None]


@dataclass(frozen=True)
class Case:
    """A builder, and what must be said of what it builds."""

    build: Build
    owed: str = ""  # the finding it must get; "" for a healthy one
    level: int = 1
    also: frozenset[str] = frozenset()  # errors that come with it, and have no cause of their own
    quick: bool = False  # one of those that run in the suite
    unfixed: str = ""  # why a fix that is promised is not carried out here
    stand_in: str = ""  # what is not real about it

    @property
    def name(self) -> str:
        return self.build.__name__.replace("_", "-")


CASES: dict[str, Case] = {}


class Impossible(Exception):
    """This machine lacks what a builder needs; it is skipped, aloud."""


def owes(id: str, level: int = 1, also: str = "", **more: object) -> Callable[[Build], Build]:
    """Register a builder with the finding that its installation must get."""

    def register(build: Build) -> Build:
        case = Case(build, id, level, frozenset(also.split()), **more)  # type: ignore[arg-type]
        assert case.name not in CASES, case.name
        CASES[case.name] = case
        return build

    return register


def healthy(level: int = 2, **more: object) -> Callable[[Build], Build]:
    return owes("", level, **more)


def installation(root: Path, base: Path) -> Here:
    """torch, numpy, and a folder of the shape of ComfyUI's, with nothing wrong."""
    folder(root)
    link(base, root / ".venv")
    return Here(root, base, root / ".venv/bin/python")


def folder(root: Path) -> None:
    for name in ("comfy", "custom_nodes", "models/checkpoints", "output", "input", "user"):
        (root / name).mkdir(parents=True)
    write(root / "main.py", "")
    write(root / "comfy/samplers.py", "")
    write(root / "comfyui_version.py", '__version__ = "0.38.1"\n')
    write(root / "requirements.txt", "torch\nnumpy>=1.25.0\n")
    write(root / "custom_nodes/websocket_image_save.py", "NODE_CLASS_MAPPINGS = {}\n")
    write(root / "custom_nodes/pack/__init__.py", "NODE_CLASS_MAPPINGS = {}\n")
    write(root / "custom_nodes/pack/requirements.txt", "numpy\nsympy>=1\n")
    model(root / "models/checkpoints/whole.safetensors")


def make_base(folder: Path) -> Path:
    healthy_environment(folder)
    return folder


def link(source: Path, target: Path) -> None:
    """The same tree once more, its files as hard links: what is changed must be unlinked first."""
    same = source.stat().st_dev == target.parent.stat().st_dev
    run("cp", "-al" if same else "-a", str(source), str(target))


def run(*words: str, **more: object) -> str:
    """A program that must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {(done.stdout + done.stderr)[-400:]}")
    return str(done.stdout)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a hard link
    path.write_text(text, encoding="utf-8")


def model(path: Path, size: int = 64, promised: int = 64, tensors: Sequence[str] = ("w",)) -> None:
    entry = {"dtype": "F32", "shape": [16], "data_offsets": [0, promised]}
    text = json.dumps(dict.fromkeys(tensors, entry)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * size)


def pip(here: Here, *words: str) -> None:
    """Real packages, from the default index, without those they ask for."""
    command = [sys.executable, "-m", "pip", "--python", str(here.python), "install", "--quiet"]
    run(*command, "--no-deps", "--only-binary", ":all:", *words)


def drop(here: Here, pattern: str) -> None:
    """What lies in site-packages under these names goes, as if it had been deleted by hand."""
    for path in here.site.glob(pattern):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def tiny(
    here: Here, name: str, version: str, *requires: str, code: str = "", module: str = ""
) -> None:
    """A package of one line, as pip leaves it: where the real one is too large for its point."""
    info = here.site / f"{name.replace('-', '_')}-{version}.dist-info"
    lines = [f"Requires-Dist: {wish}" for wish in requires]
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]
    write(info / "METADATA", "\n".join(head) + "\n")
    write(info / "INSTALLER", "pip\n")
    files = [f"{info.name}/{part}" for part in ("METADATA", "INSTALLER", "RECORD")]
    if code:
        place = f"{module or name.replace('-', '_')}/__init__.py"
        write(here.site / place, code)
        files.append(place)
    write(info / "RECORD", "".join(f"{file},,\n" for file in files))
