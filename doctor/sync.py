"""Sync: what ComfyUI, every enabled node pack and the user ask for, resolved together.

torch's family and everything CUDA stay at what is installed; so does numpy, as long as the wishes
let it; one opencv and one onnxruntime serve all who wish for any. A conflict is told before
anything changes: who wants what, and which single pack would have to give way.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import canonicalize_name

from doctor import uv, wishes
from doctor.facts import Facts, numbers
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


def from_file(
    path: Path, comfyui: Path, pack: str = "", above: tuple[Path, ...] = ()
) -> Iterator[Wish]:
    """The wishes of a file and of those it includes (-r), and its bounds (-c), beside it as pip
    reads them. What lies outside of the installation is not opened."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        name = path.relative_to(comfyui).as_posix()
    except (OSError, ValueError):
        return
    for wish in wishes.read(text, name, pack):
        other = Path(os.path.normpath(path.parent / wish.includes))
        if not wish.includes or not other.is_file() or not other.is_relative_to(comfyui):
            yield wish
        elif other not in above and len(above) < DEEP:
            inside = from_file(other, comfyui, pack, (*above, path))
            yield from (replace(w, kind="constraint") if bounds(w, wish) else w for w in inside)


DEEP = 8  # files that include one another
ASIDE = ("address", "editable", "option", "unreadable")


def bounds(inner: Wish, by: Wish) -> bool:
    return by.constrains and inner.kind == "requirement"


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
        wanted = wish.kind in ("requirement", "constraint")
        if wanted and (not family or wish.name == chosen[family]):
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
    """First with numpy where it is; then, where the wishes do not let it stay, where something
    installed was built for numpy 1, below 2; else without a bound."""
    numpy, limits = facts.packages.get("numpy"), [w.text for w in wanted if w.kind == "constraint"]
    lines = [*asked_for(wanted), *kept_whole(facts)]
    fixed = (*holds(facts), *limits)
    tries = [(*fixed, f"numpy=={numpy.version}")] if numpy else []
    for held in (*tries, (*fixed, *below_2(facts))):
        try:
            return uv.resolve(python, lines, held, without=siblings(facts, wanted), offline=offline)
        except uv.Unsatisfiable as why:
            reason = str(why)
    old = "; ".join(f"{one} was built for numpy 1" for one in built_for_1(facts))
    told = f"{reason} ({old})" if old else reason
    raise InConflict(explain(python, facts, wanted, told, offline))


def asked_for(wanted: Iterable[Wish]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(wish.text for wish in wanted if wish.kind == "requirement"))


def below_2(facts: Facts) -> tuple[str, ...]:
    """numpy 1, where something installed cannot do with another, and there is one for this Python
    (none from 3.13 on: a pin to it would be impossible)."""
    possible = numbers(facts.python.version) < (3, 13)
    return ("numpy<2",) if possible and any(built_for_1(facts)) else ()


def built_for_1(facts: Facts) -> Iterator[str]:
    """Installed distributions whose modules do not load on numpy 2, by what is known of them."""
    for row in facts.world.numpy_builds:
        for name in row.packages:
            there = facts.packages.get(name)
            old = not row.first_good or (
                there is not None and numbers(there.version) < numbers(row.first_good)
            )
            if there is not None and old:
                yield f"{name} {there.version}"


def siblings(facts: Facts, wanted: Sequence[Wish]) -> tuple[str, ...]:
    """Distributions that would overwrite the one of their family that is there or chosen: nobody's
    dependency may bring them."""
    chosen = [one_of(names, wanted, facts) for names in FAMILIES.values()]
    of_chosen = (names for names, one in zip(FAMILIES.values(), chosen, strict=True) if one)
    others = (name for names in of_chosen for name in names if name not in chosen)
    return tuple(name for name in others if name not in facts.packages)


def served(line: str, there: Iterable[str]) -> bool:
    """Is an unmet requirement, as uv tells it, met by another of its family: cv2 is cv2."""
    names = set(re.findall(r"`([a-z0-9._-]+)", line.lower()))
    return any(names & set(family) and set(there) & set(family) for family in FAMILIES.values())


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
    rest = [wish for wish in wanted if wish.pack != pack]
    limits = [wish.text for wish in rest if wish.kind == "constraint"]
    held = (*holds(facts), *limits, *below_2(facts))
    without = siblings(facts, rest)
    try:
        lines = [*asked_for(rest), *kept_whole(facts)]
        uv.resolve(python, lines, held, without=without, offline=offline)
    except (uv.Unsatisfiable, uv.ResolverFailed):
        return False
    return True


def told_apart(asked: Sequence[Wish]) -> tuple[Wish, ...]:
    """Lines that are no plain requirement: told, and not followed blindly."""
    return tuple(wish for wish in asked if wish.kind in ASIDE)
