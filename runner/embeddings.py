"""Embeddings: words of one's own, as vectors in a file (textual inversion, Gal et al. 2022).

Found and read as ComfyUI does (0.3.64, sd1_clip.py: load_embed); what it would skip over with a
warning because the file is broken is refused here.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from runner import pickled, tables
from runner.recipe import Refused

SUFFIXES = ("", ".safetensors", ".pt", ".bin")
LARGEST = 64 * 2**20  # bytes
BUNDLES = ("bundle_emb.", (".string_to_param.*", ".{key}"))  # how a LoRA file carries them

Known = Callable[[str], Sequence[Tensor] | None]  # a name -> its vectors, or None


@dataclass(frozen=True)
class Shelf:
    """The folders where `embedding:NAME` looks, each with all that is below it."""

    folders: tuple[Path, ...] = ()

    def find(self, name: str) -> Path | None:
        """The file of a name, its ending optional; nothing outside the folders is found."""
        for folder in self.everywhere():
            path = Path(os.path.abspath(folder / name)) if "\0" not in name else folder
            if os.path.abspath(folder) not in map(str, path.parents):
                continue
            for suffix in SUFFIXES:
                if Path(f"{path}{suffix}").is_file():
                    return Path(f"{path}{suffix}")
        return None

    def everywhere(self) -> Iterator[Path]:
        for root in self.folders:
            for folder, below, _ in os.walk(root, followlinks=True):
                below.sort()
                yield Path(folder)

    def known(self, key: str, width: int) -> Known:
        """Names looked up for one text encoder: its key ("clip_l", "clip_g", "clip_h"), D."""

        def vectors_of(name: str) -> Sequence[Tensor] | None:
            path = self.find(name)
            return None if path is None else list(vectors(path, key, width))

        return vectors_of


NOTHING = Shelf()


def vectors(path: Path, key: str, width: int) -> Tensor:
    """The vectors (n, D) in an embedding's file that are meant for one text encoder, float32.

    D may be another encoder's: such vectors are left out where they stand in a prompt.
    Refused: embedding-unreadable, and as tables and pickled refuse.
    """
    if path.stat().st_size > LARGEST:
        refuse(path, f"it has more than {LARGEST // 2**20} MiB")
    found = chosen(contents(path), key, width)
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.dim() not in (1, 2):
        refuse(path, "there are no vectors in it")
    return found.detach().float().reshape(-1, found.shape[-1])


def contents(path: Path) -> Any:
    if pickled.looks(tables.beginning(path)):
        return pickled.contents(path)
    entries = tables.header(path)
    read: dict[str, Tensor] = {}
    for name, entry in sorted(entries.items(), key=lambda row: row[1].start):
        if entry.dtype in tables.DTYPES:
            read[name] = torch.empty(entry.shape)
            tables.read_tensor(path, entry, read[name])
    return read


def chosen(loaded: Any, key: str, width: int) -> Any:
    """Of all that a file holds, what ComfyUI takes: by its layout, by the encoder, or the first."""
    if isinstance(loaded, list):
        rows = [one for part in loaded if isinstance(part, Mapping) for one in part.values()]
        fits = [one for one in rows if isinstance(one, Tensor) and one.shape[-1:] == (width,)]
        return torch.cat([one.reshape(-1, width) for one in fits]) if fits else None
    if not isinstance(loaded, Mapping):
        return None
    if isinstance(loaded.get("string_to_param"), Mapping):
        return next(iter(loaded["string_to_param"].values()), None)
    if key in loaded:
        return loaded[key]
    start, ends = BUNDLES
    for end in ends:
        parts = [
            value
            for name, value in loaded.items()
            if str(name).startswith(start) and str(name).endswith(end.format(key=key))
        ]
        if parts and all(isinstance(part, Tensor) for part in parts):
            return torch.cat(parts)
    return next(iter(loaded.values()), None)


def refuse(path: Path, what: str) -> NoReturn:
    raise Refused("embedding-unreadable", f"{path} is no embedding that can be used: {what}.")
