"""Step: the few things a fix may do to a machine. Each can name the step that undoes it.

`inverse(kept)` looks, and writes nowhere but into `kept`, a folder of the doctor's own: copies
of what the step will replace. `do()` changes the machine. Nothing is ever deleted that was not
made here: it is moved.
"""

import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from doctor import child, installer, snapshot
from doctor.facts import Refusal
from doctor.installer import Wheel

Progress = Callable[[str], None]


class StepFailed(Refusal):
    """A step could not be done; the sentence says which, why, and what was left."""

    code = 1


@dataclass(frozen=True)
class Write:
    """A text file, whole or not at all."""

    path: str
    text: str
    mode: int = 0o644

    def inverse(self, kept: Path, progress: Progress) -> "Step":
        path = Path(self.path)
        if not path.exists():
            return Remove(self.path)
        return Write(self.path, path.read_text(encoding="utf-8"), stat.S_IMODE(path.stat().st_mode))

    def do(self, progress: Progress) -> None:
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.part")
        half.write_text(self.text, encoding="utf-8")
        half.chmod(self.mode)
        os.replace(half, path)

    def __str__(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True)
class Remove:
    """A file that a Write made."""

    path: str

    def inverse(self, kept: Path, progress: Progress) -> "Step":
        return Write(self.path, Path(self.path).read_text(encoding="utf-8"))

    def do(self, progress: Progress) -> None:
        Path(self.path).unlink(missing_ok=True)

    def __str__(self) -> str:
        return f"remove {self.path}"


@dataclass(frozen=True)
class Move:
    """A file or folder to a place where nothing is, within one file system."""

    source: str
    target: str

    def inverse(self, kept: Path, progress: Progress) -> "Step":
        if os.path.lexists(self.target):
            raise StepFailed(f"{self.target} is there already; {self.source} stays where it is")
        return Move(self.target, self.source)

    def do(self, progress: Progress) -> None:
        source, target = Path(self.source), Path(self.target)
        if not os.path.lexists(source):  # done before, or never: both are where we want to be
            return
        if os.path.lexists(target):
            raise StepFailed(f"{target} is there already; {source} stays where it is")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)  # in one instant: never a copy that a kill could cut in half

    def __str__(self) -> str:
        return f"move {self.source} to {self.target}"


@dataclass(frozen=True)
class Place:
    """The entries of a folder into another, beside what is there; a file is never replaced."""

    source: str  # "" until it was fetched from `url`
    into: str
    url: str = ""  # where it came from, for the eye
    known: str = ""  # a commit to fall back on where the origin cannot say which one is meant

    def inverse(self, kept: Path, progress: Progress) -> "Step":
        taken = [path for path in self.moves() if os.path.lexists(Path(self.into, path))]
        if taken:
            raise StepFailed(f"{Path(self.into, taken[0])} is there already")
        return TakeOut(self.into, self.moves(), str(kept / "taken-out"))

    def moves(self) -> tuple[str, ...]:
        """What can be moved in one piece: entries whose place is free, else what is in them."""
        found, waiting = [], [""]
        while waiting:
            folder = waiting.pop()
            for entry in sorted(os.listdir(Path(self.source, folder))):
                path = os.path.join(folder, entry)
                there, here = Path(self.into, path), Path(self.source, path)
                both = here.is_dir() and not here.is_symlink() and there.is_dir()
                waiting.append(path) if both else found.append(path)
        return tuple(found)

    def do(self, progress: Progress) -> None:
        for path in self.moves():
            Move(str(Path(self.source, path)), str(Path(self.into, path))).do(progress)

    def __str__(self) -> str:
        return f"put {self.url or self.source} into {self.into}"


@dataclass(frozen=True)
class TakeOut:
    """The way back of Place: what it brought goes to a folder of the doctor's own."""

    folder: str
    paths: tuple[str, ...]
    to: str

    def inverse(self, kept: Path, progress: Progress) -> "Step":
        return Place(self.to, self.folder)

    def do(self, progress: Progress) -> None:
        for path in self.paths:
            Move(str(Path(self.folder, path)), str(Path(self.to, path))).do(progress)

    def __str__(self) -> str:
        return f"take {len(self.paths)} entries out of {self.folder}"


@dataclass(frozen=True)
class MakeVenv:
    """A virtual environment, made by the Python that runs the doctor."""

    path: str
    python: str = field(default_factory=lambda: sys.executable)

    def inverse(self, kept: Path, progress: Progress) -> "Step":
        if os.path.lexists(self.path):
            raise StepFailed(f"{self.path} is there already")
        return Move(self.path, str(kept / "taken-out" / Path(self.path).name))

    def do(self, progress: Progress) -> None:
        words = [self.python, "-m", "venv", self.path]
        ended = child.run(words, timeout=600)
        if ended.code:
            said = (ended.out + ended.err).strip().splitlines()
            raise StepFailed(f"no virtual environment at {self.path}: {' '.join(said[-2:])}")

    def __str__(self) -> str:
        return f"make a virtual environment at {self.path}"


@dataclass(frozen=True)
class Packages:
    """Distributions of one interpreter: exact wheels in, names out, and nothing else.

    `wants` are requirements; `holds` are pins that the resolver may not move; `wheels` is what
    they come to, found by installer.resolve() before anything is asked or changed.
    """

    python: str
    wants: tuple[str, ...] = ()
    wishes: tuple[str, ...] = ()  # left out, and said, where no index of that build has them
    removes: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ("",)  # tried in order; "" is what pip's own configuration says
    build: str = ""  # the torch build that has to come of it ("cpu"); another one is refused
    anew: bool = False  # also what is there already: its files are damaged
    wheels: tuple[Wheel, ...] | None = None

    def inverse(self, kept: Path, progress: Progress) -> "Step":
        try:
            scope, site = installer.scope(self.python)
            files = [installer.get(one, progress) for one in self.wheels or ()]
        except installer.CannotInstall as error:
            raise StepFailed(str(error)) from error
        names = (*(one.name for one in self.wheels or ()), *self.removes)
        snapshot.keep(scope, installer.touched(scope, site, names, files), kept, progress)
        return Restore(str(kept))

    def do(self, progress: Progress) -> None:
        try:
            installer.change(self.python, self.wheels or (), self.removes, progress)
        except installer.CannotInstall as error:
            raise StepFailed(str(error)) from error

    @property
    def left_out(self) -> tuple[str, ...]:
        """Wishes that no index of the right build could serve."""
        brought = {wheel.name for wheel in self.wheels or ()}
        return tuple(wish for wish in self.wishes if wish.partition("==")[0] not in brought)

    def __str__(self) -> str:
        if self.wheels is None:
            words = [f"install {', '.join(self.wants)}"] if self.wants else []
        else:
            words = [str(wheel) for wheel in self.wheels]
        return "; ".join([*(f"remove {name}" for name in self.removes), *words]) or "nothing"


@dataclass(frozen=True)
class Restore:
    """An environment as its snapshot holds it."""

    kept: str

    def inverse(self, kept: Path, progress: Progress) -> "Step":
        raise StepFailed("going back is not itself undone: run the fix again instead")

    def do(self, progress: Progress) -> None:
        snapshot.go_back(Path(self.kept))

    def __str__(self) -> str:
        return f"bring back the packages of {self.kept}"


Step = Write | Remove | Move | Place | TakeOut | MakeVenv | Packages | Restore
