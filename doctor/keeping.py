"""Keeping: is what ComfyUI and git keep in the folder sound: clones, and the database.

Read without git and without a write: a doctor that locks what it looks at is no doctor.
"""

import os
import re
import sqlite3
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

OBJECT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?$")
PENDING_BYTE = 0x40000000  # sqlite.org/fileformat2.html: where its locks lie in the file
UNFINISHED = {
    "MERGE_HEAD": "a merge was begun and not ended",
    "rebase-merge": "a rebase was begun and not ended",
    "rebase-apply": "a rebase was begun and not ended",
    "index.lock": "index.lock is there: git was killed, or works now",
}


def clones(folders: Sequence[Path], home: Path) -> Iterator[str]:
    """What is wrong with each clone among the folders; those without .git are none."""
    for folder in folders:
        git = folder / ".git"
        if git.is_dir():
            wrong = amiss(git)
            if wrong:
                yield f"{folder.relative_to(home) if folder != home else folder}: {wrong}"


def amiss(git: Path) -> str:
    """Why git could not work with this clone; "" where nothing is seen."""
    try:
        head = (git / "HEAD").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ".git/HEAD is absent or unreadable"
    begun = next((why for name, why in UNFINISHED.items() if (git / name).exists()), "")
    if begun:
        return begun
    if not head.startswith("ref: "):
        return "" if OBJECT.match(head) else ".git/HEAD names no commit"
    if not (git / "objects").is_dir():
        return ".git/objects is absent"
    return "" if resolved(git, head.removeprefix("ref: ")) else f"{head[5:]} names no commit"


def resolved(git: Path, ref: str) -> bool:
    """Is there a commit behind the branch? A `reftable` clone keeps its branches otherwise."""
    try:
        return bool(OBJECT.match((git / ref).read_text(encoding="ascii").strip()))
    except (OSError, UnicodeDecodeError):
        pass
    try:
        packed = (git / "packed-refs").read_text(encoding="utf-8", errors="replace")
    except OSError:
        packed = ""
    return f" {ref}\n" in packed or (git / "reftable").is_dir()


def foreign(folders: Sequence[Path]) -> tuple[str, ...]:
    """Clones whose owner is another user and whom git was not told to trust (git-config(1),
    safe.directory). Windows has no such owners to ask for."""
    if not hasattr(os, "geteuid"):
        return ()
    users = {str(os.geteuid()), os.environ.get("SUDO_UID", "") if os.geteuid() == 0 else ""}
    strange = [f for f in folders if (f / ".git").is_dir() and owner(f / ".git") not in users]
    if not strange:
        return ()
    trusted = safe_directories()
    return tuple(str(f) for f in strange if str(f) not in trusted and not trusts_above(f, trusted))


def owner(path: Path) -> str:
    try:
        return str(path.stat().st_uid)
    except OSError:
        return ""


def safe_directories() -> frozenset[str]:
    words = ["git", "config", "--global", "--get-all", "safe.directory"]
    try:
        run = subprocess.run(words, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    return frozenset(run.stdout.split("\n"))


def trusts_above(folder: Path, trusted: frozenset[str]) -> bool:
    """Is everything trusted ("*"), or everything below a folder above ("/srv/*")?"""
    return any(f"{above}/*".replace("//", "/") in trusted for above in folder.parents) or (
        "*" in trusted
    )


def database(path: Path) -> str:
    """Why ComfyUI could not use its database; "" where it can, or will make one."""
    if not path.exists():
        return ""
    try:
        with path.open("rb") as file:
            first = file.read(16)
    except OSError as error:
        return f"{path}: {error.strerror}"
    if first and first != b"SQLite format 3\0":
        return f"{path}: no SQLite database, it begins with {first!r}"
    if not os.access(path, os.W_OK):
        return f"{path}: no right to write"
    return broken(path) if first and not held(path) else ""


def broken(path: Path) -> str:
    """The complaint of SQLite itself about a file too short or of pages out of order."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(32)
    page = int.from_bytes(head[16:18], "big") or 1
    page = 65536 if page == 1 else page
    pages = int.from_bytes(head[28:32], "big")
    if pages and size < page * pages:
        return f"{path}: {size} of {page * pages} bytes"
    try:
        with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True) as base:
            base.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.Error as error:
        return f"{path}: {error}"
    finally:
        base.close()
    return ""


def held(path: Path) -> str:
    """The process that holds the database for writing now ("pid 4711"), by its POSIX lock."""
    try:
        import fcntl
    except ImportError:  # Windows: only trying would tell
        return ""
    try:
        with path.open("rb") as file:
            ask = struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, PENDING_BYTE, 512, 0)
            kind, _, _, _, pid = struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, ask))
    except (OSError, struct.error):
        return ""
    return "" if kind == fcntl.F_UNLCK else f"pid {pid}"
