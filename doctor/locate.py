"""Which installation, which interpreter, and why that one. Looks, and changes nothing."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from doctor.facts import Refusal, Target

OURS = frozenset(  # what may lie in a folder that is still to become a ComfyUI
    {".venv", "venv", "env", ".comfy-doctor", "models", "input", "output", "custom_nodes", "user"}
)
WORKSPACES = ("ComfyUI", "comfyui")  # a portable folder or workspace holds the checkout in one


class BadTarget(Refusal):
    """The folder or interpreter named by the user cannot be a patient; the sentence says why."""


def is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def is_vacant(folder: Path) -> bool:
    """Nothing in it but what a ComfyUI would have beside its source."""
    return {entry.name for entry in folder.iterdir()} <= OURS


def folder(named: str | None, cwd: Path) -> Path | None:
    """The installation meant: the folder named, else the one we stand in. BadTarget if neither."""
    if named is None:
        around = (cwd, *(cwd / name for name in WORKSPACES))
        return next((place.resolve() for place in around if is_comfyui(place)), None)
    try:
        place = Path(named).expanduser()
    except RuntimeError as error:
        raise BadTarget(f"{named}: {error}") from error
    if not place.exists():
        raise BadTarget(f"There is no folder {named}.")
    if not place.is_dir():
        raise BadTarget(f"{named} is a file; --comfyui names the folder that holds main.py.")
    place = place.resolve()
    inside = next((place / name for name in WORKSPACES if is_comfyui(place / name)), None)
    try:
        if inside and not is_comfyui(place):
            return inside
        if is_comfyui(place) or is_vacant(place):
            return place
    except OSError as error:
        raise BadTarget(f"{named} cannot be read: {error.strerror}.") from error
    raise BadTarget(
        f"{named} is not a ComfyUI: it holds files, but no main.py beside a folder comfy."
    )


def target(comfyui: Path | None, python: str | None) -> Target:
    """The interpreter that runs this ComfyUI, by the strongest evidence first."""
    where = str(comfyui) if comfyui else None
    found = [] if comfyui is None else list(candidates(comfyui))
    if python is not None:
        path = interpreter_named(python)
        alone = not found or found[0][0] != path
        return Target(where, path, "named by --python", layout(Path(path)), named=alone)
    if not found:
        return Target(where, None, "no interpreter of its own was found", "none")
    (path, why, kind), *rest = found
    others = tuple(dict.fromkeys(p for p, *_ in rest if p != path))
    return Target(where, path, why, kind, ("-s",) if kind == "portable" else (), others)


def interpreter_named(python: str) -> str:
    path = shutil.which(python) or python
    if Path(path).is_dir():
        inside = inside_environment(Path(path))
        if inside is None:
            raise BadTarget(f"{python} is a folder without a Python in it.")
        path = str(inside)
    if not os.path.lexists(path):  # a venv's link whose Python is gone is a broken patient
        raise BadTarget(f"There is no interpreter {python}.")
    return os.path.abspath(path)  # not resolve(): a venv's python is a link out of the venv


def candidates(comfyui: Path) -> Iterator[tuple[str, str, str]]:
    """(interpreter, why, layout), strongest evidence first; never the doctor's own."""
    for pid, path in running(comfyui):
        yield path, f"it runs this ComfyUI now (pid {pid})", layout(Path(path))
    for name in (".venv", "venv", "env"):
        path_in = inside_environment(comfyui / name)
        if path_in:
            yield str(path_in), f"{name} beside main.py", layout(path_in)
    for place in (comfyui.parent, comfyui):
        path_in = inside_environment(place / "python_embeded")
        if path_in:
            yield str(path_in), "python_embeded of the portable version", "portable"
    yield from active()
    for name in (".venv", "venv"):
        path_in = inside_environment(comfyui.parent / name)
        if path_in:
            yield str(path_in), f"{name} beside the ComfyUI folder", layout(path_in)
    yield from on_path()


def active() -> Iterator[tuple[str, str, str]]:
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        prefix = os.environ.get(variable)
        path = inside_environment(Path(prefix)) if prefix else None
        if path and not is_own(path):
            yield str(path), f"{variable} names it", layout(path)


def on_path() -> Iterator[tuple[str, str, str]]:
    """A system Python counts only where torch was put into it, as containers do."""
    path = shutil.which("python3") or shutil.which("python")
    if path and not is_own(Path(path)) and has_torch(Path(path)):
        yield path, "python3 on the PATH, which has torch", "system"


def has_torch(python: Path) -> bool:
    real = python.resolve().parent.parent
    places = ("lib/python3*/site-packages/torch", "lib/python3*/dist-packages/torch")
    return any(next(real.glob(place), None) for place in places)


def is_own(python: Path) -> bool:
    """Is this the doctor's own interpreter? A venv is told by its folder, not by its link."""
    return python.parent.resolve() == Path(sys.executable).parent.resolve()


def inside_environment(folder: Path) -> Path | None:
    """The python in a venv, conda or embedded folder. A dangling link counts: it is broken."""
    for name in ("bin/python", "Scripts/python.exe", "python.exe", "bin/python3"):
        path = folder / name
        if path.exists() or path.is_symlink():
            return path
    return None


def layout(python: Path) -> str:
    for prefix in (python.parent, python.parent.parent):
        if (prefix / "pyvenv.cfg").exists():
            return "venv"
        if (prefix / "conda-meta").exists():
            return "conda"
    return "portable" if python.parent.name == "python_embeded" else "system"


def running(comfyui: Path) -> Iterator[tuple[int, str]]:
    """Processes that run main.py of this folder: (pid, interpreter as it was called)."""
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if not any(Path(word).name == "main.py" for word in words[1:]):
            continue
        cwd = process.info["cwd"] or ""
        script = next(word for word in words[1:] if Path(word).name == "main.py")
        if (Path(cwd) / script).resolve() == comfyui / "main.py" and os.path.isabs(words[0]):
            yield process.info["pid"], words[0]
