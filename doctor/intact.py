"""Intact: is a pack what its commit, its registry entry or the doctor's own note says it is."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from doctor import git
from doctor.examine import text
from doctor.mirrors import Unreachable
from doctor.packs import Note, Pack
from doctor.tree import GITLINK, Listing, blob, blob_of, files, mode_of, pointer_of

LONGEST = 64 << 20  # bytes of a text whose line ends are asked about
OURS = (".tracking",)  # what installing adds to a pack's own files


@dataclass(frozen=True)
class Integrity:
    """How a pack differs from what it came as. `why` says why nobody could tell."""

    edited: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()  # files of the user, or of the pack at work
    why: str = ""

    @property
    def state(self) -> str:
        if self.why:
            return "not judged"
        return "edited" if self.edited or self.missing else "intact"


def verify(pack: Pack, note: Note | None, environ: Mapping[str, str]) -> Integrity:
    """Every file by its own hash, where somebody knows it. Changes nothing."""
    if pack.kind == "git":
        return against_commit(Path(pack.path), environ)
    if note and note.files and pack.kind != "file":
        claimed = {name: (int(mode), id) for name, (mode, id) in note.files.items()}
        return compared(Path(pack.path), claimed)
    if pack.kind == "registry":
        return by_names(Path(pack.path))
    return Integrity(why="nobody noted which files it came with")


def against_commit(folder: Path, environ: Mapping[str, str]) -> Integrity:
    program = git.find(environ, stall=20)
    if program is None:
        return Integrity(why="git is not there to say what its commit holds")
    url = folder.as_posix()
    try:
        safe = ("-c", f"safe.directory={url}")
        out = program(
            *safe, "ls-tree", "-r", "-z", "--full-tree", "HEAD", url=url, seconds=60, cwd=folder
        )
    except Unreachable as error:
        return Integrity(why=error.why)
    return compared(folder, git.listed(out))


def compared(folder: Path, claimed: Listing) -> Integrity:
    found = {path.relative_to(folder).as_posix(): path for path in files(folder)}
    submodules = tuple(f"{name}/" for name, (mode, _) in claimed.items() if mode == GITLINK)
    edited = [
        name
        for name, (mode, id) in claimed.items()
        if name in found and not same(found[name], mode, id)
    ]
    missing = [n for n, (mode, _) in claimed.items() if mode != GITLINK and n not in found]
    extra = [
        name
        for name in found
        if name not in claimed
        and not name.startswith(submodules)
        and name not in OURS
        and "__pycache__" not in name.split("/")
    ]
    return Integrity(tuple(edited), tuple(missing), tuple(extra))


def same(path: Path, mode: int, id: str) -> bool:
    """By its bytes; Windows' line ends, which git itself may have written, count as the same, and
    so does what the commit's pointer of git-lfs stands for."""
    if blob_of(path, mode) == id:
        return os.name == "nt" or mode_of(path) == mode
    if path.is_symlink():
        return False
    text = path.read_bytes() if path.stat().st_size < LONGEST else b""
    return blob(text.replace(b"\r\n", b"\n")) == id or pointer_of(path) == id


def by_names(folder: Path) -> Integrity:
    """The registry's list has names and no hashes: only what is missing can be told."""
    claimed = {line.strip() for line in text(folder / ".tracking").splitlines() if line.strip()}
    found = {path.relative_to(folder).as_posix() for path in files(folder)}
    missing = sorted(n for n in claimed if not (folder / n).exists())
    extra = (n for n in found - claimed if n not in OURS and "__pycache__" not in n.split("/"))
    if missing:
        return Integrity(missing=tuple(missing), extra=tuple(sorted(extra)))
    return Integrity(extra=tuple(sorted(extra)), why="its list has names and no hashes")
