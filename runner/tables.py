"""Tables: a safetensors file, its header held against its size, its tensors read one at a time.

A safetensors file is eight bytes of length, a JSON table of names, and the numbers
(huggingface/safetensors, README). Each tensor is converted on its way, with no second copy.
"""

import json
import mmap
import warnings
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from runner.recipe import Refused

Shape = tuple[int, ...]

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
BYTES = {"F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "I16": 2, "U16": 2, "U32": 4, "U64": 8}
MOST_COMMAS = 500_000  # SDXL's header has 13,000; metadata of training a few times that
LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
PIECE = 1 << 15  # numbers made at a time: in the cache, and in one thread of torch
READ = 1 << 17  # numbers read and converted at a time: few enough for the cache, and few calls


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its type, its shape, and bytes [start, stop) of the file."""

    dtype: str
    shape: Shape
    start: int
    stop: int


def beginning(path: Path) -> bytes:
    """The first bytes of a file, by which its kind is told.

    Refused: checkpoint-not-found, checkpoint-is-folder, checkpoint-unreadable.
    """
    if path.is_dir():
        raise Refused("checkpoint-is-folder", f"{path} is a folder; a checkpoint is one file.")
    if path.exists() and not path.is_file():
        raise Refused("checkpoint-unreadable", f"{path} is no file but a pipe or a device.")
    try:
        with path.open("rb") as file:
            return file.read(64)
    except FileNotFoundError:
        raise Refused("checkpoint-not-found", f"There is no checkpoint at {path}.") from None
    except OSError as error:
        raise Refused("checkpoint-unreadable", f"{path}: {error.strerror}.") from None


def header(path: Path) -> dict[str, Entry]:
    """The table of a safetensors file, every number in it held against the file's size.

    Refused: as beginning() does; checkpoint-is-web-page, checkpoint-is-lfs-pointer,
    checkpoint-other-architecture, checkpoint-truncated, checkpoint-damaged.
    """
    start = beginning(path)
    try:
        size = path.stat().st_size
        known_impostor(path, start, size)
        length = int.from_bytes(start[:8], "little")
        if length > LONGEST_HEADER:
            damaged(path, f"its header claims to be {length} bytes long")
        if 8 + length > size:
            truncated(path, size, 8 + length)
        with path.open("rb") as file:
            file.seek(8)
            table = file.read(length)
    except OSError as error:
        raise Refused("checkpoint-unreadable", f"{path}: {error.strerror}.") from None
    return entries_of(path, table, size)


def known_impostor(path: Path, start: bytes, size: int) -> None:
    """Refuse what often stands where a checkpoint should be, by its first bytes."""
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise Refused(
            "checkpoint-is-web-page",
            f"{path} is a web page, not a checkpoint: the download ended at a log-in or error "
            "page. Download it again.",
        )
    if start.startswith(b"version https://git-lfs"):
        raise Refused(
            "checkpoint-is-lfs-pointer",
            f"{path} is a git-LFS pointer of {size} bytes, not the checkpoint itself; "
            "`git lfs pull` in its folder brings it.",
        )
    if start.startswith(b"GGUF"):
        raise Refused("checkpoint-other-architecture", f"{path} is a GGUF file, not safetensors.")
    if len(start) < 10:
        truncated(path, size, 10)


def truncated(path: Path, size: int, needed: int) -> NoReturn:
    raise Refused(
        "checkpoint-truncated",
        f"{path} is cut off: it has {size:,} bytes and needs {needed:,}. Download it again.",
    )


def damaged(path: Path, what: str) -> NoReturn:
    raise Refused("checkpoint-damaged", f"{path} is not a whole safetensors file: {what}.")


def entries_of(path: Path, table: bytes, size: int) -> dict[str, Entry]:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) != len(pairs):
            damaged(path, "its header names something twice")
        return dict(pairs)

    if table.count(b",") > MOST_COMMAS:  # its tables would be many times as large as the file
        damaged(path, f"its header lists more than {MOST_COMMAS:,} things")
    try:
        rows = json.loads(table.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError):
        damaged(path, "its header is not JSON")
    if not isinstance(rows, dict):
        damaged(path, "its header is not a table")
    rows.pop("__metadata__", None)
    if not rows:
        damaged(path, "its header lists no tensor")
    entries = {key: entry(path, key, row, 8 + len(table)) for key, row in rows.items()}
    end = max(one.stop for one in entries.values())
    if end > size:
        truncated(path, size, end)
    return entries


def entry(path: Path, key: str, row: object, base: int) -> Entry:
    """One row of the table; what is not exactly {dtype, shape, data_offsets} is damage."""
    match row:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(stop)]}:
            pass
        case _:
            damaged(path, f"its entry for {key[:80]!r} is malformed")
    if not all(type(side) is int and 0 <= side < 2**40 for side in shape) or len(shape) > 8:
        damaged(path, f"the shape of {key[:80]!r} makes no sense")
    width = width_of(DTYPES[dtype]) if dtype in DTYPES else BYTES.get(dtype, 0)
    if not width:
        damaged(path, f"{key[:80]!r} has the unknown type {dtype[:20]!r}")
    if not 0 <= start <= stop or stop - start != prod(shape) * width:
        damaged(path, f"the size of {key[:80]!r} does not match its shape")
    return Entry(dtype, tuple(shape), base + start, base + stop)


def width_of(dtype: torch.dtype) -> int:
    """Bytes of one number (torch 2.0 has no dtype.itemsize)."""
    return torch.empty((), dtype=dtype).element_size()


def mapped(path: Path) -> Tensor:
    """The bytes of a file where the system has them, read when they are looked at; not to be
    written to. OSError, ValueError where it cannot be mapped.
    """
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that they are not to be written to
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return torch.frombuffer(memory, dtype=torch.uint8)


def lent(file: Tensor, entry: Entry) -> Tensor | None:
    """One tensor of a mapped file, without a copy; None where it is not whole, or lies between two
    numbers.
    """
    dtype = DTYPES[entry.dtype]
    if entry.start % width_of(dtype) or entry.stop > len(file):
        return None
    return file[entry.start : entry.stop].view(dtype).view(entry.shape)


def read_tensor(path: Path, entry: Entry, out: Tensor) -> None:
    """Read one tensor from a file into `out`, converting its numbers piece by piece."""
    dtype, flat = DTYPES[entry.dtype], out.view(-1)
    piece = torch.empty(min(READ, max(1, flat.numel())), dtype=dtype)
    with path.open("rb", buffering=0) as file:
        file.seek(entry.start)
        for at in range(0, flat.numel(), READ):
            part = piece[: min(READ, flat.numel() - at)]
            view = memoryview(part.view(torch.uint8).numpy())  # type: ignore[arg-type]
            while view:
                got = file.readinto(view)
                if not got:
                    truncated(path, entry.start, entry.stop)
                view = view[got:]
            flat[at : at + len(part)].copy_(part)
