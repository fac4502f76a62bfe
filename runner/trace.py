"""Trace: every tensor on the way through a render, kept, written, and held against another."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path

import torch
from torch import Tensor

from runner.devices import name, settle, threads
from runner.glimpse import colours, glimpse
from runner.pipeline import Models, img2img, not_finite
from runner.pixels import whole_file
from runner.recipe import Progress, Recipe


@dataclass(frozen=True)
class Trace:
    """What watch() was shown: name -> tensor on the CPU; float32, tokens int64."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def watch(self, name: str, tensor: Tensor) -> None:
        kept = tensor.detach().cpu()
        self.tensors[name] = kept.float() if kept.is_floating_point() else kept

    def sha256(self, name: str) -> str:
        """The hash of a tensor's bytes (little-endian, row by row)."""
        return digest(self.tensors[name])


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def save(trace: Trace, path: Path, about: Mapping[str, object]) -> None:
    """Write a trace as safetensors, what it is about in the metadata. Refused: cannot-write."""
    from safetensors.torch import save as pack

    tensors = {name: tensor.contiguous().clone() for name, tensor in trace.tensors.items()}
    data = pack(tensors, metadata={key: json.dumps(value) for key, value in about.items()})
    with whole_file(path) as file:
        file.write(data)


STAGES = {  # the last thing seen of a stage -> its name
    "cond/negative": "text",
    "latent/input": "encode",
    "latent/output": "sample",
    "image/output": "decode",
}


@dataclass(frozen=True)
class Render:
    """One finished render: what was asked, where, how long it took, and what came out."""

    recipe: Recipe
    checkpoint: str
    device: str
    dtype: str
    threads: int
    seconds: Mapping[str, float]  # by stage; "total" is their sum
    sha256: Mapping[str, str]  # of the float32 tensors image/input, image/output, latent/output
    not_finite: tuple[str, ...]  # names of tensors that hold a NaN or an infinity, in order
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def finite(self) -> bool:
        return not self.not_finite

    def to_json(self) -> dict[str, object]:
        """The object of schema runner.render/1."""
        return {
            "schema": "runner.render/1",
            "recipe": self.recipe.to_json(),
            "checkpoint": self.checkpoint,
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
            "seconds": dict(self.seconds),
            "sha256": dict(self.sha256),
            "finite": self.finite,
            "not_finite": list(self.not_finite),
            "notes": list(self.notes),
            "files": list(self.files),
        }


def render(
    models: Models, recipe: Recipe, image: Tensor, progress: Progress, glimpses: bool = False
) -> tuple[Render, Trace]:
    """Render a picture (1, H, W, 3) with everything on the way kept and every stage timed.

    glimpses: `progress` is shown a small picture of each step, too.
    """
    shares = colours(models.painter.encode, models.latent_scale) if glimpses else None
    trace, seconds = Trace(), dict.fromkeys(STAGES.values(), 0.0)
    began = [time.perf_counter()]

    def watch(seen: str, tensor: Tensor) -> None:
        trace.watch(seen, tensor)
        if seen.startswith("step/"):
            step = int(seen.removeprefix("step/"))
            there = () if shares is None else (glimpse(trace.tensors, step, shares),)
            progress("step", step, recipe.steps, *there)
        if seen in STAGES:
            settle(models.placement.device)
            seconds[STAGES[seen]] = time.perf_counter() - began[0]
            began[0] = time.perf_counter()

    img2img(models, recipe, image, watch)
    hashed = {"input": "image/input", "output": "image/output", "latent": "latent/output"}
    done = Render(
        recipe,
        models.name,
        str(models.placement.device),
        name(models.placement.unet),
        threads(),
        seconds | {"total": sum(seconds.values())},
        {key: trace.sha256(kept) for key, kept in hashed.items()},
        tuple(not_finite(trace.tensors.items())),
    )
    return done, trace


def gap(ours: Tensor, theirs: Tensor) -> float:
    """Relative rms, ‖a-b‖ / ‖b‖. A NaN, or another shape, is infinitely far from everything."""
    if ours.shape != theirs.shape:
        return inf
    a, b = ours.detach().cpu().double(), theirs.detach().cpu().double()
    size = float(torch.linalg.vector_norm(b))
    apart = float(torch.linalg.vector_norm(a - b))
    if not isfinite(apart):
        return inf
    return apart / size if size else apart
