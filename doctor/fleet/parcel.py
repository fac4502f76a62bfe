"""Parcel: what travels to the nodes as Ray's working folder: the doctor, and what it imports.

The distributions are copied from where the doctor itself runs; a node of another system or
processor cannot use what is compiled in them, and has the doctor installed instead.
"""

import shutil
from collections.abc import Iterator, Set
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from doctor.facts import Refusal

OURS = "comfy-doctor"
MAIN = "from doctor.start import main\n\nraise SystemExit(main())\n"
INSTALLERS = frozenset({"pip", "uv"})  # needed for a treatment, and 45 MB
PICTURES = frozenset({"pillow"})  # needed for the report of a run
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


class NotPacked(Refusal):
    """What should travel is not here."""


def packed(folder: Path, runner: bool, without: Set[str]) -> None:
    """The doctor (with the runner, where it is wanted) and all that it requires, below `folder`.

    `without` names distributions that are left out, in their canonical names.
    """
    for package in ("doctor", "manifests", *(["runner"] if runner else [])):
        shutil.copytree(home(package), folder / package, ignore=IGNORED)
    (folder / "__main__.py").write_text(MAIN, encoding="utf-8")
    for name in required(OURS):
        if name not in without:
            copied(metadata.distribution(name), folder)


def bare(folder: Path) -> None:
    """What a node with a doctor of its own needs: the hand, which starts that one."""
    shutil.copytree(home("doctor"), folder / "doctor", ignore=IGNORED)


def home(package: str) -> Path:
    spec = find_spec(package)  # finds it, and imports nothing of it
    if spec is None or not spec.submodule_search_locations:
        raise NotPacked(f"{package} is not installed beside the doctor.")
    return Path(next(iter(spec.submodule_search_locations)))


def required(name: str) -> Iterator[str]:
    """The distributions that this one requires here, and those that they require, once each."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        try:
            wishes = metadata.distribution(todo.pop()).requires or []
        except metadata.PackageNotFoundError as error:
            raise NotPacked(f"{error} is not installed here, so it cannot travel.") from error
        for wish in map(Requirement, wishes):
            one = canonicalize_name(wish.name)
            if one not in seen and (wish.marker is None or wish.marker.evaluate({"extra": ""})):
                seen.add(one)
                todo.append(one)
                yield one


def copied(distribution: metadata.Distribution, folder: Path) -> None:
    """Its files, but for scripts outside the folder of packages and for bytecode."""
    for file in distribution.files or ():
        outside = ".." in file.parts or "__pycache__" in file.parts
        if not outside and Path(str(file.locate())).is_file():
            into = folder / file
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), into)
