"""Room: what a change of packages takes on each disk, reckoned before the first byte is fetched."""

import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from doctor import installer
from doctor.installer import CannotInstall, Wheel
from doctor.manifest import world
from doctor.snapshot import LIBRARY, Scope, recorded


@dataclass(frozen=True)
class Need:
    """So many bytes in a folder, and what for."""

    folder: str
    bytes: int
    what: str  # download, unpacked, held for undo


def needs(
    wheels: Sequence[Wheel], scope: Scope | None, python: str, home: Path, names: Iterable[str]
) -> Iterator[Need]:
    """Of fetching these wheels, unpacking them, and holding what they replace or take out.

    `scope` is None for an interpreter that is still to be made.
    """
    yield Need(str(installer.shelf()), sum(map(to_fetch, wheels)), "download")
    place = scope.root if scope else str(Path(python).parent.parent)
    yield Need(place, sum(map(unpacked, wheels)), "unpacked")
    if scope is not None:
        gone = {*names, *(one.name for one in wheels if one.before)}
        yield Need(str(home), held_bytes(scope, gone), "held for undo")


def to_fetch(one: Wheel) -> int:
    return 0 if one.url.startswith("file:") or installer.at_hand(one) else one.size


def unpacked(one: Wheel) -> int:
    """As its own directory says, where it is at hand; else by what wheels are packed to."""
    path = installer.at_hand(one)
    if path is None:
        (row,) = (limit for limit in world().limits if limit.what == "unpacked")
        return one.size * row.warning // 100
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise CannotInstall(f"{path.name} is damaged: {error}") from error


def held_bytes(scope: Scope, names: Iterable[str]) -> int:
    """Libraries are held by links, and cost nothing."""
    site = Path(scope.root, scope.site)
    total = 0
    for name in recorded(site, names):
        if not LIBRARY.search(name):
            try:
                total += (site / name).stat().st_size
            except OSError:
                continue
    return total


def refuse_short(wanted: Sequence[Need]) -> None:
    """CannotInstall where a disk has not room for all that is wanted of it."""
    (spare,) = (limit.error for limit in world().limits if limit.what == "spare")
    by_disk: dict[int, list[Need]] = {}
    for need in (need for need in wanted if need.bytes):
        by_disk.setdefault(os.stat(existing(need.folder)).st_dev, []).append(need)
    for here in by_disk.values():
        total, free = sum(n.bytes for n in here), shutil.disk_usage(existing(here[0].folder)).free
        if total + spare > free:
            parts = ", ".join(f"{size(n.bytes)} {n.what} in {n.folder}" for n in here)
            raise CannotInstall(
                f"the disk has {size(free)} free, and {size(total + spare)} are needed"
                f" ({parts}, {size(spare)} to spare)"
            )


def existing(folder: str) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (Path(folder), *Path(folder).parents) if path.exists())


def size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
