"""Pickled: .ckpt, .pt and .bin files, which could run code when opened, opened so that they do not.

Only through torch.load(weights_only=True), which builds tensors and plain containers and refuses
the rest (pytorch.org/docs: torch.load), and only by a torch where that holds.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from runner.recipe import Refused

ZIP = b"PK\x03\x04"
PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
SAFE_SINCE = (2, 6)  # below, weights_only can be led to run code: CVE-2025-32434
NAMED = re.compile(r"GLOBAL ([\w.]+)")


def looks(start: bytes) -> bool:
    """Whether a file that starts so is a pickle, or torch's archive of one."""
    return start.startswith((ZIP, *PROTOCOLS))


def load(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name; those of an archive stay in the file until read.

    Refused: checkpoint-unsafe (it wants more than tensors), torch-too-old, checkpoint-damaged.
    """
    loaded = contents(path)
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        damaged(path, f"it holds a {type(loaded).__name__} and not a table of tensors")
    found = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor) and plain(v)}
    if not found:
        damaged(path, "there is no tensor in it")
    return found


def plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized


def contents(path: Path) -> Any:
    """What torch.load gives for a file when only weights are allowed."""
    if release(torch.__version__) < SAFE_SINCE:
        raise Refused(
            "torch-too-old",
            f"{path} is a pickle (.ckpt or .pt), and torch {torch.__version__} can be led to run "
            "code in one (CVE-2025-32434). torch 2.6 cannot; a .safetensors file cannot at all.",
        )
    with path.open("rb") as file:
        archive = file.read(len(ZIP)) == ZIP
    if archive:
        stored_plainly(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([left_behind()]):
            warnings.simplefilter("ignore")  # it speaks of the protocol
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        wanted = NAMED.search(str(error))
        if wanted is None:
            damaged(path, " ".join(str(error).split())[:120])
        raise Refused(
            "checkpoint-unsafe",
            f"{path} is not opened: it wants {wanted[1]}, and a pickle (.ckpt or .pt) can run code "
            "through such names. A .safetensors file cannot.",
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever a hostile pickle provokes is told
        damaged(path, f"torch cannot load it ({' '.join(str(error).split())[:120]})")


def stored_plainly(path: Path) -> None:
    """Refuse an archive whose entries are packed or overlap: a small file could fill the memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        damaged(path, f"its archive cannot be read ({error})")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        damaged(path, "its archive is compressed, which torch never writes")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        damaged(path, "its archive claims to hold more than the file")


def left_behind() -> type:
    """An empty stand-in for what old training scripts left in their files beside the weights."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    return type("ModelCheckpoint", (), {"__module__": name})


def release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def damaged(path: Path, what: str) -> NoReturn:
    raise Refused("checkpoint-damaged", f"{path} is not a whole checkpoint: {what}.")
