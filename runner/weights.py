"""Weights: named tensors in a file of either kind, asked for one at a time."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from pathlib import Path

from torch import Tensor

from runner import pickled, tables
from runner.recipe import Refused
from runner.tables import Shape


@dataclass(frozen=True)
class Weights:
    """A file's tensors: name -> shape; fill(name, out) writes one, converted, into `out`.

    `out` may have another shape of as many numbers. lend(name): the tensor itself, as the file has
    it and not to be written to, or None where that cannot be. steady(): Refused, as
    checkpoint-changed, where the file is no longer what it was when it first lent one.
    strange: name -> type, of those whose type is not read here.
    """

    path: Path
    shapes: Mapping[str, Shape]
    strange: Mapping[str, str]
    fill: Callable[[str, Tensor], None]
    lend: Callable[[str], Tensor | None]
    steady: Callable[[], None]

    def readable(self, names: Iterable[str]) -> None:
        """Refused: checkpoint-dtype, if one of these is stored in a type that is not read here."""
        for name in names:
            if name in self.strange:
                what = f"{name} as {self.strange[name]}, which is not read here yet"
                raise Refused("checkpoint-dtype", f"{self.path} stores {what}.")


class Watched:
    """A file that lends: what it was, and whether it still is. Another of its name is another."""

    def __init__(self, path: Path):
        self.path = path
        self.file: BufferedReader | None = None
        self.was: tuple[int, int] | None = None

    def begin(self) -> None:
        if self.file is None:
            self.file = self.path.open("rb")
            self.was = self.state()

    def state(self) -> tuple[int, int]:
        assert self.file is not None
        about = os.fstat(self.file.fileno())
        return about.st_size, about.st_mtime_ns

    def steady(self) -> None:
        if self.file is not None and self.state() != self.was:
            raise Refused(
                "checkpoint-changed",
                f"{self.path} was written to while it was rendered with: the picture would be of "
                "neither. Render again when nothing writes to it.",
            )


def opened(path: Path) -> Weights:
    """A safetensors file, or a pickle that torch can load without running code in it.

    Refused: checkpoint-not-found, checkpoint-is-folder, checkpoint-is-web-page,
    checkpoint-is-lfs-pointer, checkpoint-truncated, checkpoint-damaged, checkpoint-unreadable,
    checkpoint-unsafe, torch-too-old.
    """
    if pickled.looks(tables.beginning(path)):
        return of_pickle(path)
    entries = tables.header(path)
    shapes = {name: entry.shape for name, entry in entries.items()}
    types = {name: entry.dtype for name, entry in entries.items()}
    strange = {name: type for name, type in types.items() if type not in tables.DTYPES}

    def fill(name: str, out: Tensor) -> None:
        tables.read_tensor(path, entries[name], out)

    watched = Watched(path)

    @lru_cache(1)
    def whole() -> Tensor:
        watched.begin()
        return tables.mapped(path)

    def lend(name: str) -> Tensor | None:
        with suppress(OSError, ValueError):
            return tables.lent(whole(), entries[name])
        return None

    return Weights(path, shapes, strange, fill, lend, watched.steady)


def of_pickle(path: Path) -> Weights:
    tensors = pickled.load(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    types = {name: str(tensor.dtype) for name, tensor in tensors.items()}
    known = {str(dtype) for dtype in tables.DTYPES.values()}
    strange = {name: type for name, type in types.items() if type not in known}

    def fill(name: str, out: Tensor) -> None:
        out.copy_(tensors[name].reshape(out.shape))

    watched = Watched(path)

    def lend(name: str) -> Tensor:
        watched.begin()
        return tensors[name]

    return Weights(path, shapes, strange, fill, lend, watched.steady)
