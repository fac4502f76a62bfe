"""LoRA: a file of small changes to a checkpoint's weights (Hu et al. 2021).

    W + strength · α/r · U D        U (out, r) and D (r, in); r their rank, α stored beside them

Names as kohya's and diffusers' trainers write them, as ComfyUI 0.3.64 knows them (lora.py:
model_lora_keys_unet, model_lora_keys_clip). What fits nothing there fits nothing here, and is
counted.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from runner import aliases, weights
from runner.checkpoint import Change, Checkpoint
from runner.families import SD1, SD2, SDXL
from runner.recipe import Refused
from runner.tables import Shape
from runner.weights import Weights

PAIRS = (  # how trainers end the names of U and D
    (".lora_up.weight", ".lora_down.weight"),
    ("_lora.up.weight", "_lora.down.weight"),
    (".lora_B.weight", ".lora_A.weight"),
    (".lora.up.weight", ".lora.down.weight"),
    (".lora_B", ".lora_A"),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
    (".lora_B.default.weight", ".lora_A.default.weight"),
)
OTHERS = {  # other ways to say a change, which are not read here
    ".hada_w1_a": "LoHa",
    ".lokr_w1": "LoKr",
    ".lokr_w1_a": "LoKr",
    ".a1.weight": "GLoRA",
    ".oft_blocks": "OFT or BOFT",
}
IN_LAYERS = (  # of a text encoder, that trainers name one by one
    *("mlp.fc1", "mlp.fc2"),
    *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")),
)
TOWERS = {  # family -> (prefix of ours, ComfyUI's name, kohya's, diffusers')
    SD1.name: (("", "clip_l", ("lora_te", "lora_te1"), "text_encoder"),),
    SD2.name: (("model.", "clip_h", ("lora_te", "lora_te1"), "text_encoder"),),
    SDXL.name: (
        ("0.transformer.", "clip_l", ("lora_te", "lora_te1"), "text_encoder"),
        ("1.model.", "clip_g", ("lora_te2",), "text_encoder_2"),
    ),
}


@dataclass(frozen=True)
class Target:
    """A weight of a checkpoint, or some rows of it, or what it is turned on its side."""

    part: str
    name: str
    shape: Shape  # of those rows, as the LoRA sees them
    rows: tuple[int | None, int | None] = (None, None)  # from, to
    turned: bool = False

    def change(self, change: Change) -> Change:
        """A change of what is aimed at, as a change of the whole weight."""

        def whole(weight: Tensor) -> Tensor:
            seen = weight[slice(*self.rows)]
            seen = seen.T.contiguous() if self.turned else seen
            changed = change(seen)
            weight[slice(*self.rows)] = changed.T if self.turned else changed
            return weight

        return whole


@dataclass(frozen=True)
class Lora:
    """A file's changes by part and weight, and what in it fits nothing."""

    path: Path
    changes: Mapping[str, Mapping[str, tuple[Callable[[float], Change], ...]]]
    left_out: tuple[str, ...]
    of: int  # names in the file

    def applied(self, checkpoint: Checkpoint, part: str, strength: float) -> Checkpoint:
        """The checkpoint with one part changed, after what was changed before."""
        if not strength:
            return checkpoint
        more = dict(checkpoint.changes)
        for name, changes in self.changes.get(part, {}).items():
            before = more.get((part, name), ())
            more[part, name] = (*before, *(change(strength) for change in changes))
        return replace(checkpoint, changes=more)

    def notes(self) -> Iterator[str]:
        if self.left_out:
            count, first = len(self.left_out), self.left_out[0]
            what = f"{count} of {self.of} names in {self.path} fit nothing, the first {first}"
            yield f"{what}: left out, as ComfyUI leaves them out."


def read(path: Path, checkpoint: Checkpoint, text: Checkpoint | None = None) -> Lora:
    """What a LoRA file changes in a checkpoint; its tensors are not read yet.

    text: where the text encoder comes from, if not from the same checkpoint.

    Refused: as weights.opened() does; lora-fits-nothing, lora-misfit, lora-other-kind.
    """
    file = weights.opened(path)
    known = targets(checkpoint, text or checkpoint)
    changes: dict[str, dict[str, tuple[Callable[[float], Change], ...]]] = {}
    used: set[str] = set()
    for key, target in known.items():
        for change, names in found(file, key, target):
            aim = bias_of(target) if names[-1].endswith((".diff_b", ".b_norm")) else target
            here = changes.setdefault(aim.part, {})
            here[aim.name] = (*here.get(aim.name, ()), aimed(aim, change))
            used.update(names)
    used |= {f"{key}.alpha" for key in known}  # ComfyUI counts it as read
    left = tuple(name for name in file.shapes if name not in used)
    if not changes:
        kinds = [kind for end, kind in OTHERS.items() if any(k.endswith(end) for k in file.shapes)]
        if kinds:
            raise Refused("lora-other-kind", f"{path} is a {kinds[0]}, which is not applied here.")
        what = f"{path} is no LoRA for {checkpoint.family}: of its {len(file.shapes)} names"
        raise Refused("lora-fits-nothing", f"{what} none fits, the first is {min(file.shapes)!r}.")
    file.readable(used & file.shapes.keys())
    return Lora(path, changes, left, len(file.shapes))


def aimed(target: Target, change: Callable[[float], Change]) -> Callable[[float], Change]:
    return lambda strength: target.change(change(strength))


def bias_of(target: Target) -> Target:
    name = target.name.replace("in_proj_weight", "in_proj_bias")
    return replace(target, name=f"{name.removesuffix('weight')}bias" if name.endswith("weight") else
                   name, shape=target.shape[:1])  # fmt: skip


def found(
    file: Weights, key: str, target: Target
) -> Iterator[tuple[Callable[[float], Change], list[str]]]:
    """Every change that a file has under one name, with the names it is made of."""
    there = file.shapes
    pair = next((p for p in PAIRS if key + p[0] in there and key + p[1] in there), None)
    if pair:
        yield product(file, key, pair, target)
    for end in (".w_norm", ".b_norm", ".diff", ".diff_b"):
        if key + end in there:
            aim = target.shape[:1] if end in (".b_norm", ".diff_b") else target.shape
            fits(file, key + end, there[key + end], aim)
            yield difference(file, key + end), [key + end]


def product(
    file: Weights, key: str, pair: tuple[str, str], target: Target
) -> tuple[Callable[[float], Change], list[str]]:
    """strength · α/r · U D, with a convolution between the two (LoCon) or a DoRA's scale."""
    up, down = key + pair[0], key + pair[1]
    middle, alpha, scale = f"{key}.lora_mid.weight", f"{key}.alpha", f"{key}.dora_scale"
    more = [name for name in (middle, alpha, scale) if name in file.shapes]
    rank = file.shapes[down][0] if file.shapes[down] else 0
    inner = file.shapes[middle][2:] if middle in more else file.shapes[down][2:]
    made = file.shapes[up][:1] + file.shapes[down][1:2] + inner
    bare = made[:2] + tuple(side for side in made[2:] if side > 1)
    fits(file, up, bare, target.shape[:2] + tuple(side for side in target.shape[2:] if side > 1))

    def change(strength: float) -> Change:
        def apply(weight: Tensor) -> Tensor:
            u, d = tensor(file, up), tensor(file, down)
            if middle in more:
                d = through(d, tensor(file, middle))
            factor = float(tensor(file, alpha)) / rank if alpha in more else 1.0
            moved = torch.mm(u.flatten(1), d.flatten(1)).reshape(weight.shape)
            if scale in more:
                return decomposed(weight, moved * factor, tensor(file, scale), strength)
            return weight + (strength * factor) * moved

        return apply

    return change, [up, down, *more]


def through(down: Tensor, middle: Tensor) -> Tensor:
    """D followed by the convolution between D and U: (r, in, h, w)."""
    rank, inner = down.shape[0], down.shape[1]
    mixed = torch.mm(down.transpose(0, 1).flatten(1), middle.transpose(0, 1).flatten(1))
    return mixed.reshape(inner, rank, *middle.shape[2:]).transpose(0, 1)


def decomposed(weight: Tensor, moved: Tensor, scale: Tensor, strength: float) -> Tensor:
    """DoRA: the moved weight at a length of its own, by rows or columns (Liu et al. 2024)."""
    after = weight + moved
    by_rows = scale.shape[0] == after.shape[0]
    flat = weight.flatten(1) if by_rows else after.transpose(0, 1).flatten(1)
    length: Tensor = flat.norm(dim=1, keepdim=True).reshape(-1, *[1] * (weight.dim() - 1))
    length = length if by_rows else length.transpose(0, 1)
    after = after * (scale / (length + torch.finfo(weight.dtype).eps))
    return after if strength == 1.0 else weight + strength * (after - weight)


def difference(file: Weights, name: str) -> Callable[[float], Change]:
    def change(strength: float) -> Change:
        def apply(weight: Tensor) -> Tensor:
            return weight + strength * tensor(file, name).reshape(weight.shape)

        return apply

    return change


def tensor(file: Weights, name: str) -> Tensor:
    out = torch.empty(file.shapes[name])
    file.fill(name, out)
    return out


def fits(file: Weights, name: str, made: Shape, wanted: Shape) -> None:
    if made != wanted:
        raise Refused(
            "lora-misfit",
            f"{file.path} was made for another model: {name} changes a weight of {made}, and "
            f"here it is {wanted}.",
        )


def targets(checkpoint: Checkpoint, text: Checkpoint) -> dict[str, Target]:
    """Every name by which a LoRA file may call a weight, without its ending, and that weight."""
    return {**dict(of_unet(checkpoint.shapes["unet"])), **dict(of_text(text))}


def of_unet(shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Target]]:
    theirs = aliases.unet(shapes)
    for name, shape in shapes.items():
        target = Target("unet", name, shape)
        if not name.endswith(".weight"):
            yield f"diffusion_model.{name}", target
            continue
        bare = name.removesuffix(".weight")
        yield f"diffusion_model.{bare}", target
        yield f"lora_unet_{bare.replace('.', '_')}", target
        other = theirs[name].removesuffix(".weight")
        for one in dict.fromkeys((other, other.replace("add_embedding", "class_embedding"))):
            yield from ((alias, target) for alias in of_diffusers(one))


def of_diffusers(name: str) -> Iterator[str]:
    """What trainers make of diffusers' name of a weight of the UNet."""
    yield f"lora_unet_{name.replace('.', '_')}"
    yield f"lycoris_{name.replace('.', '_')}"
    long = name.replace(".to_", ".processor.to_")
    long = long.removesuffix(".0") if long.endswith(".to_out.0") else long
    yield long
    yield f"unet.{long}"


def of_text(checkpoint: Checkpoint) -> Iterator[tuple[str, Target]]:
    for prefix, tower, kohya, diffusers in TOWERS[checkpoint.family]:
        for name, target in of_tower(prefix, checkpoint.shapes["text"]):
            yield f"text_encoders.{tower}.transformer.{name}", target
            if name == "text_projection" and tower == "clip_g":
                yield "lora_te2_text_projection", target
                yield "lora_prior_te_text_projection", target
            layer = name.removeprefix("text_model.encoder.layers.")
            if layer != name and layer.partition(".")[2] in IN_LAYERS:
                yield from ((f"{one}_{name.replace('.', '_')}", target) for one in kohya)
                yield f"{diffusers}.{name}", target


def of_tower(prefix: str, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Target]]:
    """(transformers' name of a weight of one text encoder, without ending; the weight)."""
    for full, shape in shapes.items():
        name = full.removeprefix(prefix)
        if not full.startswith(prefix):
            continue
        target = Target("text", full, shape)
        if name.startswith("text_model."):
            if name.endswith(".weight"):
                yield name.removesuffix(".weight"), target
        elif name == "text_projection":
            yield name, replace(target, shape=shape[::-1], turned=True)
        else:
            yield from opened(name, target)


def opened(name: str, target: Target) -> Iterator[tuple[str, Target]]:
    """The same for open_clip's names, where q, k and v are rows of one weight."""
    start = "transformer.resblocks."
    outer = {"token_embedding.weight": "embeddings.token_embedding",
             "positional_embedding": "embeddings.position_embedding",
             "ln_final.weight": "final_layer_norm"}  # fmt: skip
    if name in outer:
        yield f"text_model.{outer[name]}", target
    if not name.startswith(start):
        return
    number, _, rest = name.removeprefix(start).partition(".")
    layer = f"text_model.encoder.layers.{number}"
    if rest == "attn.in_proj_weight":
        width = target.shape[1]
        for place, one in enumerate("qkv"):
            rows = place * width, (place + 1) * width
            aim = replace(target, shape=(width, width), rows=rows)
            yield f"{layer}.self_attn.{one}_proj", aim
    elif rest.endswith(".weight"):
        yield f"{layer}.{aliases.OPEN_CLIP[rest.removesuffix('.weight')]}", target
