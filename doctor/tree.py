"""Git's own hash of a folder: what holds unpacked files against the commit they claim to be.

The format is git's (Documentation/gitformat-index, "Git Internals - Git Objects"): a blob is
"blob SIZE\\0" and the bytes, a tree is its entries "MODE NAME\\0" and 20 bytes, sorted as if
folder names ended in "/". SHA-1 proves as much as git itself proves, and no more.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

FILE, PROGRAM, LINK, FOLDER, GITLINK = 0o100644, 0o100755, 0o120000, 0o040000, 0o160000
CHUNK = 1 << 20
POINTER_MAX = 1024  # bytes; a pointer of git-lfs is shorter (docs/spec.md)

Listing = Mapping[str, tuple[int, str]]  # "nodes/a.py" -> (mode, id of the blob)


def blob(data: bytes) -> str:
    return object_id("blob", data)


def object_id(kind: str, data: bytes) -> str:
    """The id that git gives to an object of this kind and these bytes."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def blob_of(path: Path, mode: int) -> str:
    """The id of a file on disk; of a link, the text it points to."""
    if path.is_symlink():
        return blob(os.fsencode(os.readlink(path)))
    if mode == LINK:  # a disk without links: git writes the text into a file
        return blob(path.read_bytes())
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def pointer_of(path: Path) -> str:
    """The id of the pointer that git-lfs would commit for a file (docs/spec.md of git-lfs)."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    oid, size = digest.hexdigest(), path.stat().st_size
    version = "version https://git-lfs.github.com/spec/v1"
    return blob(f"{version}\noid sha256:{oid}\nsize {size}\n".encode())


def as_committed(folder: Path, found: Listing, claimed: Listing) -> Listing:
    """A listing in which content stands for its own pointer, where the commit has that pointer."""
    other = {
        name: (mode, pointer_of(folder / name))
        for name, (mode, id) in found.items()
        if mode in (FILE, PROGRAM) and claimed.get(name, (0, id))[1] != id
    }
    same = {name: entry for name, entry in other.items() if entry[1] == claimed[name][1]}
    return {**found, **same}


def mode_of(path: Path) -> int:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return LINK
    return PROGRAM if mode & stat.S_IXUSR else FILE


def files(folder: Path, top: bool = True) -> Iterator[Path]:
    """Every file and link below a folder, links not followed, without its .git."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if top and entry.name == ".git":
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from files(Path(entry.path), top=False)
        else:
            yield Path(entry.path)


def listing(folder: Path, modes: Mapping[str, int] | None = None) -> dict[str, tuple[int, str]]:
    """What git would store of a folder. `modes` wins over the disk, which may not keep them."""
    found = {}
    for path in files(folder):
        name = path.relative_to(folder).as_posix()
        mode = (modes or {}).get(name) or mode_of(path)
        found[name] = (mode, blob_of(path, mode))
    return found


def tree_of(found: Listing) -> str:
    """The tree id of a listing, folders within folders."""
    folders: dict[str, dict[str, tuple[int, str]]] = {}
    entries: dict[bytes, tuple[int, bytes, str]] = {}
    for name, (mode, id) in found.items():
        first, slash, rest = name.partition("/")
        if slash:
            folders.setdefault(first, {})[rest] = (mode, id)
        else:
            entries[os.fsencode(first)] = (mode, os.fsencode(first), id)
    for name, inside in folders.items():
        entries[os.fsencode(name) + b"/"] = (FOLDER, os.fsencode(name), tree_of(inside))
    lines = (
        b"%o %b\0%b" % (mode, name, bytes.fromhex(id))
        for _, (mode, name, id) in sorted(entries.items())
    )
    return object_id("tree", b"".join(lines))


def tree_hash(folder: Path, modes: Mapping[str, int] | None = None) -> str:
    """The id of the tree that git would write for a folder (40 hex digits)."""
    return tree_of(listing(folder, modes))


def differences(claimed: Listing, found: Listing) -> Iterator[str]:
    """What a commit and a folder do not agree about, one sentence for each file."""
    for name in sorted(claimed.keys() | found.keys()):
        if name not in found:
            kind = claimed[name][0]
            yield f"{name} is a submodule" if kind == GITLINK else f"{name} is missing"
        elif name not in claimed:
            yield f"{name} is not in the commit"
        elif claimed[name][1] != found[name][1]:
            yield f"{name} has other bytes"
        elif claimed[name][0] != found[name][0]:
            yield f"{name} has mode {found[name][0]:o}, not {claimed[name][0]:o}"
