"""Synthetic checkpoints: full-size networks whose every weight follows from its key and shape.

Recipe, version 1. The same bytes come out on every machine and for any number of threads, so
numbers computed from them elsewhere can be held against ours. Their pictures are noise.

    u = torch.rand(shape, generator seeded with crc32(key)) - 1/2
    no dimension (logit_scale)            4.6052
    one dimension, key ends in "weight"   1 + 0.04 u
    one dimension otherwise               0.04 u
    two or more dimensions                u sqrt(12 / fan_in),  fan_in = product of shape[1:]
    then rounded to float16
"""

import json
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from runner.checkpoint import Checkpoint
from runner.clip import TextEncoder, TextShape
from runner.families import SD1, SD2, SDXL, Family
from runner.openclip import BIG_G, H, OpenEncoder, PairEncoder
from runner.pixels import whole_file
from runner.recipe import Progress, Refused
from runner.tables import PIECE, Shape
from runner.unet import UNet
from runner.vae import VAE, VAEShape

MODELS: dict[str, Family] = {"sd15": SD1, "sd21": SD2, "sdxl": SDXL}
TEXTS: dict[str, Callable[[], nn.Module]] = {
    "sd15": lambda: TextEncoder(TextShape()),
    "sd21": lambda: OpenEncoder(H),
    "sdxl": lambda: PairEncoder(TextShape(), BIG_G),
}


def shapes(model: str) -> dict[str, dict[str, Shape]]:
    """part -> name -> shape of a model's weights, derived from its networks' sizes."""
    if model not in MODELS:
        there = ", ".join(MODELS)
        raise Refused("unknown-model", f"There is no synthetic model {model!r}; there are {there}.")
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {
            "text": TEXTS[model](),
            "unet": UNet(MODELS[model].unet),
            "vae": VAE(VAEShape()),
        }
    return {
        part: {name: tuple(weight.shape) for name, weight in network.named_parameters()}
        for part, network in parts.items()
    }


def checkpoint(model: str) -> Checkpoint:
    """A synthetic checkpoint, in no file: every tensor is made when it is asked for."""
    there = shapes(model)
    family = MODELS[model]

    def fill(part: str, name: str, out: Tensor) -> None:
        make(family.prefixes[part] + name, out)

    return Checkpoint(f"synthetic {model}", family.name, there, fill)


def make(key: str, out: Tensor) -> None:
    """Write the tensor that belongs to a key into `out`, of its shape and any float dtype."""
    factor, offset = law(key, tuple(out.shape))
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    flat = out.view(-1)
    numbers = torch.empty(PIECE)
    rounded = torch.empty(PIECE, dtype=torch.float16)
    for at in range(0, flat.numel(), PIECE):
        count = min(PIECE, flat.numel() - at)
        u = numbers[:count].uniform_(0, 1, generator=generator).sub_(0.5).mul_(factor)
        if offset:
            u.add_(offset)
        flat[at : at + count].copy_(rounded[:count].copy_(u))


def law(key: str, shape: Shape) -> tuple[float, float]:
    """The (factor, offset) that turn u into a weight."""
    if not shape:  # logit_scale, which no render asks for
        return 0.0, 4.6052
    if len(shape) >= 2:
        return (12 / prod(shape[1:])) ** 0.5, 0.0
    return 0.04, 1.0 if key.endswith("weight") else 0.0


def write(model: str, path: Path, threads: int, progress: Progress) -> int:
    """Write a synthetic checkpoint as a safetensors file (float16); its size in bytes.

    A few tensors at a time are in memory; the file appears when it is whole.
    """
    parts = shapes(model)
    prefixes = MODELS[model].prefixes
    table = {prefixes[p] + k: shape for p, names in parts.items() for k, shape in names.items()}
    towers = [key for key in table if key.endswith("model.text_projection")]
    table |= {key.replace("text_projection", "logit_scale"): () for key in towers}
    head = header(table)
    with whole_file(path) as file, ThreadPoolExecutor(threads) as pool:
        file.write(head)
        written, todo = len(head), iter(table.items())
        waiting: deque[Future[bytes]] = deque()
        for done in range(len(table)):
            more = islice(todo, threads + 1 - len(waiting))
            waiting.extend(pool.submit(packed, key, shape) for key, shape in more)
            written += file.write(waiting.popleft().result())
            progress("file", done + 1, len(table))
    return written


def packed(key: str, shape: Shape) -> bytes:
    out = torch.empty(shape, dtype=torch.float16)
    make(key, out)
    return out.numpy().tobytes()


def header(table: dict[str, Shape]) -> bytes:
    """The head of a safetensors file of float16 tensors, padded to eight bytes."""
    rows: dict[str, object] = {"__metadata__": {"recipe": "synthetic v1"}}
    at = 0
    for key, shape in table.items():
        stop = at + 2 * prod(shape)
        rows[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, stop]}
        at = stop
    text = json.dumps(rows, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
