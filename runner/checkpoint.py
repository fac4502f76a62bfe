"""Checkpoint: what a file of weights is, read from its header, and its way into the networks.

A safetensors file is eight bytes of length, a JSON table of names, and the numbers
(huggingface/safetensors, README). It is read here without a second copy of the weights.
"""

import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn

from runner.families import FAMILIES, SD1, AnyText
from runner.recipe import Progress, Refused
from runner.unet import UNet, UNetShape
from runner.vae import VAE, VAEShape

Shape = tuple[int, ...]
Place = tuple[torch.device, torch.dtype]

PREFIXES = SD1.prefixes
OTHER_SD2_TEXT = "conditioner.embedders.0."  # the text part of SD 2.x as sgm saves it
UNUSED = (  # stored, but not asked for
    *("position_ids", "logit_scale", "text_projection.weight", "attn_mask"),
)
V_SPREAD = 0.09  # of one bias, above which ComfyUI takes an SD 2.x for v-prediction
V_BIAS = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
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
LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
MILLION = 1_000_000  # weights: the unit of progress
PIECE = 1 << 15  # numbers made or converted at a time: in the cache, and in one thread of torch


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its type, its shape, and bytes [start, stop) of the file."""

    dtype: str
    shape: Shape
    start: int
    stop: int


@dataclass(frozen=True)
class Checkpoint:
    """Named weights that can be asked for one at a time, by the part's own names.

    shapes: part ("text", "unet", "vae") -> name below the part's prefix -> shape.
    fill(part, name, out) writes a tensor into `out`, which may have any floating dtype.
    predicts: "eps" (noise) or "v"; zero_snr: the last training step is pure noise.
    """

    name: str
    family: str
    shapes: Mapping[str, Mapping[str, Shape]]
    fill: Callable[[str, str, Tensor], None]
    predicts: str = "eps"
    zero_snr: bool = False


@dataclass(frozen=True)
class Networks:
    text: AnyText
    unet: UNet
    vae: VAE


def read(path: Path) -> Checkpoint:
    """The checkpoint in a safetensors file, its header checked, no weight read yet.

    Refused: checkpoint-not-found, checkpoint-is-folder, checkpoint-is-web-page,
    checkpoint-is-lfs-pointer, checkpoint-is-pickle, checkpoint-truncated, checkpoint-damaged,
    checkpoint-incomplete, checkpoint-other-architecture, checkpoint-dtype.
    """
    entries = header(path)
    family = looks_like({key: entry.shape for key, entry in entries.items()})
    if family not in FAMILIES:
        raise Refused(
            "checkpoint-other-architecture",
            f"{path} is recognised as {family}, which is not rendered here; "
            f"{', '.join(FAMILIES)} are.",
        )
    prefixes = dict(FAMILIES[family].prefixes)
    if family == "SD 2.x" and any(key.startswith(OTHER_SD2_TEXT) for key in entries):
        prefixes["text"] = OTHER_SD2_TEXT
    stored = {name: dict(own_names(entries, prefix)) for name, prefix in prefixes.items()}
    stored["vae"] = {
        k: v for k, v in stored["vae"].items() if not k.startswith(("loss.", "model_ema."))
    }
    shapes = {part: {k: entries[v].shape for k, v in names.items()} for part, names in
              stored.items()}  # fmt: skip
    complete(path, family, prefixes, shapes)
    for key in (key for names in stored.values() for key in names.values()):
        if entries[key].dtype not in DTYPES:
            what = f"{key} as {entries[key].dtype}, which is not read here yet"
            raise Refused("checkpoint-dtype", f"{path} stores {what}.")

    def fill(part: str, name: str, out: Tensor) -> None:
        read_tensor(path, entries[stored[part][name]], out)

    marked = family == "SDXL" and "v_pred" in entries
    v = marked or (family == "SD 2.x" and spread(fill, shapes) > V_SPREAD)
    zero_snr = marked and "ztsnr" in entries
    return Checkpoint(str(path), family, shapes, fill, "v" if v else "eps", zero_snr)


def spread(
    fill: Callable[[str, str, Tensor], None], shapes: Mapping[str, Mapping[str, Shape]]
) -> float:
    """The standard deviation of the bias by which ComfyUI tells v from eps in SD 2.x."""
    if V_BIAS not in shapes["unet"]:
        return 0.0
    bias = torch.empty(shapes["unet"][V_BIAS])
    fill("unet", V_BIAS, bias)
    return float(torch.std(bias, unbiased=False))


def own_names(entries: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    """(name below the prefix, key in the file); old files lack `text_model.` in the text part."""
    for key in entries:
        if not key.startswith(prefix) or key.endswith(UNUSED):
            continue
        name = key.removeprefix(prefix)
        if prefix == PREFIXES["text"] and not name.startswith("text_model."):
            name = f"text_model.{name}"
        yield name, key


def header(path: Path) -> dict[str, Entry]:
    """The table of a safetensors file, every number in it held against the file's size."""
    if path.is_dir():
        raise Refused("checkpoint-is-folder", f"{path} is a folder; a checkpoint is one file.")
    try:
        with path.open("rb") as file:
            start = file.read(64)
            size = os.fstat(file.fileno()).st_size
            known_impostor(path, start, size)
            length = int.from_bytes(start[:8], "little")
            if length > LONGEST_HEADER:
                damaged(path, f"its header claims to be {length} bytes long")
            if 8 + length > size:
                truncated(path, size, 8 + length)
            file.seek(8)
            table = file.read(length)
    except FileNotFoundError:
        raise Refused("checkpoint-not-found", f"There is no checkpoint at {path}.") from None
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
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise Refused(
            "checkpoint-is-pickle",
            f"{path} is a pickle (.ckpt or .pt), which can run code when opened; "
            "a .safetensors file is needed.",
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


def looks_like(shapes: Mapping[str, Shape]) -> str:
    """The family of a checkpoint, by names and shapes (ComfyUI: model_detection.py)."""
    unet = PREFIXES["unet"]
    first = shapes.get(f"{unet}input_blocks.0.0.weight")
    if first is None or len(first) != 4:
        return without_unet(shapes)
    if first[1] != 4:
        return f"an inpainting or edit model ({first[1]} input channels)"
    look = next((k for k in shapes if k.startswith(unet) and "attn2.to_k.weight" in k), None)
    context = shapes[look][1] if look and len(shapes[look]) == 2 else 0
    if f"{unet}label_emb.0.0.weight" in shapes:
        if "edm_vpred.sigma_max" in shapes or "edm_mean" in shapes:
            return "an EDM variant of SDXL"
        return {2048: "SDXL", 1280: "the SDXL refiner"}.get(context, "a relative of SDXL")
    if any("cond_stage_model.model." in key for key in shapes) or context == 1024:
        return "SD 2.x"
    return "SD 1.x"


NAMED = {  # a mark in the names -> what such a file is
    "double_blocks.": "Flux",
    "joint_blocks.": "SD 3",
    "lora_": "a LoRA, which changes a checkpoint and is none",
    "lora.": "a LoRA, which changes a checkpoint and is none",
    "control_model.": "a ControlNet",
    "down_blocks.": "a part of a diffusers folder, not a single-file checkpoint",
    "string_to_param": "a textual-inversion embedding",
}


def without_unet(shapes: Mapping[str, Shape]) -> str:
    for mark, meaning in NAMED.items():
        if any(mark in key for key in shapes):
            return meaning
    if all(key.startswith(("encoder.", "decoder.", "quant", "post_quant")) for key in shapes):
        return "a VAE alone"
    if any("input_blocks.0.0.weight" in key for key in shapes):
        return "a denoiser alone, without text encoder and VAE"
    example = min(shapes)[:60]
    return f"nothing known ({len(shapes)} tensors, the first named {example!r})"


def complete(
    path: Path,
    family: str,
    prefixes: Mapping[str, str],
    shapes: Mapping[str, Mapping[str, Shape]],
) -> None:
    """Refuse a checkpoint that lacks a tensor, has one too many, or one of another shape."""
    for part, prefix in prefixes.items():
        try:
            network = build(family, part, shapes[part])
            wanted = {k: tuple(v.shape) for k, v in network.named_parameters()}
        except (KeyError, ValueError, IndexError, ZeroDivisionError, RuntimeError) as error:
            what = f"its {part} part ({prefix}...) has no {error}"
            raise Refused("checkpoint-incomplete", f"{path} is incomplete: {what}.") from None
        have = shapes[part]
        lost, extra = sorted(wanted.keys() - have), sorted(have.keys() - wanted)
        bent = [k for k in wanted.keys() & have if wanted[k] != have[k]]
        for names, what in ((lost, "missing"), (extra, "unexpected"), (bent, "of another shape")):
            if names:
                raise Refused(
                    "checkpoint-incomplete",
                    f"{path} is not a whole {family} checkpoint: {len(names)} tensors {what}, "
                    f"the first {prefix}{names[0]}.",
                )


def build(family: str, part: str, shapes: Mapping[str, Shape]) -> nn.Module:
    """A network of the right sizes, without memory for its weights."""
    with torch.device("meta"):
        match part:
            case "text":
                network: nn.Module = FAMILIES[family].text(shapes)
            case "unet":
                network = UNet(UNetShape.of(shapes))
            case _:
                network = VAE(VAEShape.of(shapes))
    return network.eval().requires_grad_(False)


def read_tensor(path: Path, entry: Entry, out: Tensor) -> None:
    """Read one tensor from a file into `out`, converting its numbers piece by piece."""
    dtype, flat = DTYPES[entry.dtype], out.view(-1)
    piece = torch.empty(min(PIECE, max(1, flat.numel())), dtype=dtype)
    with path.open("rb", buffering=0) as file:
        file.seek(entry.start)
        for at in range(0, flat.numel(), PIECE):
            part = piece[: min(PIECE, flat.numel() - at)]
            view = memoryview(part.view(torch.uint8).numpy())  # type: ignore[arg-type]
            while view:
                got = file.readinto(view)
                if not got:
                    truncated(path, entry.start, entry.stop)
                view = view[got:]
            flat[at : at + len(part)].copy_(part)


@torch.inference_mode(False)  # memory made in inference mode would be closed to other threads
def assemble(
    checkpoint: Checkpoint, places: Mapping[str, Place], threads: int, progress: Progress
) -> Networks:
    """The networks of a checkpoint, each part on its device and in its dtype.

    Weights on the CPU are written once, where they stay; others pass through one tensor's
    worth of CPU memory. Refused: not-enough-memory.
    """
    parts = {part: build(checkpoint.family, part, checkpoint.shapes[part]) for part in PREFIXES}
    wanted = [
        (part, name, weight) for part in parts for name, weight in parts[part].named_parameters()
    ]
    room = iter(reserve([(weight.shape, *places[part]) for part, _, weight in wanted]))
    weights = {(part, name): next(room) for part, name, _ in wanted}

    def load(part: str, name: str) -> None:
        out = weights[part, name]
        if out.device.type == "cpu":
            checkpoint.fill(part, name, out)
        else:
            staged = torch.empty(out.shape, dtype=out.dtype)
            checkpoint.fill(part, name, staged)
            out.copy_(staged)

    largest_first = sorted(weights, key=lambda key: -weights[key].numel())
    with ThreadPoolExecutor(threads) as pool:
        jobs = {pool.submit(load, *key): weights[key].numel() for key in largest_first}
        done, of = 0, sum(jobs.values()) // MILLION
        try:
            for job in as_completed(jobs):
                job.result()
                done += jobs[job]
                progress("weights", done // MILLION, of)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for (part, name), tensor in weights.items():
        put(parts[part], name, tensor)
    return Networks(**parts)  # type: ignore[arg-type]


def put(network: nn.Module, name: str, tensor: Tensor) -> None:
    """Give a network one of its weights by its dotted name, without copying it."""
    owner, _, last = name.rpartition(".")
    setattr(network.get_submodule(owner), last, nn.Parameter(tensor, requires_grad=False))


def reserve(specs: list[tuple[Shape, torch.device, torch.dtype]]) -> Iterator[Tensor]:
    """Memory for tensors, in order; what lies on the CPU comes from one piece of large pages."""
    sizes = [prod(shape) * width_of(dtype) for shape, _, dtype in specs]
    ours = [device.type == "cpu" for _, device, _ in specs]
    total = sum(-(-size // 64) * 64 for size, cpu in zip(sizes, ours, strict=True) if cpu)
    enough_memory(total)
    try:
        arena, at = pages(total), 0
        for (shape, device, dtype), size in zip(specs, sizes, strict=True):
            if device.type != "cpu":
                yield torch.empty(shape, dtype=dtype, device=device)
                continue
            yield arena[at : at + size].view(dtype).view(shape)
            at += -(-size // 64) * 64
    except (MemoryError, RuntimeError, OSError) as error:
        raise Refused(
            "not-enough-memory", f"There is no memory for the weights: {error}."
        ) from error


def pages(size: int) -> Tensor:
    """Bytes of fresh memory. Linux is asked for large pages: touching small ones costs seconds."""
    if not hasattr(mmap, "MADV_HUGEPAGE") or not size:
        return torch.empty(size, dtype=torch.uint8)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without large pages: slower, and just as right
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def enough_memory(size: int) -> None:
    """Refuse what Linux says is not there, before it kills the process for it."""
    try:
        rows = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(row.split()[1]) * 1024 for row in rows if row.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        return
    if size > free:
        raise Refused(
            "not-enough-memory",
            f"The weights need {size / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free.",
        )
