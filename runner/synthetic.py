"""Synthetic checkpoints: full-size networks whose every weight follows from its key and shape.

Recipe, version 1. The same bytes come out on every machine and for any number of threads, so
numbers computed from them elsewhere can be held against ours. Their pictures are noise.

    u = torch.rand(shape, generator seeded with crc32(key)) - 1/2
    one dimension, key ends in "weight"   1 + 0.04 u
    one dimension otherwise               0.04 u
    two or more dimensions                u sqrt(12 / fan_in),  fan_in = product of shape[1:]
    then rounded to float16
"""

import json
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from runner.checkpoint import PIECE, PREFIXES, Checkpoint, Shape
from runner.clip import TextEncoder, TextShape
from runner.pixels import whole_file
from runner.recipe import Progress, Refused
from runner.unet import UNet, UNetShape
from runner.vae import VAE, VAEShape

MODELS = ("sd15",)
LATER = ("sd21", "sdxl")


def shapes(model: str) -> dict[str, dict[str, Shape]]:
    """part -> name -> shape of a model's weights, derived from its networks' sizes."""
    if model not in MODELS:
        later = "recognised, not built here yet" if model in LATER else "unknown"
        raise Refused("unknown-model", f"The synthetic model {model!r} is {later}; sd15 is there.")
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {
            "text": TextEncoder(TextShape()),
            "unet": UNet(UNetShape()),
            "vae": VAE(VAEShape()),
        }
    return {
        part: {name: tuple(weight.shape) for name, weight in network.named_parameters()}
        for part, network in parts.items()
    }


def checkpoint(model: str) -> Checkpoint:
    """A synthetic checkpoint, in no file: every tensor is made when it is asked for."""

    def fill(part: str, name: str, out: Tensor) -> None:
        make(PREFIXES[part] + name, out)

    return Checkpoint(f"synthetic {model}", "SD 1.x", shapes(model), fill)


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
    if len(shape) >= 2:
        return (12 / prod(shape[1:])) ** 0.5, 0.0
    return 0.04, 1.0 if key.endswith("weight") else 0.0


def write(model: str, path: Path, threads: int, progress: Progress) -> int:
    """Write a synthetic checkpoint as a safetensors file (float16); its size in bytes.

    A few tensors at a time are in memory; the file appears when it is whole.
    """
    table = {PREFIXES[p] + k: shape for p, names in shapes(model).items() for k, shape in
             names.items()}  # fmt: skip
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
