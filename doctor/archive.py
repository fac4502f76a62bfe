"""Archives from strangers: unpacked only when every name, link and size in them is harmless.

Zip, tar and tar.gz, told apart by their first bytes. Everything is judged (entry.py) before the
first byte is written; links are written last, so nothing can be written through one. Whether the
files are those of a commit is told by tree.py.
"""

import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from doctor.entry import Entry, Refused, check_clashes, check_links, check_name, peeled
from doctor.tree import FILE, FOLDER, LINK, PROGRAM, tree_hash

__all__ = ["Limits", "Refused", "Unpacked", "tree_hash", "unpack"]

CHUNK = 1 << 16
LONGEST_LINK = 4096
DAMAGED: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error),
    *(struct.error, UnicodeError, NotImplementedError, ValueError, OverflowError),
)
TAR_KINDS = {
    tarfile.REGTYPE: FILE,
    tarfile.AREGTYPE: FILE,
    tarfile.DIRTYPE: FOLDER,
    tarfile.SYMTYPE: LINK,
}


@dataclass(frozen=True)
class Limits:
    """How much an archive may become. Bytes, but for `files` and `ratio`."""

    files: int = 20_000
    size: int = 4 << 30
    ratio: int = 200  # unpacked to packed; deflate alone can reach 1032
    small: int = 16 << 20  # up to here the ratio is not asked
    headers: int = 32 << 20  # what an archive may make us read before its files

    def room(self, packed: int) -> int:
        return min(self.size, max(self.small, self.ratio * packed))


@dataclass(frozen=True)
class Unpacked:
    path: Path
    modes: dict[str, int]  # name -> git's mode, as the archive says (a disk may not keep it)
    label: str  # the commit that `git archive` writes into its archives: a claim, no proof


class Bounded:
    """A file whose reader (zipfile, tarfile) can be made to read only so much.

    What it skips is bounded by judged(): each size is judged before the next header is looked for.
    """

    def __init__(self, file: IO[bytes], budget: int) -> None:
        self.file, self.budget = file, budget

    def read(self, count: int = -1) -> bytes:
        if count > self.budget:
            raise Refused("headers", "", f"wants {count} bytes read to list its files")
        data = self.file.read(self.budget + 1 if count < 0 else count)
        self.budget -= len(data)
        if self.budget < 0:
            raise Refused("headers", "", "has too long a list of files")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True


class ZipReader:
    """The entries of a zip, and their bytes."""

    def __init__(self, path: Path, limits: Limits, stack: ExitStack) -> None:
        self.file = stack.enter_context(path.open("rb"))
        self.bounded = Bounded(self.file, limits.headers)
        self.zip = stack.enter_context(zipfile.ZipFile(cast(IO[bytes], self.bounded)))
        self.bounded.budget = 1 << 62  # listed; from here on each read is a small one
        self.label = self.zip.comment.decode("ascii", "replace")

    def entries(self) -> Iterator[Entry]:
        for key, info in enumerate(self.zip.infolist()):
            name = info.orig_filename
            if info.flag_bits & 0x1:
                raise Refused("encrypted", name, "is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Refused("method", name, f"is packed by method {info.compress_type}")
            mode = zip_mode(info)
            target = self.target(info) if mode == LINK else ""
            yield Entry(name, mode, 0 if mode in (LINK, FOLDER) else info.file_size, key, target)

    def target(self, info: zipfile.ZipInfo) -> str:
        if info.file_size > LONGEST_LINK:
            raise Refused("link", info.orig_filename, "is a link with too long a target")
        with self.zip.open(info) as file:
            return os.fsdecode(file.read(LONGEST_LINK))

    def open(self, entry: Entry) -> IO[bytes]:
        return self.zip.open(self.zip.infolist()[entry.key])


def zip_mode(info: zipfile.ZipInfo) -> int:
    """Git's mode of an entry: the upper half of its external attributes, where Unix wrote them."""
    unix = info.external_attr >> 16
    kind = stat.S_IFMT(unix)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise Refused("device", info.orig_filename, "is neither file, folder nor link")
    folder = info.orig_filename.endswith("/")
    if (folder != (kind == stat.S_IFDIR) and kind != 0) or (folder and info.file_size):
        raise Refused("kind", info.orig_filename, "says two things about being a folder")
    if folder or kind == stat.S_IFLNK:
        return FOLDER if folder else LINK
    return PROGRAM if unix & stat.S_IXUSR else FILE


class TarReader:
    """The entries of a tar, gzipped or not, and their bytes."""

    def __init__(self, path: Path, limits: Limits, stack: ExitStack) -> None:
        self.file = cast(IO[bytes], stack.enter_context(path.open("rb")))
        if starts(path)[:2] == b"\x1f\x8b":
            self.file = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=self.file)))
        self.headers = limits.headers
        self.label = ""

    def entries(self) -> Iterator[Entry]:
        bounded = cast(IO[bytes], Bounded(self.file, self.headers))
        with tarfile.open(fileobj=bounded, mode="r:", encoding="utf-8") as tar:
            self.label = tar.pax_headers.get("comment", "")
            while info := tar.next():
                yield self.entry(info)
                tar.members = []  # type: ignore[attr-defined]  # nothing is kept of what is judged

    def entry(self, info: tarfile.TarInfo) -> Entry:
        if info.type == tarfile.LNKTYPE:
            raise Refused("hardlink", info.name, "is a hard link")
        if info.type not in TAR_KINDS or info.issparse():
            raise Refused("device", info.name, "is neither file, folder nor symbolic link")
        mode = TAR_KINDS[info.type]
        if mode == FILE:
            mode = PROGRAM if info.mode & stat.S_IXUSR else FILE
            return Entry(info.name, mode, info.size, info.offset_data)
        return Entry(info.name, mode, target=info.linkname if mode == LINK else "")

    def open(self, entry: Entry) -> IO[bytes]:
        self.file.seek(entry.key)
        return self.file


def unpack(archive: Path, into: Path, limits: Limits | None = None) -> Unpacked:
    """Unpack into a folder that is not there yet, without the one top folder around everything.

    Raises Refused(reason, name, why), and leaves nothing behind then.
    """
    limits = limits or Limits()
    into.mkdir(parents=True)
    try:
        with ExitStack() as stack:
            reader = reader_of(archive)(archive, limits, stack)
            entries = judged(reader.entries(), limits, archive.stat().st_size)
            write(reader, entries, into)
    except DAMAGED as why:
        shutil.rmtree(into, ignore_errors=True)
        raise Refused("damaged", "", f"cannot be read: {why}") from why
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise
    return Unpacked(into, {e.name: e.mode for e in entries if e.mode != FOLDER}, reader.label)


def starts(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def reader_of(archive: Path) -> type[ZipReader] | type[TarReader]:
    start = starts(archive)
    if start[:4] in (b"PK\3\4", b"PK\5\6"):
        return ZipReader
    if start[:2] == b"\x1f\x8b" or start[257:262] == b"ustar":
        return TarReader
    what = "a web page" if start.lstrip()[:1] == b"<" else f"bytes that begin with {start[:8]!r}"
    raise Refused("kind", "", f"is no zip and no tar, but {what}")


def judged(entries: Iterable[Entry], limits: Limits, packed: int) -> list[Entry]:
    """The entries to be written, by their names below the root, or Refused."""
    taken: list[Entry] = []
    total = 0
    for count, entry in enumerate(entries, start=1):
        total += entry.size
        if count > limits.files:
            raise Refused("count", "", f"has more than {limits.files} entries")
        if entry.size < 0 or total > limits.size:
            raise Refused("size", entry.name, f"would make it more than {limits.size} bytes")
        if total > limits.room(packed):
            raise Refused("ratio", entry.name, f"grows {packed} bytes to more than {total}")
        taken.append(Entry(check_name(entry.name), entry.mode, entry.size, entry.key, entry.target))
    taken = peeled(taken)
    check_clashes(taken)
    check_links(taken)
    if not any(entry.mode != FOLDER for entry in taken):
        raise Refused("empty", "", "has no files")
    return taken


def write(reader: ZipReader | TarReader, entries: list[Entry], into: Path) -> None:
    """Folders, then files in the order of the archive, then links."""
    for entry in entries:
        path = into / entry.name
        if entry.mode == FOLDER:
            path.mkdir(parents=True, exist_ok=True)
        elif entry.mode != LINK:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(reader.open(entry), entry, path)
    for entry in entries:
        if entry.mode == LINK:
            (into / entry.name).parent.mkdir(parents=True, exist_ok=True)
            write_link(entry.target, into / entry.name)


def write_file(source: IO[bytes], entry: Entry, path: Path) -> None:
    left = entry.size
    with path.open("xb") as file:
        while left and (chunk := source.read(min(CHUNK, left))):
            file.write(chunk)
            left -= len(chunk)
    if left:
        raise Refused("length", entry.name, "is shorter than it says")
    if entry.mode == PROGRAM:
        path.chmod(0o755)


def write_link(target: str, path: Path) -> None:
    """A link; where the system allows none (Windows), a file with its target, as git does."""
    try:
        path.symlink_to(target)
    except (OSError, NotImplementedError):
        if os.name != "nt":
            raise
        path.write_bytes(os.fsencode(target))
