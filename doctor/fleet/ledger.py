"""Ledger: which pictures of a folder are done. Appended line by line, each on the disk before the
next picture counts, so that nothing is lost whoever dies, and nothing is done twice.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from doctor.facts import Refusal
from doctor.receipts import lock
from doctor.words import refused

NAME = "fleet-render.jsonl"
SCHEMA = "comfy-doctor.fleet-ledger/1"
KINDS = frozenset(".png .jpg .jpeg .webp .bmp .gif .tif .tiff".split())


class NotThisFolder(Refusal):
    """The folder holds the work of other settings, or another driver is at work on it."""


@dataclass(frozen=True)
class Picture:
    """A file below the folder of pictures; `name` is its path there, with slashes."""

    name: str
    path: Path
    size: int
    changed: int  # nanoseconds: what is written anew is done anew

    @property
    def output(self) -> str:
        """Below the folder of results: the whole name and .png, so that no two are one."""
        return f"{self.name}.png"


def pictures(folder: Path) -> list[Picture]:
    """Every picture below the folder, by its name."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in KINDS)
    stats = ((path, path.stat()) for path in files if path.is_file())
    return [
        Picture(path.relative_to(folder).as_posix(), path, stat.st_size, stat.st_mtime_ns)
        for path, stat in stats
    ]


class Ledger:
    """The open file of one folder of results, held by one driver."""

    def __init__(self, folder: Path, file: BinaryIO, done: Mapping[str, Mapping[str, Any]]) -> None:
        self.folder, self.file, self.rows = folder, file, dict(done)

    def done(self, picture: Picture) -> bool:
        """Noted for this very file, and its result is there as it was noted."""
        row = self.rows.get(picture.name)
        if row is None or (row["size"], row["changed"]) != (picture.size, picture.changed):
            return False
        out = self.folder / picture.output
        return out.is_file() and out.stat().st_size == row["bytes"]

    def keep(self, picture: Picture, png: bytes, **more: object) -> None:
        """The result under its name, whole, and then its line."""
        write(self.folder / picture.output, png)
        row = {
            "picture": picture.name,
            "size": picture.size,
            "changed": picture.changed,
            "output": picture.output,
            "bytes": len(png),
            "sha256": hashlib.sha256(png).hexdigest(),
        }
        self.rows[picture.name] = row
        append(self.file, row | more)


@contextmanager
def opened(folder: Path, settings: Mapping[str, Any]) -> Iterator[Ledger]:
    """The ledger of a folder of results; NotThisFolder where its settings were others."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a+b") as file:
        try:
            lock(file.fileno())
        except OSError as error:
            raise refused(NotThisFolder, "fleet-ledger-busy", folder=folder) from error
        rows = list(read(file))
        if not rows:
            append(file, {"schema": SCHEMA, "settings": dict(settings)})
        elif rows[0].get("settings") != settings:
            raise refused(NotThisFolder, "fleet-ledger-other", folder=folder)
        yield Ledger(folder, file, {row["picture"]: row for row in rows[1:] if "picture" in row})


def read(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Its lines; a last one that was torn by a kill is cut off."""
    file.seek(0)
    data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        file.truncate(len(whole))
    for line in whole.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def append(file: BinaryIO, row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
    file.flush()
    os.fsync(file.fileno())


def write(path: Path, data: bytes) -> None:
    """On the disk under its name, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(unfinished, 0o644)
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
