"""Step: the few things a fix may do to a machine. Each can name the step that undoes it.

`inverse(kept)` looks, and writes nowhere but into `kept`, a folder of the doctor's own: copies
of what the step will replace. `do()` changes the machine. Nothing is ever deleted that was not
made here: it is moved.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from doctor import child, flags, installer, room, snapshot, startscript
from doctor.facts import Flag, Refusal
from doctor.flags import Kept, Script
from doctor.installer import Wheel
from doctor.manifest import world
from doctor.room import Need
from doctor.snapshot import Scope

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
        return held((self.path,), kept)

    def do(self, progress: Progress) -> None:
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.part")
        half.write_text(self.text, encoding="utf-8", newline="")
        half.chmod(self.mode)
        os.replace(half, path)

    def __str__(self) -> str:
        return f"write {self.path}"


def held(paths: tuple[str, ...], kept: Path) -> "PutBack":
    """Copies of these files, of a link the link itself; where nothing is, that is noted."""
    kept.mkdir(parents=True, exist_ok=True)
    there = [path for path in paths if os.path.lexists(path)]
    for path in there:
        shutil.copy2(path, kept / str(paths.index(path)), follow_symlinks=False)
    absent = tuple(path for path in paths if path not in there)
    return PutBack(paths, str(kept), absent, missing_above(*absent))


def missing_above(*paths: str) -> tuple[str, ...]:
    """The folders that are still to be made for these paths, the innermost first."""
    above = {str(folder) for path in paths for folder in Path(path).parents if not folder.exists()}
    return tuple(sorted(above, key=len, reverse=True))


def remove_empty(folders: tuple[str, ...]) -> None:
    """Those that were made on the way and hold nothing any more."""
    for folder in folders:
        with suppress(OSError):
            os.rmdir(folder)


@dataclass(frozen=True)
class PutBack:
    """The way back of Write: the files as they were, byte for byte, or none where none was."""

    paths: tuple[str, ...]
    kept: str
    absent: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()  # that the way there made

    def inverse(self, kept: Path, progress: Progress) -> "Step":
        return held(self.paths, kept)

    def do(self, progress: Progress) -> None:
        copies = {p: Path(self.kept, str(n)) for n, p in enumerate(self.paths)}
        gone = [path for path, copy in copies.items() if path not in self.absent]
        gone = [path for path in gone if not os.path.lexists(copies[path])]
        if gone:
            raise snapshot.SnapshotDamaged(f"the copy of {gone[0]} is gone", tuple(gone))
        for name, copy in copies.items():
            path, half = Path(name), Path(name).with_name(f".{Path(name).name}.back")
            if name in self.absent:
                path.unlink(missing_ok=True)
                continue
            half.unlink(missing_ok=True)
            shutil.copy2(copy, half, follow_symlinks=False)
            os.replace(half, path)
        remove_empty(self.folders)

    def __str__(self) -> str:
        return f"put back {', '.join(self.paths)}"


@dataclass(frozen=True)
class KeepFlags:
    """Launch flags of one installation kept or withdrawn; its start scripts follow."""

    home: str  # the doctor's own folder in that of ComfyUI
    keep: dict[str, Flag] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    scripts: dict[str, Script] = field(default_factory=dict)  # to be written from now on

    def now(self) -> Kept:
        try:
            return flags.read(Path(self.home, flags.NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return Kept()

    def then(self) -> Kept:
        was = self.now()
        left = {flag: kept for flag, kept in was.flags.items() if flag not in self.drop}
        today = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        new = {flag: replace(kept, when=kept.when or today) for flag, kept in self.keep.items()}
        return Kept({**left, **new}, {**was.scripts, **self.scripts})

    def inverse(self, kept: Path, progress: Progress) -> "Step":
        scripts = (str(path) for path in map(self.place, self.then().scripts))
        return held((str(Path(self.home, flags.NAME)), *scripts), kept)

    def place(self, script: str) -> Path:
        """Where a script lies: named by a path, or by its name beside main.py."""
        return Path(self.home).parent / script

    def do(self, progress: Progress) -> None:
        will = self.then()
        for name, script in will.scripts.items():
            beside = flags.applied(will.flags, script.given, world())
            path, folder = str(self.place(name)), str(Path(self.home).parent)
            said = startscript.text(path, folder, script.command, beside, script.given)
            if name in self.scripts or os.path.exists(path):  # one thrown away stays away
                Write(path, said, 0o755).do(progress)
        Write(str(Path(self.home, flags.NAME)), flags.written(will)).do(progress)

    def __str__(self) -> str:
        words = [f"start with {' '.join(flags.words({f: k}))}" for f, k in self.keep.items()]
        words += [f"no longer start with {flag}" for flag in self.drop]
        return "; ".join([*words, *(f"write {name}" for name in self.scripts)])


@dataclass(frozen=True)
class Move:
    """A file or folder to a place where nothing is, within one file system."""

    source: str
    target: str
    folders: tuple[str, ...] = ()  # made for the source on its way there: to go when empty
    what: str = ""  # what it is, for the eye, where its present place says nothing

    def inverse(self, kept: Path, progress: Progress) -> "Step":
        if os.path.lexists(self.target):
            raise StepFailed(f"{self.target} is there already; {self.source} stays where it is")
        return Move(self.target, self.source, missing_above(self.target))

    def do(self, progress: Progress) -> None:
        source, target = Path(self.source), Path(self.target)
        if not os.path.lexists(source):  # done before, or never: both are where we want to be
            remove_empty(self.folders)
            return
        if os.path.lexists(target):
            raise StepFailed(f"{target} is there already; {source} stays where it is")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)  # in one instant: never a copy that a kill could cut in half
        remove_empty(self.folders)

    def __str__(self) -> str:
        if self.what:
            return f"put {self.what} at {self.target}"
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
        made = missing_above(*(str(Path(self.into, path)) for path in self.moves()))
        return TakeOut(self.into, self.moves(), str(kept / "taken-out"), made)

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
    made: tuple[str, ...] = ()  # folders that Place made

    def inverse(self, kept: Path, progress: Progress) -> "Step":
        return Place(self.to, self.folder)

    def do(self, progress: Progress) -> None:
        for path in self.paths:
            Move(str(Path(self.folder, path)), str(Path(self.to, path))).do(progress)
        remove_empty(self.made)

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
            said = ended.out + ended.err
            told = re.search(r"^\s*(apt(?:-get)? install \S+)", said, re.MULTILINE)
            why = f"its owner has to type: {told[1]}" if told else " ".join(said.split()[-30:])
            raise StepFailed(f"{self.python} makes no virtual environment at {self.path}: {why}")

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
            scope = installer.scope(self.python)
            files = [installer.get(one, progress) for one in self.wheels or ()]
            room.refuse_short(tuple(self.needs(scope, kept)))
        except installer.CannotInstall as error:
            raise StepFailed(str(error)) from error
        names = (*(one.name for one in self.wheels or ()), *self.removes)
        snapshot.keep(scope, installer.touched(scope, names, files), kept, progress)
        return Restore(str(kept))

    def needs(self, scope: Scope | None, home: Path) -> Iterator[Need]:
        """The room it takes, as far as the wheels are known."""
        return room.needs(self.wheels or (), scope, self.python, home, self.removes)

    def do(self, progress: Progress) -> None:
        try:
            installer.change(self.python, self.wheels or (), self.removes, progress)
        except installer.CannotInstall as error:
            raise StepFailed(str(error)) from error

    @property
    def idle(self) -> bool:
        """Is everything as it is wanted already."""
        return self.wheels == () and not self.removes

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

    def do_what_can_be_done(self) -> tuple[str, ...]:
        """As far as the snapshot goes; the paths that stay lost."""
        return snapshot.go_back(Path(self.kept), whatever=True)

    def __str__(self) -> str:
        return f"bring back the packages of {self.kept}"


Step = Write | PutBack | KeepFlags | Move | Place | TakeOut | MakeVenv | Packages | Restore
