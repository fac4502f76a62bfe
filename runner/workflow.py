"""Workflow: a graph of ComfyUI's nodes, executed.

Models are values that say which file they come from and what was done to it; their weights are
read when a node computes with them, and the last of each part (text, UNet, VAE) is kept.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner import canvas, checkpoint, lora, pixels
from runner.checkpoint import Checkpoint
from runner.darkroom import quick
from runner.devices import Placement, settle
from runner.embeddings import Shelf
from runner.folders import Folders, next_name
from runner.graph import Graph, Node, settings
from runner.memory import enough_memory
from runner.pipeline import (
    Conditioning,
    ksampler,
    model_of,
    named,
    not_finite,
    rounded_for,
)
from runner.pixels import crop as middle
from runner.recipe import Progress, Recipe, Refused
from runner.tables import width_of
from runner.tokenizer import embeddings_named

Inputs = Mapping[str, Any]
ENCODE, DECODE = 1767, 2178 * 64  # numbers per pixel, per latent: ComfyUI's estimates (sd.py)


@dataclass(frozen=True)
class Text:
    """A CLIP: whose text encoder, and the layer where it stops."""

    weights: Checkpoint
    last: int | None = None


@dataclass(frozen=True)
class Picture:
    """One saved picture: its node, its file, its size, and the hash of its float32 tensor."""

    node: str
    file: Path
    width: int
    height: int
    sha256: str


@dataclass
class Studio:
    """Where nodes work: folders, a device, the weights in use, and what has come out so far."""

    graph: Graph
    folders: Folders
    placement: Placement
    threads: int
    progress: Progress
    parts: dict[str, tuple[Checkpoint, Any]] = field(default_factory=dict)
    files: dict[tuple[str, Path], Any] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def part(self, weights: Checkpoint, name: str) -> Any:
        """A network, its weights in place; another one of that part goes first."""
        kept = self.parts.get(name)
        if kept is None or kept[0] is not weights:
            self.parts.pop(name, None)
            place = {name: self.placement.places[name]}
            ready = rounded_for(weights, self.placement)
            made = checkpoint.networks(ready, place, self.threads, self.progress)
            self.parts[name] = weights, made[name]
        return self.parts[name][1]

    def opened(self, kind: str, name: str, read: Callable[[Path], Any]) -> Any:
        """A model file, its header read once."""
        path = self.folders.model(kind, name)
        if (kind, path) not in self.files:
            self.files[kind, path] = read(path)
        return self.files[kind, path]


@dataclass(frozen=True)
class Done:
    """An executed graph: what each node gave, how long it took, and the pictures."""

    values: Mapping[str, tuple[Any, ...]]
    seconds: Mapping[str, float]  # by node
    pictures: tuple[Picture, ...]
    not_finite: tuple[str, ...]  # ids of the nodes, in order, that gave a NaN or an infinity
    notes: tuple[str, ...]

    def to_json(self, placement: Placement) -> dict[str, Any]:
        """The object of schema runner.workflow/1."""
        return {
            "schema": "runner.workflow/1",
            "device": str(placement.device),
            "dtype": placement.dtype,
            "seconds": {**self.seconds, "total": sum(self.seconds.values())},
            "pictures": [{**asdict(one), "file": str(one.file)} for one in self.pictures],
            "finite": not self.not_finite,
            "not_finite": list(self.not_finite),
            "notes": list(self.notes),
            "files": [str(one.file) for one in self.pictures],
        }

    def tensors(self) -> dict[str, Tensor]:
        """Latents, pictures and texts by "node/ID", or "node/ID/pooled" for the second of two."""
        kept = {}
        for id, outputs in self.values.items():
            for value in outputs[:1]:
                if isinstance(value, Tensor):
                    kept[f"node/{id}"] = value
                elif isinstance(value, tuple):
                    kept[f"node/{id}"], kept[f"node/{id}/pooled"] = value
        return kept


@torch.inference_mode()
def execute(
    graph: Graph, folders: Folders, placement: Placement, threads: int, progress: Progress
) -> Done:
    """Run every node that a picture depends on, once, each after its sources.

    Refused: what can be known before (samplers, files, sizes) before anything is computed.
    """
    studio = Studio(graph, folders, placement, threads, progress)
    prepared(graph, folders)
    values: dict[str, tuple[Any, ...]] = {}
    seconds = {}
    for place, (id, one) in enumerate(graph.nodes.items(), 1):
        start = time.perf_counter()
        inputs = settings(one) | {
            name: values[link.node][link.slot] for name, link in one.links.items()
        }
        values[id] = RUNS[one.kind](studio, one, **inputs)
        settle(placement.device)
        seconds[id] = time.perf_counter() - start
        progress("node", place, len(graph.nodes))
    done = Done(values, seconds, tuple(studio.pictures), (), tuple(studio.notes))
    broken = dict.fromkeys(name.split("/")[1] for name in not_finite(done.tensors().items()))
    return replace(done, not_finite=tuple(broken))


def prepared(graph: Graph, folders: Folders) -> None:
    """Refuse a graph for its names of samplers and files before its first step is computed."""
    where = {
        "CheckpointLoaderSimple": ("checkpoints", "ckpt_name"),
        "VAELoader": ("vae", "vae_name"),
        "LoraLoader": ("loras", "lora_name"),
    }
    for one in graph.nodes.values():
        values = settings(one)
        if one.kind in where:
            kind, name = where[one.kind]
            folders.model(kind, values[name])
        if one.kind in ("KSampler", "KSamplerAdvanced"):
            named(recipe_of(values))
        if one.kind == "LoadImage" and not folders.picture(values["image"]).is_file():
            path = folders.picture(values["image"])
            raise Refused("no-such-image", f"There is no picture at {path}.")
        if one.kind == "SaveImage":
            next_name(folders.output, values["filename_prefix"], 0, 0)


Run = Callable[..., tuple[Any, ...]]  # (studio, node, its inputs by name) -> its outputs
RUNS: dict[str, Run] = {}


def node(kind: str) -> Callable[[Run], Run]:
    """Register what a kind of node does."""

    def register(run: Run) -> Run:
        RUNS[kind] = run
        return run

    return register


@node("CheckpointLoaderSimple")
def load_checkpoint(studio: Studio, one: Node, ckpt_name: str) -> tuple[Any, ...]:
    weights: Checkpoint = studio.opened("checkpoints", ckpt_name, checkpoint.read)
    return weights, Text(weights), weights


@node("LoraLoader")
def load_lora(
    studio: Studio, one: Node, model: Checkpoint, clip: Text, lora_name: str,
    strength_model: float, strength_clip: float,
) -> tuple[Checkpoint, Text]:  # fmt: skip
    if not strength_model and not strength_clip:
        return model, clip
    file = lora.read(studio.folders.model("loras", lora_name), model, clip.weights)
    studio.notes += file.notes()
    text = file.applied(clip.weights, "text", strength_clip)
    return file.applied(model, "unet", strength_model), replace(clip, weights=text)


@node("VAELoader")
def load_vae(studio: Studio, one: Node, vae_name: str) -> tuple[Checkpoint]:
    return (studio.opened("vae", vae_name, checkpoint.read_vae),)


@node("ModelSamplingDiscrete")
def set_sampling(
    studio: Studio, one: Node, model: Checkpoint, sampling: str, zsnr: bool
) -> tuple[Checkpoint]:
    predicts = {"eps": "eps", "v_prediction": "v"}[sampling]
    return (replace(model, predicts=predicts, zero_snr=zsnr),)


@node("CLIPSetLastLayer")
def set_last_layer(studio: Studio, one: Node, clip: Text, stop_at_clip_layer: int) -> tuple[Text]:
    return (replace(clip, last=stop_at_clip_layer),)


@node("CLIPTextEncode")
def encode_text(studio: Studio, one: Node, clip: Text, text: str) -> tuple[Conditioning]:
    shelf = Shelf(studio.folders.embeddings())
    for name in embeddings_named(text):
        if shelf.find(name) is None:
            studio.notes.append(f"embedding:{name} is not there and was left out of the prompt.")
    return (studio.part(clip.weights, "text").encode(text, clip.last, shelf),)


@node("LoadImage")
def load_image(studio: Studio, one: Node, image: str) -> tuple[Tensor, None]:
    return pixels.load_frames(studio.folders.picture(image)), None  # no node here takes a mask


@node("ImageScale")
def scale_image(
    studio: Studio, one: Node, image: Tensor, upscale_method: str, width: int, height: int,
    crop: str,
) -> tuple[Tensor]:  # fmt: skip
    enough_memory(len(image) * width * height * 3 * 4 * 4)
    return (pixels.scale_as(image, upscale_method, width, height, crop),)


@node("VAEEncode")
def encode_image(studio: Studio, one: Node, pixels: Tensor, vae: Checkpoint) -> tuple[Tensor]:
    enough_memory(pixels.shape[1] * pixels.shape[2] * ENCODE * width(studio))
    return (quick(studio.part(vae, "vae")).encode(middle(pixels)).cpu(),)


@node("EmptyLatentImage")
def empty_latent(
    studio: Studio, one: Node, width: int, height: int, batch_size: int
) -> tuple[Tensor]:
    enough_memory(batch_size * width * height // 64 * 4 * 4)
    return (torch.zeros([batch_size, 4, height // 8, width // 8]),)


@node("KSampler")
def sample(
    studio: Studio, one: Node, model: Checkpoint, positive: Conditioning,
    negative: Conditioning, latent_image: Tensor, **settings: Any,
) -> tuple[Tensor]:  # fmt: skip
    recipe, done = recipe_of(settings), count(1)

    def watch(seen: str, tensor: Tensor) -> None:
        if seen.startswith("step/"):
            studio.progress("step", next(done), recipe.steps)

    unet = studio.part(model, "unet")
    ready = model_of(model, unet, studio.placement)
    return (ksampler(ready, recipe, positive, negative, latent_image, watch),)


RUNS["KSamplerAdvanced"] = sample


def recipe_of(settings: Mapping[str, Any]) -> Recipe:
    """The settings of a KSampler or KSamplerAdvanced node; texts and links are not in it."""
    told = dict(settings)
    told["seed"] = told.pop("noise_seed", told.get("seed"))
    told.setdefault("denoise", 1.0)  # what KSamplerAdvanced always has
    for switch in ("add_noise", "return_with_leftover_noise"):
        if switch in told:
            told[switch] = told[switch] == "enable"
    return Recipe("", **told)


@node("VAEDecode")
def decode(studio: Studio, one: Node, samples: Tensor, vae: Checkpoint) -> tuple[Tensor]:
    enough_memory(samples.shape[2] * samples.shape[3] * DECODE * width(studio))
    return (quick(studio.part(vae, "vae")).decode(samples).cpu(),)


def width(studio: Studio) -> int:
    """Bytes of a number of the VAE where its memory is the computer's own, else 0."""
    on_cpu = studio.placement.device.type == "cpu"
    return width_of(studio.placement.vae) if on_cpu else 0


@node("SaveImage")
def save_image(studio: Studio, one: Node, images: Tensor, filename_prefix: str) -> tuple[Any, ...]:
    return saved(studio, one, images, studio.folders.output, filename_prefix)


@node("PreviewImage")
def preview_image(studio: Studio, one: Node, images: Tensor) -> tuple[Any, ...]:
    return saved(studio, one, images, studio.folders.temp, "ComfyUI_temp")


def saved(studio: Studio, one: Node, images: Tensor, folder: Path, prefix: str) -> tuple[Any, ...]:
    """Write every picture of a batch beside what is there, the graph in its text chunks."""
    high, wide = images.shape[1:3]
    path, number = next_name(folder, prefix, wide, high)
    told = canvas.chunks(studio.graph)
    for place, image in enumerate(images):
        name = path.name.replace("%batch_num%", str(place))
        file = path.with_name(f"{name}_{number + place:05}_.png")
        with pixels.whole_file(file) as out:
            out.write(pixels.to_png(image, told))
        hashed = hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
        studio.pictures.append(Picture(one.id, file, wide, high, hashed))
    return ()
