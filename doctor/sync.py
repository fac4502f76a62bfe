"""Sync: what ComfyUI, every enabled node pack and the user ask for, resolved together.

torch's family and everything CUDA stay at what is installed; so does numpy, as long as the wishes
let it; one opencv and one onnxruntime serve all who wish for any. A conflict is told before
anything changes: who wants what, and which single pack would have to give way.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from doctor import uv, wishes
from doctor.facts import Facts
from doctor.fixes.packages import OPENCV, holds
from doctor.wishes import Wish

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OWN_FILE = "comfy-doctor-requirements.txt"  # the user's wishes, beside main.py
CORE_FILES = ("requirements.txt", "manager_requirements.txt", OWN_FILE)
ONNX = ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime")


@dataclass(frozen=True)
class Move:
    """One package from a version to another, and by whose wish."""

    name: str
    was: str  # "" where it was not there
    will: str
    wished: tuple[Wish, ...]  # empty: somebody's dependency

    def __str__(self) -> str:
        whose = ", ".join(f"{w.text} ({w.where})" for w in self.wished) or "needed by another"
        return f"{self.name} {self.was or '∅'} → {self.will}  {whose}"


@dataclass(frozen=True)
class Conflict:
    """Wishes that no set of versions can meet together."""

    wishes: tuple[Wish, ...]  # those that the resolver's reasoning is about
    yielding: tuple[str, ...]  # packs of which any single one, left out, resolves it
    reasoning: str

    def __str__(self) -> str:
        wanted = "; ".join(f"{w.where} wants {w.text}" for w in self.wishes)
        way = f". Disable or update one of: {', '.join(self.yielding)}" if self.yielding else ""
        return f"{wanted or self.reasoning}{way}"


class InConflict(Exception):
    def __init__(self, conflict: Conflict) -> None:
        super().__init__(str(conflict))
        self.conflict = conflict


def gather(comfyui: Path) -> tuple[Wish, ...]:
    """Every wish of an installation, core first, then the packs by name. Only reads."""
    found = [wish for name in CORE_FILES for wish in from_file(comfyui / name, comfyui)]
    for pack in sorted(packs(comfyui)):
        found += from_file(pack / "requirements.txt", comfyui, pack.name)
        if not (pack / "requirements.txt").exists():
            found += from_project(pack / "pyproject.toml", comfyui, pack.name)
    return tuple(found)


def packs(comfyui: Path) -> Iterator[Path]:
    """Enabled node packs: folders that ComfyUI would import (nodes.py, init_external_...)."""
    folder = comfyui / "custom_nodes"
    for entry in folder.iterdir() if folder.is_dir() else ():
        hidden = entry.name.startswith(".") or entry.name == "__pycache__"
        if entry.is_dir() and not hidden and not entry.name.endswith(".disabled"):
            yield entry


def from_file(path: Path, comfyui: Path, pack: str = "") -> Iterator[Wish]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return
    yield from wishes.read(text, path.relative_to(comfyui).as_posix(), pack)


def from_project(path: Path, comfyui: Path, pack: str) -> Iterator[Wish]:
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
        dependencies = project.get("dependencies", [])
    except (OSError, ValueError, AttributeError):
        return
    if isinstance(dependencies, list) and all(isinstance(d, str) for d in dependencies):
        yield from wishes.of_project(dependencies, path.relative_to(comfyui).as_posix(), pack)


def usable(asked: Iterable[Wish], facts: Facts) -> Iterator[Wish]:
    """The wishes a resolver is given: no torch of a pack's own, one opencv, one onnxruntime."""
    chosen = {family: one_of(names, asked, facts) for family, names in FAMILIES.items()}
    for wish in asked:
        family = next((f for f, names in FAMILIES.items() if wish.name in names), "")
        if wish.kind == "requirement" and (not family or wish.name == chosen[family]):
            yield wish


FAMILIES = {"opencv": OPENCV, "onnxruntime": ONNX}


def one_of(names: Sequence[str], asked: Iterable[Wish], facts: Facts) -> str:
    """What is installed of a family, else the fullest that is wished for."""
    wished = {wish.name for wish in asked}
    there = [name for name in names if name in facts.packages]
    return next(iter([*there, *(name for name in names if name in wished)]), "")


def plan(python: str, facts: Facts, asked: Sequence[Wish], offline: bool = False) -> list[Move]:
    """What meeting all wishes would change. Raises InConflict, or uv.ResolverFailed."""
    wanted = list(usable(asked, facts))
    outcome = resolved(python, facts, wanted, offline)
    return list(moves(outcome, facts, wanted))


def resolved(python: str, facts: Facts, wanted: Sequence[Wish], offline: bool) -> uv.Outcome:
    """First with numpy where it is; then, where the wishes do not let it stay, without."""
    fixed, numpy = holds(facts), facts.packages.get("numpy")
    lines = [*dict.fromkeys(wish.text for wish in wanted), *kept_whole(facts)]
    tries = [(*fixed, f"numpy=={numpy.version}")] if numpy else []
    for held in (*tries, fixed):
        try:
            return uv.resolve(python, lines, held, offline=offline)
        except uv.Unsatisfiable as why:
            reason = str(why)
    raise InConflict(explain(python, facts, wanted, reason, offline))


def kept_whole(facts: Facts) -> Iterator[str]:
    """Installed packages by name, so that what they require is part of the question.

    What only lies on the path (PYTHONPATH, a checkout) is not installed, and on no index.
    """
    for name, package in sorted(facts.packages.items()):
        if package.location == facts.python.site and name not in ("pip", "setuptools"):
            yield name


def moves(outcome: uv.Outcome, facts: Facts, wanted: Sequence[Wish]) -> Iterator[Move]:
    for name, version in sorted(outcome.come.items()):
        normal = canonicalize_name(name)
        there = facts.packages.get(normal)
        yield Move(normal, there.version if there else "", version, wishes.of_name(wanted, normal))


def explain(
    python: str, facts: Facts, wanted: Sequence[Wish], reason: str, offline: bool
) -> Conflict:
    """Whose wishes clash, and which single pack could give way."""
    names = uv.mentioned(reason, sorted({wish.name for wish in wanted}))
    involved = tuple(wish for wish in wanted if wish.name in names)
    involved = tuple(w for w in involved if narrow(w)) or involved
    suspects = sorted({wish.pack for wish in involved if wish.pack})
    yielding = [p for p in suspects if works_without(p, python, facts, wanted, offline)]
    return Conflict(involved, tuple(yielding), reason)


def narrow(wish: Wish) -> bool:
    """Does it ask for certain versions, or for something that could?"""
    asked = wish.requirement
    return bool(asked and str(asked.specifier))


def works_without(
    pack: str, python: str, facts: Facts, wanted: Sequence[Wish], offline: bool
) -> bool:
    rest = [wish.text for wish in wanted if wish.pack != pack]
    try:
        uv.resolve(python, [*rest, *kept_whole(facts)], holds(facts), offline=offline)
    except (uv.Unsatisfiable, uv.ResolverFailed):
        return False
    return True


def told_apart(asked: Sequence[Wish]) -> Mapping[str, tuple[Wish, ...]]:
    """Lines that are no plain requirement, by kind: told, and not followed blindly."""
    kinds = ("option", "address", "unreadable")
    return {kind: tuple(wish for wish in asked if wish.kind == kind) for kind in kinds}
