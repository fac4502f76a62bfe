"""Contents: what lies in a ComfyUI folder besides its code: nodes, models, paths, stray files.

Only names, sizes and the first bytes are read, within a time that level 1 can afford; what was
not reached is counted.
"""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from doctor.facts import Folder, ModelFile, Node

SECONDS = 0.5  # for all models together
HEADERS = 32 << 20  # bytes of safetensors headers read in all
KINDS = frozenset(
    {".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx", ".pkl"}
)
LAST = re.compile(rb'"data_offsets":\s*\[\d+,\s*(\d+)\]')
STRAY = frozenset(  # modules that ComfyUI imports by these names, and no file of its own is called
    "torch numpy yaml safetensors aiohttp einops transformers PIL scipy tqdm psutil av json typing"
    " types random copy logging platform signal socket queue inspect io re time math string"
    " tokenize token select email http html code secrets statistics".split()
)
WRITTEN = ("output", "input", "temp", "user", "custom_nodes", "models")
SECTION = re.compile(r"^[\w.-]+\s*:\s*(?:#.*)?$")
ENTRY = re.compile(r"^(\s+)[\w.-]+\s*:(.*)$")


def folder(comfyui: str | None) -> Folder | None:
    if comfyui is None:
        return None
    here = Path(comfyui)
    odd, looked, left = models(here / "models")
    return Folder(
        nodes=tuple(nodes(here / "custom_nodes")),
        models=looked,
        unseen=left,
        odd=odd,
        extra_paths=extra_paths(here / "extra_model_paths.yaml"),
        shadows=tuple(sorted(shadows(here))),
        read_only=tuple(name for name in WRITTEN if locked(here / name)),
    )


def nodes(place: Path) -> Iterator[Node]:
    """The folders and files that ComfyUI would try to load."""
    for entry in entries(place):
        if entry.name.startswith((".", "__")) or entry.name.endswith((".disabled", ".example")):
            continue
        if entry.is_dir():
            yield pack(Path(entry.path))
        elif entry.name.endswith(".py"):
            yield Node(entry.name, loads=True)


def pack(here: Path) -> Node:
    names = {entry.name: entry for entry in entries(here)}
    loads = "__init__.py" in names
    inner = ""
    if not loads:
        folders = (name for name, entry in sorted(names.items()) if entry.is_dir())
        inner = next((name for name in folders if (here / name / "__init__.py").exists()), "")
    requires = lines(here / "requirements.txt") if "requirements.txt" in names else ()
    return Node(here.name, loads, inner, requires, empty=not names)


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


def models(place: Path) -> tuple[tuple[ModelFile, ...], int, int]:
    """The odd ones, how many were looked at, and how many the time did not allow."""
    until, budget = time.monotonic() + SECONDS, HEADERS
    odd: list[ModelFile] = []
    looked = left = 0
    for path, size in files(place):
        if time.monotonic() > until:
            left += 1
            continue
        looked += 1
        kind, expected, cost = head(path, size, budget)
        budget -= cost
        if strange(path.suffix.lower(), kind, size, expected):
            odd.append(ModelFile(path.relative_to(place).as_posix(), kind, size, expected))
    return tuple(odd), looked, left


def files(place: Path) -> Iterator[tuple[Path, int]]:
    for root, _, names in os.walk(place):
        for name in sorted(names):
            path = Path(root, name)
            if path.suffix.lower() in KINDS:
                try:
                    yield path, path.stat().st_size
                except OSError:
                    yield path, -1


def head(path: Path, size: int, budget: int) -> tuple[str, int, int]:
    """(what it is, bytes its header promises or 0, bytes read) by the first bytes of a file."""
    try:
        with path.open("rb") as file:
            first = file.read(64)
            kind = kind_of(first, size)
            length = int.from_bytes(first[:8], "little")
            if kind != "safetensors" or length > min(budget, 100 << 20):
                return kind, 0, 64
            ends = LAST.findall(first[8:] + file.read(length - 56))
    except OSError:
        return "unreadable", 0, 0
    return kind, 8 + length + max(map(int, ends), default=0), length


def kind_of(first: bytes, size: int) -> str:
    if size == 0:
        return "empty"
    start = first.lstrip()[:20].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "web page"
    if first.startswith(b"version https://git-lfs"):
        return "git-lfs pointer"
    if first.startswith(b"PK"):
        return "torch archive"
    if first.startswith(b"GGUF"):
        return "gguf"
    if first[8:9] == b"{" and int.from_bytes(first[:8], "little") <= size:
        return "safetensors"
    if first[8:9] == b"{":
        return "cut safetensors"
    return "pickle" if first[:1] == b"\x80" else "other"


BROKEN = frozenset({"empty", "web page", "git-lfs pointer", "cut safetensors", "unreadable"})


def strange(suffix: str, kind: str, size: int, expected: int) -> bool:
    """Damaged, or not what its extension says."""
    if kind in BROKEN or expected > size:
        return True
    if suffix in (".safetensors", ".sft"):
        return kind != "safetensors"
    return kind == "safetensors" or (suffix == ".gguf" and kind != "gguf")


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


def shadows(here: Path) -> Iterator[str]:
    """Files beside main.py that hide a module of the same name."""
    for entry in entries(here):
        stem = entry.name.removesuffix(".py")
        package = entry.is_dir() and (Path(entry.path) / "__init__.py").exists()
        if stem in STRAY and (package or entry.name.endswith(".py")):
            yield entry.name


def locked(place: Path) -> bool:
    return place.is_dir() and not os.access(place, os.W_OK)
