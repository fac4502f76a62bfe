"""Checkpoint: what a file of weights is, read from its names and shapes, and its way into networks.

The weights of a part are written once, where they stay: there is no second copy of them.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from runner import aliases
from runner.early import LENT
from runner.families import FAMILIES, SD1, AnyText
from runner.memory import reserve
from runner.recipe import Progress, Refused
from runner.tables import Shape
from runner.unet import UNet, UNetShape
from runner.vae import VAE, VAEShape
from runner.weights import Weights, opened

Place = tuple[torch.device, torch.dtype]
Change = Callable[[Tensor], Tensor]  # of a weight in float32

PREFIXES = SD1.prefixes
OTHER_SD2_TEXT = "conditioner.embedders.0."  # the text part of SD 2.x as sgm saves it
UNUSED = (  # stored, but not asked for
    *("position_ids", "logit_scale", "text_projection.weight", "attn_mask"),
)
LEFT_BEHIND = ("loss.", "model_ema.")  # by the training of a VAE
VAE_PREFIXES = ("first_stage_model.", "vae.", "")
V_SPREAD = 0.09  # of one bias, above which ComfyUI takes an SD 2.x for v-prediction
V_BIAS = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
KEPT = (torch.float16, torch.bfloat16, torch.float32)
MILLION = 1_000_000  # weights: the unit of progress


def nothing(part: str, name: str) -> None:
    """What a checkpoint lends that lends nothing."""


@dataclass(frozen=True)
class Checkpoint:
    """Named weights that can be asked for one at a time, by the part's own names.

    shapes: part ("text", "unet", "vae") -> name below the part's prefix -> shape.
    fill(part, name, out) writes a tensor into `out`, which may have any floating dtype.
    lend(part, name): the tensor itself, as it is stored and not to be written to, or None;
    steady() is Refused, checkpoint-changed, if the file changed since.
    predicts: "eps" (noise) or "v"; zero_snr: the last training step is pure noise.
    """

    name: str
    family: str
    shapes: Mapping[str, Mapping[str, Shape]]
    fill: Callable[[str, str, Tensor], None]
    predicts: str = "eps"
    zero_snr: bool = False
    changes: Mapping[tuple[str, str], tuple[Change, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what a person should know
    lend: Callable[[str, str], Tensor | None] = nothing
    steady: Callable[[], None] = lambda: None

    def write(self, part: str, name: str, out: Tensor) -> None:
        """fill(), and what LoRA files change, one after the other in float32 as ComfyUI does."""
        self.fill(part, name, out)
        changes = self.changes.get((part, name))
        if changes:
            weight = out.to(torch.float32, copy=True)
            for change in changes:
                weight = change(weight)
            out.copy_(weight)

    def lent(self, part: str, name: str, place: Place) -> Tensor | None:
        """A weight that can stay as it is stored, of a network that computes in that place: a wide
        one of the denoiser, in float32 on the CPU, of as many bits or fewer, that nothing changes.
        """
        wide = part == "unet" and prod(self.shapes[part][name]) >= LENT
        here = place == (torch.device("cpu"), torch.float32)
        if not wide or not here or (part, name) in self.changes:
            return None
        weight = self.lend(part, name)
        return weight if weight is not None and weight.dtype in KEPT else None


@dataclass(frozen=True)
class Networks:
    text: AnyText
    unet: UNet
    vae: VAE


def read(path: Path) -> Checkpoint:
    """The checkpoint in a file, its table checked, no weight read yet.

    Refused: as weights.opened() does; checkpoint-incomplete, checkpoint-other-architecture,
    checkpoint-dtype.
    """
    file = opened(path)
    family = looks_like(file.shapes)
    if family not in FAMILIES:
        raise Refused(
            "checkpoint-other-architecture",
            f"{path} is recognised as {family}, which is not rendered here; "
            f"{', '.join(FAMILIES)} are.",
        )
    prefixes = dict(FAMILIES[family].prefixes)
    if family == "SD 2.x" and any(key.startswith(OTHER_SD2_TEXT) for key in file.shapes):
        prefixes["text"] = OTHER_SD2_TEXT
    stored = {name: dict(own_names(file.shapes, prefix)) for name, prefix in prefixes.items()}
    shapes = {part: {k: file.shapes[v] for k, v in names.items()} for part, names in
              stored.items()}  # fmt: skip
    complete(path, family, prefixes, shapes)
    file.readable(key for names in stored.values() for key in names.values())

    def fill(part: str, name: str, out: Tensor) -> None:
        file.fill(stored[part][name], out)

    def lend(part: str, name: str) -> Tensor | None:
        return file.lend(stored[part][name])

    marked = family == "SDXL" and "v_pred" in file.shapes
    v = marked or (family == "SD 2.x" and spread(fill, shapes) > V_SPREAD)
    zero_snr = marked and "ztsnr" in file.shapes
    predicts = "v" if v else "eps"
    return Checkpoint(
        str(path), family, shapes, fill, predicts, zero_snr, lend=lend, steady=file.steady
    )


def read_vae(path: Path) -> Checkpoint:
    """The VAE in a file of its own, or in a whole checkpoint: a Checkpoint of that part alone.

    Refused: as read() does; vae-not-found where there is none.
    """
    file = opened(path)
    if "decoder.up_blocks.0.resnets.0.norm1.weight" in file.shapes:
        return renamed_vae(file)
    prefix = next((p for p in VAE_PREFIXES if f"{p}decoder.conv_in.weight" in file.shapes), None)
    if prefix is None:
        what = looks_like(file.shapes)
        raise Refused("vae-not-found", f"{path} holds no VAE of Stable Diffusion: it is {what}.")
    stored = dict(own_names(file.shapes, prefix))
    shapes = {"vae": {name: file.shapes[key] for name, key in stored.items()}}
    complete(path, SD1.name, {"vae": prefix}, shapes)
    file.readable(stored.values())

    def fill(part: str, name: str, out: Tensor) -> None:
        file.fill(stored[name], out)

    return Checkpoint(str(path), SD1.name, shapes, fill)


def renamed_vae(file: Weights) -> Checkpoint:
    """A VAE as diffusers saves it: other names, and linear layers where ours are convolutions."""
    stored = aliases.vae(file.shapes)
    shapes = {name: file.shapes[key] for name, key in stored.items()}
    for name, shape in shapes.items():
        if ".mid.attn_1." in name and len(shape) == 2:
            shapes[name] = (*shape, 1, 1)
    complete(file.path, SD1.name, {"vae": ""}, {"vae": shapes})
    file.readable(stored.values())

    def fill(part: str, name: str, out: Tensor) -> None:
        file.fill(stored[name], out)

    return Checkpoint(str(file.path), SD1.name, {"vae": shapes}, fill)


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
        name = key.removeprefix(prefix)
        if not key.startswith(prefix) or key.endswith(UNUSED) or name.startswith(LEFT_BEHIND):
            continue
        if prefix == PREFIXES["text"] and not name.startswith("text_model."):
            name = f"text_model.{name}"
        yield name, key


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


def assemble(
    checkpoint: Checkpoint, places: Mapping[str, Place], threads: int, progress: Progress
) -> Networks:
    """All networks of a checkpoint, each part on its device and in its dtype."""
    parts = networks(checkpoint, places, threads, progress)
    return Networks(**parts)  # type: ignore[arg-type]


@torch.inference_mode(False)  # memory made in inference mode would be closed to other threads
def networks(
    checkpoint: Checkpoint, places: Mapping[str, Place], threads: int, progress: Progress
) -> dict[str, nn.Module]:
    """The parts of a checkpoint that have a place, each on its device and in its dtype.

    Weights on the CPU are lent by their file (mapped.py) or written once, where they stay; others
    pass through one tensor's worth of CPU memory. Refused: not-enough-memory.
    """
    parts = {part: build(checkpoint.family, part, checkpoint.shapes[part]) for part in places}
    every = [
        (part, name, weight) for part in parts for name, weight in parts[part].named_parameters()
    ]
    for part, name, _ in every:
        lent = checkpoint.lent(part, name, places[part])
        if lent is not None:
            put(parts[part], name, lent)
    wanted = [(part, name, weight) for part, name, weight in every if
              parts[part].get_parameter(name).is_meta]  # fmt: skip
    room = iter(reserve([(weight.shape, *places[part]) for part, _, weight in wanted]))
    weights = {(part, name): next(room) for part, name, _ in wanted}

    def load(part: str, name: str) -> None:
        out = weights[part, name]
        if out.device.type == "cpu":
            checkpoint.write(part, name, out)
        else:
            staged = torch.empty(out.shape, dtype=out.dtype)
            checkpoint.write(part, name, staged)
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
    return parts


def put(network: nn.Module, name: str, tensor: Tensor) -> None:
    """Give a network one of its weights by its dotted name, without copying it."""
    owner, _, last = name.rpartition(".")
    setattr(network.get_submodule(owner), last, nn.Parameter(tensor, requires_grad=False))
