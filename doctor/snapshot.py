"""Snapshot: an environment held, so that a change of its packages can be taken back.

What a change can touch is copied; everything else is held by type, mode, size and time, so that
what changed is known exactly. Going back undoes that difference and nothing else: files that
somebody added or edited meanwhile, outside of it, stay as they are. Bytecode caches don't count.
"""

import csv
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from doctor.facts import Refusal

CACHE = "__pycache__"
NOT_HELD = frozenset({CACHE, ".comfy-doctor"})  # the doctor's own notes may lie in a venv
Row = tuple[str, int, int, int, str]  # kind f/d/l, mode, size, mtime in ns, target of a link
Listing = dict[str, Row]  # path below the root -> what lies there


@dataclass(frozen=True)
class Scope:
    """Which folders of an interpreter hold what packages bring. Paths are below `root`."""

    root: str
    folders: tuple[str, ...]  # "" is all of the root, as for a venv

    def places(self) -> Iterator[Path]:
        return (Path(self.root, folder) for folder in self.folders)


@dataclass(frozen=True)
class Change:
    """What differs between two listings, as paths below the root."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    altered: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.altered)


class SnapshotDamaged(Refusal):
    """The copy cannot be trusted, or does not hold what has to be brought back."""

    code = 1


def listing(scope: Scope) -> Listing:
    """Everything in the scope, except bytecode caches. One lstat for each entry."""
    rows: Listing = {}
    for place in scope.places():
        for path, entry in walk(place):
            rows[os.path.relpath(path, scope.root)] = row(entry)
    return rows


def walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    waiting = [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.name in NOT_HELD:
                continue
            yield entry.path, entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)


def row(entry: os.DirEntry[str]) -> Row:
    info = entry.stat(follow_symlinks=False)
    mode = stat.S_IMODE(info.st_mode)
    if entry.is_symlink():
        return ("l", 0, 0, 0, os.readlink(entry.path))
    if entry.is_dir(follow_symlinks=False):
        return ("d", mode, 0, 0, "")
    return ("f", mode, info.st_size, info.st_mtime_ns, "")


def difference(before: Listing, after: Listing) -> Change:
    return Change(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        altered=tuple(sorted(p for p in before.keys() & after.keys() if before[p] != after[p])),
    )


def recorded(site: Path, names: Iterable[str]) -> Iterator[str]:
    """Files that the RECORDs of these distributions (normalised names) name, below the site."""
    wanted = set(names)
    for info in site.glob("*.dist-info"):
        if normal(info.name.rpartition(".")[0].partition("-")[0]) not in wanted:
            continue
        yield from (f"{info.name}/{path.name}" for path in info.iterdir() if path.is_file())
        with (info / "RECORD").open(encoding="utf-8", errors="replace", newline="") as file:
            yield from (line[0] for line in csv.reader(file) if line)


def normal(name: str) -> str:
    """A distribution's name as PEP 503 writes it."""
    return "-".join(filter(None, name.replace("_", "-").replace(".", "-").split("-"))).lower()


def keep(scope: Scope, paths: Iterable[str], into: Path, progress: Callable[[str], None]) -> None:
    """Hold the scope, and copy these paths (below its root) into `into`.

    The listing is written last, under its final name in one rename: a folder without it is no
    snapshot. Raises OSError (a full disk, say) with nothing of the environment touched.
    """
    before = listing(scope)
    wanted = [path for path in sorted(set(paths)) if path in before and before[path][0] == "f"]
    for count, path in enumerate(wanted):
        if count % 1000 == 0:
            progress(f"keeping {count} of {len(wanted)} files")
        copy = into / "files" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        hold(Path(scope.root, path), copy)
        if not is_as_it_was(copy, before[path]):
            raise SnapshotDamaged(f"{path} changed while it was being copied")
    write_whole(
        into / "listing.json", {"root": scope.root, "folders": scope.folders, "rows": before}
    )


LIBRARY = re.compile(r"\.(so|pyd|dll|dylib)(\.[0-9.]+)?$")


def hold(path: Path, copy: Path) -> None:
    """A library by a hard link, which costs nothing: installers replace libraries and never write
    into them, nor do people. Anything else, and across file systems, by a copy."""
    if LIBRARY.search(path.name):
        try:
            os.link(path, copy, follow_symlinks=False)
        except OSError:
            pass
        else:
            return
    shutil.copy2(path, copy)


def is_as_it_was(copy: Path, was: Row) -> bool:
    """Can what is held be trusted? Who wrote through a link is noticed by size and time."""
    info = copy.stat()
    return (info.st_size, info.st_mtime_ns) == (was[2], was[3])


def write_whole(path: Path, data: object) -> None:
    """JSON under its name only once all of it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    with half.open("w", encoding="utf-8") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(half, path)


def flush(path: Path) -> None:
    """On the disk, and not only on its way there, before anything is done that relies on it."""
    if path.is_symlink():
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())


def held(kept: Path) -> tuple[Scope, Listing]:
    try:
        data = json.loads((kept / "listing.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SnapshotDamaged(f"{kept} holds no whole snapshot: {error}") from error
    rows = {path: tuple(cells) for path, cells in data["rows"].items()}
    return Scope(data["root"], tuple(data["folders"])), rows


def settle(kept: Path) -> Change:
    """After the change: find out what it did, and make sure that it can be taken back."""
    scope, before = held(kept)
    change = difference(before, listing(scope))
    refuse_loss(kept, change, before)
    write_whole(kept / "change.json", vars(change))
    return change


def refuse_loss(kept: Path, change: Change, before: Listing) -> None:
    """Whatever was changed must have its copy."""
    for path in (*change.removed, *change.altered):
        copy = kept / "files" / path
        if before[path][0] == "f" and not (copy.is_file() and is_as_it_was(copy, before[path])):
            raise SnapshotDamaged(f"{path} was changed, and there is no copy of it in {kept}")


def go_back(kept: Path) -> Change:
    """Undo the change held in `kept`; where it was cut short, undo what can be seen of it."""
    scope, before = held(kept)
    try:
        said = json.loads((kept / "change.json").read_text(encoding="utf-8"))
        change = Change(*(tuple(said[name]) for name in ("added", "removed", "altered")))
    except FileNotFoundError:
        change = difference(before, listing(scope))
    refuse_loss(kept, change, before)
    root = Path(scope.root)
    for path in reversed(change.added):
        take_away(root / path)
    for path in (*change.removed, *change.altered):
        bring_back(root / path, before[path], kept / "files" / path)
    set_folder_modes(root, before, change)
    return change


def take_away(path: Path) -> None:
    """A file that came with the change; a folder only when no more than caches is left in it."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    elif all(entry.name == CACHE for entry in path.iterdir()):
        shutil.rmtree(path)


def bring_back(path: Path, was: Row, copy: Path) -> None:
    kind, mode, _, _, target = was
    if kind == "d":
        if path.is_symlink() or path.is_file():
            path.unlink()
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    half = path.with_name(f".{path.name}.back")
    half.unlink(missing_ok=True)
    if kind == "l":
        half.symlink_to(target)
    else:
        shutil.copy2(copy, half)
        half.chmod(mode)
    os.replace(half, path)


def set_folder_modes(root: Path, before: Mapping[str, Row], change: Change) -> None:
    for path in (*change.removed, *change.altered):
        kind, mode, *_ = before[path]
        if kind == "d":
            (root / path).chmod(mode)
