"""Model files: whole or damaged, of which kind, and holding what, by their first bytes.

Only names, sizes and headers are read, within a time that level 1 can afford; what was not reached
is counted.
"""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from doctor.facts import ModelFile

SECONDS = 0.5  # for all models together
HEADERS = 32 << 20  # bytes of safetensors headers read in all
KINDS = frozenset(
    {".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx", ".pkl"}
)
UNFINISHED = frozenset({".aria2", ".crdownload", ".part", ".incomplete", ".download"})
LAST = re.compile(rb'"data_offsets":\s*\[\d+,\s*(\d+)\]')
HOLDS = (  # what a file holds -> names that only such files have, names that such files never have
    ("checkpoint", rb'"model\.diffusion_model\.', rb'"(?:lora_|[^"]*\.lora_)'),
    (
        "LoRA",
        rb'"(?:lora_(?:unet|te)|[^"]*\.lora_(?:up|down|A|B)\.)',
        rb'"model\.diffusion_model\.',
    ),
    (
        "ControlNet",
        rb'"(?:control_model\.|input_hint_block\.|controlnet_cond_embedding\.)',
        rb'"lora_',
    ),
    ("VAE", rb'"decoder\.(?:conv_in|mid|up)\b', rb'"(?:model|cond_stage_model|lora_\w+)\.'),
)
PLACES = {  # what a file holds -> folders of models in which its loader looks for it
    "checkpoint": {"checkpoints", "diffusion_models", "unet"},
    "LoRA": {"loras"},
    "ControlNet": {"controlnet", "t2i_adapter", "model_patches", "diffusion_models"},
    "VAE": {"vae", "vae_approx", "upscale_models", "latent_upscale_models", "audio_encoders"},
}
SWAPPED = frozenset().union(*PLACES.values()) | {"text_encoders", "clip", "embeddings"}


def models(place: Path) -> tuple[tuple[ModelFile, ...], int, int]:
    """The odd ones, how many were looked at, and how many the time did not allow."""
    until, budget = time.monotonic() + SECONDS, HEADERS
    odd: list[ModelFile] = []
    looked = left = 0
    for path, size in files(place):
        if time.monotonic() > until:
            left += 1
            continue
        looked += 1
        kind, expected, holds, cost = head(path, size, budget)
        budget -= cost
        name = path.relative_to(place)
        lost = holds if misplaced(name, holds) else ""
        if lost or strange(path.suffix.lower(), kind, size, expected):
            odd.append(ModelFile(name.as_posix(), kind, size, expected, lost))
    return tuple(odd), looked, left


def files(place: Path) -> Iterator[tuple[Path, int]]:
    for root, _, names in os.walk(place):
        for name in sorted(names):
            path = Path(root, name)
            if path.suffix.lower() in KINDS | UNFINISHED:
                try:
                    yield path, path.stat().st_size
                except OSError:
                    yield path, -1


def head(path: Path, size: int, budget: int) -> tuple[str, int, str, int]:
    """(what it is, bytes its header promises or 0, what it holds or "", bytes read) by the first
    bytes of a file."""
    if path.suffix.lower() in UNFINISHED:
        return "unfinished download", 0, "", 0
    try:
        with path.open("rb") as file:
            first = file.read(64)
            kind = kind_of(first, size)
            length = int.from_bytes(first[:8], "little")
            if kind != "safetensors" or length > min(budget, 100 << 20):
                return kind, 0, "", 64
            header = first[8:] + file.read(length - 56)
    except OSError:
        return "unreadable", 0, "", 0
    ends = LAST.findall(header)
    return kind, 8 + length + max(map(int, ends), default=0), holding(header), length


def holding(header: bytes) -> str:
    """What the names of the tensors say, "" where they do not say it for certain."""
    for what, has, never in HOLDS:
        if re.search(has, header) and not re.search(never, header):
            return what
    return ""


def misplaced(name: Path, holds: str) -> bool:
    """Does it lie in a folder of another loader? Folders that we do not know are left alone."""
    top = name.parts[0] if len(name.parts) > 1 else ""
    return bool(holds) and top in SWAPPED and top not in PLACES[holds]


def kind_of(first: bytes, size: int) -> str:
    if size == 0:
        return "empty"
    start = first.lstrip()[:20].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "web page"
    if first.startswith(b"version https://git-lfs"):
        return "git-lfs pointer"
    if first.startswith(b"PK"):
        return "torch archive"
    if first.startswith(b"GGUF"):
        return "gguf"
    if first[8:9] == b"{" and int.from_bytes(first[:8], "little") <= size:
        return "safetensors"
    if first[8:9] == b"{":
        return "cut safetensors"
    return "pickle" if first[:1] == b"\x80" else "other"


BROKEN = frozenset(
    {
        "empty",
        "web page",
        "git-lfs pointer",
        "cut safetensors",
        "unreadable",
        "unfinished download",
    }
)


def strange(suffix: str, kind: str, size: int, expected: int) -> bool:
    """Damaged, or not what its extension says."""
    if kind in BROKEN or expected > size:
        return True
    if suffix in (".safetensors", ".sft"):
        return kind != "safetensors"
    return kind == "safetensors" or (suffix == ".gguf" and kind != "gguf")
