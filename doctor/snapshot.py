"""Snapshot: an environment held, so that a change of its packages can be taken back.

What a change can touch is copied; everything else is held by type, mode, size, time and inode, so
that what changed is known exactly. Going back undoes that difference and nothing else: files that
somebody added or edited meanwhile, outside of it, stay as they are. Bytecode caches don't count.
"""

import base64
import csv
import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from doctor.facts import Refusal

CACHE = "__pycache__"
NOT_HELD = frozenset({CACHE, ".comfy-doctor"})  # the doctor's own notes may lie in a venv
Row = tuple[str, int, int, int, str, int]  # kind f/d/l, mode, size, mtime in ns, target, inode
Listing = dict[str, Row]  # path below the root -> what lies there


@dataclass(frozen=True)
class Scope:
    """Which folders of an interpreter hold what packages bring. Paths are below `root`."""

    root: str
    folders: tuple[str, ...]  # "" is all of the root, as for a venv
    site: str = ""  # the folder of these that packages go to

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
    """The copy cannot be trusted, or does not hold what has to be brought back: `lost`."""

    code = 1

    def __init__(self, why: str, lost: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.lost = lost


def listing(scope: Scope) -> Listing:
    """Everything in the scope, except bytecode caches. One lstat for each entry."""
    rows: Listing = {}
    start = len(os.path.join(scope.root, ""))
    for place in scope.places():
        for path, entry in walk(place):
            rows[path[start:]] = row(entry)
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
        return ("l", 0, 0, 0, os.readlink(entry.path), 0)
    if entry.is_dir(follow_symlinks=False):
        return ("d", mode, 0, 0, "", 0)
    inode = entry.inode() if sys.platform != "win32" else 0  # costs a file handle there
    return ("f", mode, info.st_size, info.st_mtime_ns, "", inode)


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

    The listing is written last, under its final name in one rename, once the copies are on the
    disk: a folder without it is no snapshot. Raises OSError (a full disk, say) with nothing of
    the environment touched.
    """
    before, touched = listing(scope), sorted(set(paths))
    wanted = [path for path in touched if path in before and before[path][0] == "f"]
    into.mkdir(parents=True, exist_ok=True)
    share, made = bool(wanted) and cloned(Path(scope.root, wanted[0]), into / "clone"), ""
    for count, path in enumerate(wanted):
        if count % 500 == 0:
            progress(f"keeping {count} of {len(wanted)} files")
        copy = into / "files" / path
        if os.path.dirname(path) != made:
            copy.parent.mkdir(parents=True, exist_ok=True)
            made = os.path.dirname(path)
        hold(Path(scope.root, path), copy, share)
        if not is_as_it_was(copy, before[path]):
            raise SnapshotDamaged(f"{path} changed while it was being copied")
    (into / "clone").unlink(missing_ok=True)
    flush(into)
    tops = sorted({top(path, scope.site) for path in touched})
    write_whole(into / "listing.json", {**vars(scope), "tops": tops, "rows": before})


def top(path: str, site: str) -> str:
    """The entry of the site folder that a path lies in; outside of it, the path itself."""
    above = os.path.join(site, "")
    if not path.startswith(above):
        return path
    return above + path[len(above) :].partition(os.sep)[0]


LIBRARY = re.compile(r"\.(so|pyd|dll|dylib)(\.[0-9.]+)?$")


def hold(path: Path, copy: Path, share: bool) -> None:
    """By a clone, where the file system has them. Else a library by a hard link, which costs
    nothing: installers replace libraries and never write into them, and who does is noticed by
    size and time. Anything else, and across file systems, by a copy."""
    if share and cloned(path, copy):
        return
    if LIBRARY.search(path.name):
        try:
            os.link(path, copy, follow_symlinks=False)
        except OSError:
            pass
        else:
            return
    shutil.copy2(path, copy)


FICLONE = 0x40049409  # ioctl_ficlone(2): both files share their blocks until one is written


def cloned(path: Path, copy: Path) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        with path.open("rb") as source, copy.open("wb") as target:
            fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
    except OSError:
        copy.unlink(missing_ok=True)
        return False
    shutil.copystat(path, copy)
    return True


def is_as_it_was(copy: Path, was: Row) -> bool:
    """Can what is held be trusted? Who wrote through a link is noticed by size and time."""
    info = copy.stat()
    return (info.st_size, info.st_mtime_ns) == (was[2], was[3])


def flush(folder: Path) -> None:
    """Everything on this folder's file system on the disk, and not only on its way there, before
    anything is done that relies on it (syncfs(2); elsewhere sync, or file by file)."""
    if sys.platform == "linux":
        import ctypes

        descriptor = os.open(folder, os.O_RDONLY)
        try:
            ctypes.CDLL(None).syncfs(descriptor)
        finally:
            os.close(descriptor)
    elif hasattr(os, "sync"):
        os.sync()
    else:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with path.open("r+b") as file:
                    os.fsync(file.fileno())


def write_whole(path: Path, data: object) -> None:
    """JSON under its name only once all of it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    with half.open("w", encoding="utf-8") as file:
        file.write(json.dumps(data))  # at once: dump() takes ten times as long
        file.flush()
        os.fsync(file.fileno())
    os.replace(half, path)


@dataclass(frozen=True)
class Held:
    """A snapshot: what there was, and which entries of the site folder the change was to touch."""

    scope: Scope
    rows: Listing
    tops: frozenset[str]

    def ours(self, path: str) -> bool:
        """Could the change have touched this: a package of it, a script, an installer's leftover.
        Anything else that differs is somebody else's doing."""
        first = top(path, self.scope.site)
        script = os.path.basename(os.path.dirname(path)) in ("bin", "Scripts")
        above = any(one.startswith(path + os.sep) for one in self.tops)
        return first in self.tops or os.path.basename(first).startswith("~") or script or above


def held(kept: Path) -> Held:
    try:
        data = json.loads((kept / "listing.json").read_text(encoding="utf-8"))
        rows = {path: tuple(cells) for path, cells in data["rows"].items()}
        scope = Scope(data["root"], tuple(data["folders"]), data["site"])
        return Held(scope, rows, frozenset(data["tops"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SnapshotDamaged(f"{kept} holds no whole snapshot: {error}") from error


def settle(kept: Path) -> Change:
    """After the change: find out what it did, and make sure that it can be taken back."""
    was = held(kept)
    change = difference(was.rows, listing(was.scope))
    same = [p for p in lost(kept, change, was.rows) if is_what_its_record_says(was, p)]
    change = replace(change, altered=tuple(p for p in change.altered if p not in same))
    refuse_loss(kept, change, was.rows)
    flush(Path(was.scope.root))
    write_whole(kept / "change.json", vars(change))
    return change


def lost(kept: Path, change: Change, before: Listing) -> tuple[str, ...]:
    """What was changed and has no good copy."""
    files = (path for path in (*change.removed, *change.altered) if before[path][0] == "f")
    copies = ((path, kept / "files" / path) for path in files)
    return tuple(p for p, copy in copies if not (copy.is_file() and is_as_it_was(copy, before[p])))


def refuse_loss(kept: Path, change: Change, before: Listing) -> None:
    gone = lost(kept, change, before)
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise SnapshotDamaged(
            f"{gone[0]}{more} was changed, and there is no copy of it in {kept}", gone
        )


def is_what_its_record_says(was: Held, path: str) -> bool:
    """A file that only has another time or inode, as after a restored backup, did not change."""
    site = Path(was.scope.root, was.scope.site)
    name = os.path.relpath(path, was.scope.site or ".").replace(os.sep, "/")
    try:
        data = Path(was.scope.root, path).read_bytes()
    except OSError:
        return False
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    for record in site.glob("*.dist-info/RECORD"):
        with record.open(encoding="utf-8", errors="replace", newline="") as file:
            if any(line[:2] == [name, f"sha256={digest}"] for line in csv.reader(file)):
                return True
    return False


def go_back(kept: Path, whatever: bool = False) -> tuple[str, ...]:
    """Undo the change held in `kept`; where it was cut short, what can be seen of it.

    Raises SnapshotDamaged, with nothing done, where a copy that it takes is gone or damaged; or
    with `whatever`, brings back all the rest and returns the paths that stay lost.
    """
    was = held(kept)
    change = said(kept) or seen(was)
    gone = lost(kept, change, was.rows)
    if not whatever:
        refuse_loss(kept, change, was.rows)
    root = Path(was.scope.root)
    for path in reversed(change.added):
        take_away(root / path)
    for path in (*change.removed, *change.altered):
        if path not in gone:
            bring_back(root / path, was.rows[path], kept / "files" / path)
    set_folder_modes(root, was.rows, change)
    flush(root)
    return gone


def said(kept: Path) -> Change | None:
    """The change as it was written down when it was whole."""
    try:
        told = json.loads((kept / "change.json").read_text(encoding="utf-8"))
        return Change(*(tuple(told[name]) for name in ("added", "removed", "altered")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SnapshotDamaged(f"{kept} does not tell what was changed: {error}") from error


def seen(was: Held) -> Change:
    """What differs now, as far as the change that was cut short can have done it."""
    found = difference(was.rows, listing(was.scope))
    sides = (found.added, found.removed, found.altered)
    return Change(*(tuple(path for path in side if was.ours(path)) for side in sides))


def take_away(path: Path) -> None:
    """A file that came with the change; a folder only when no more than caches is left in it."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    elif all(entry.name == CACHE for entry in path.iterdir()):
        shutil.rmtree(path)


def bring_back(path: Path, was: Row, copy: Path) -> None:
    kind, mode, _, _, target, _ = was
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
