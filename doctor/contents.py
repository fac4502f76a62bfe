"""Contents: what lies in a ComfyUI folder besides its code: nodes, models, paths, stray files.

Only names, sizes and the first bytes are read, within a time that level 1 can afford.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from doctor.facts import Folder, Node
from doctor.keeping import clones, database, foreign, held
from doctor.manifest import read
from doctor.modelfiles import models

ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".tar.gz")
STRAY = (
    sys.stdlib_module_names
    | frozenset(  # ComfyUI imports them; no file of its own is so called
        "torch numpy yaml safetensors aiohttp einops transformers PIL scipy tqdm psutil av requests"
        " pydantic sqlalchemy alembic kornia torchvision torchaudio cv2 packaging filelock".split()
    )
)
LOST = re.compile(r"Cannot import (.+?) module for custom nodes: (.*)")
WRITTEN = ("output", "input", "temp", "user", "custom_nodes", "models")
SECTION = re.compile(r"^[\w.-]+\s*:\s*(?:#.*)?$")
ENTRY = re.compile(r"^(\s+)[\w.-]+\s*:(.*)$")


def folder(comfyui: str | None) -> Folder | None:
    if comfyui is None:
        return None
    here = Path(comfyui)
    odd, looked, left = models(here / "models")
    yaml = here / "extra_model_paths.yaml"
    repositories = [here, *(Path(e.path) for e in entries(here / "custom_nodes") if e.is_dir())]
    return Folder(
        nodes=tuple(nodes(here / "custom_nodes", lost(here))),
        models=looked,
        unseen=left,
        odd=odd,
        extra_paths=extra_paths(yaml),
        absent=() if extra_paths(yaml) else tuple(absent(yaml)),
        database=database(here / "user" / "comfyui.db"),
        database_held=held(here / "user" / "comfyui.db"),
        damaged=tuple(clones(repositories, here)),
        foreign=foreign(repositories),
        shadows=tuple(sorted(shadows(here))),
        read_only=tuple(name for name in WRITTEN if locked(here / name)),
    )


def nodes(place: Path, failed: Mapping[str, str]) -> Iterator[Node]:
    """The folders and files that ComfyUI would try to load, and archives left packed."""
    for entry in entries(place):
        if entry.name.startswith((".", "__")) or entry.name.endswith((".disabled", ".example")):
            continue
        if entry.is_dir():
            yield pack(Path(entry.path), failed.get(entry.name, ""))
        elif entry.name.endswith(".py"):
            yield Node(entry.name, loads=True, failed=failed.get(entry.name, ""))
        elif entry.name.endswith(ARCHIVES):
            yield Node(entry.name, loads=False, archive=True)


def pack(here: Path, failed: str) -> Node:
    names = {entry.name: entry for entry in entries(here)}
    loads = "__init__.py" in names
    inner = ""
    if not loads:
        folders = (name for name, entry in sorted(names.items()) if entry.is_dir())
        inner = next((name for name in folders if (here / name / "__init__.py").exists()), "")
    requires = lines(here / "requirements.txt") if "requirements.txt" in names else ()
    core = wanted_core(here / "pyproject.toml") if "pyproject.toml" in names else ""
    return Node(here.name, loads, inner, requires, not names, core=core, failed=failed)


def wanted_core(path: Path) -> str:
    """`requires-comfyui` of [tool.comfy], docs.comfy.org/registry/specifications; "" where none."""
    try:
        core: Any = read(path)["tool"]["comfy"]["requires-comfyui"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return core if isinstance(core, str) else ""


def lost(here: Path) -> dict[str, str]:
    """Pack -> why the last start could not import it, where the pack is as it was then."""
    log = last_start(here)
    found = {}
    for line in tail(log) if log else ():
        said = LOST.search(line)
        if said:
            place = Path(said[1].replace("\\", "/")).name
            path = here / "custom_nodes" / place
            if path.exists() and log and path.stat().st_mtime <= log.stat().st_mtime:
                found[place] = said[2].strip()[:300]
    return found


def last_start(here: Path) -> Path | None:
    """The newest log that a start of this ComfyUI left."""
    named = (here / ".comfy-doctor" / "launch.log", here / "user" / "comfyui.log")
    there = [log for log in (*named, *(here / "user").glob("comfyui_*.log")) if log.is_file()]
    return max(there, key=lambda log: log.stat().st_mtime, default=None)


def tail(log: Path, last: int = 200_000) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - last))
        return file.read().decode(errors="replace").splitlines()


def lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_bytes()[:20_000].decode("utf-8-sig", "replace")
    except OSError:
        return ()
    kept = (line.split(" #")[0].strip() for line in text.splitlines())
    return tuple(line for line in kept if line and line[0] not in "#-")


def entries(place: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []


def extra_paths(path: Path) -> tuple[str, ...]:
    """What is wrong with extra_model_paths.yaml, line by line; nothing where there is no file."""
    try:
        text = path.read_bytes()
    except OSError:
        return ()
    try:
        whole = text.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return ("it is not UTF-8",)
    return tuple(faults(whole))


def faults(whole: list[str]) -> Iterator[str]:
    """The slips people make, not all that YAML forbids."""
    section, block = False, 0
    for number, line in enumerate(whole, 1):
        indent = len(line) - len(line.lstrip(" "))
        if not line.strip() or line.lstrip()[0] == "#" or (block and indent > block):
            continue  # nothing, or the plain text of a `|` block
        wrong = amiss(line, section)
        if wrong:
            yield f"line {number}: {wrong}"
        section = section or not indent
        block = indent if re.search(r":\s*[|>]-?\s*$", line) else 0


def amiss(line: str, section: bool) -> str:
    """What is wrong with one line below a section, or with the section's own."""
    if re.match(r" *\t", line):
        return "a tab; only spaces indent"
    if not line[0].isspace():
        return "" if SECTION.match(line) else "no section above its entries (write comfyui:)"
    entry = ENTRY.match(line)
    if not section or not entry:
        return "no `name: path` below a section"
    value = entry[2].strip()
    if value[:1] == '"' and "\\" in value:
        return "a backslash within double quotes"
    open_quote = value[:1] in ("'", '"') and value.count(value[:1]) % 2
    return "a quote that does not close" if open_quote else ""


def absent(path: Path) -> Iterator[str]:
    """Folders that a readable extra_model_paths.yaml names as base_path, and that are not there."""
    try:
        whole = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for number, line in enumerate(whole, 1):
        said = re.match(r"\s+base_path\s*:\s*(.+?)\s*(?:#.*)?$", line)
        place = Path(said[1].strip("'\"")).expanduser() if said else None
        if place is not None and not (path.parent / place).exists():
            yield f"line {number}: base_path {place}"


def shadows(here: Path) -> Iterator[str]:
    """Files beside main.py that hide a module of the same name."""
    for entry in entries(here):
        stem = entry.name.removesuffix(".py")
        package = entry.is_dir() and (Path(entry.path) / "__init__.py").exists()
        if stem in STRAY and (package or entry.name.endswith(".py")):
            yield entry.name


def locked(place: Path) -> bool:
    return place.is_dir() and not os.access(place, os.W_OK)
