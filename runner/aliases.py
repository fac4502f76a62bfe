"""Aliases: the names under which others know the same weights (diffusers, transformers).

Ours are the checkpoint's own. Files that were trained or saved elsewhere say them differently;
ComfyUI 0.3.64 has the same tables in utils.py (unet_to_diffusers) and diffusers_convert.py.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ENDS = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
MIDDLE = ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1")
OPEN_CLIP = {  # open_clip's names of a layer -> transformers'
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def unet(names: Iterable[str]) -> dict[str, str]:
    """Our name -> diffusers' name, of every weight of a UNet."""
    names = list(names)
    places = {**ENDS, **dict(stages(names))}
    return {name: renamed(name, places) for name in names}


def renamed(name: str, places: Mapping[str, str]) -> str:
    start = next(p for p in prefixes(name) if p in places)
    rest = name[len(start) + 1 :]
    for ours, theirs in RESIDUAL.items():
        if rest.startswith(f"{ours}."):
            rest = theirs + rest[len(ours) :]
    return f"{places[start]}.{rest}"


def prefixes(name: str) -> Iterator[str]:
    """A dotted name, shorter and shorter: a.b.c, a.b, a."""
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(len(parts), 0, -1))


def stages(names: list[str]) -> Iterator[tuple[str, str]]:
    """(our stage and layer, diffusers' block): input_blocks.1.0 -> down_blocks.0.resnets.0 ..."""
    yield from ((f"middle_block.{n}", place) for n, place in enumerate(MIDDLE))
    level = block = 0
    for n in range(1, count(names, "input_blocks.")):
        if f"input_blocks.{n}.0.op.weight" in names:
            yield f"input_blocks.{n}.0.op", f"down_blocks.{level}.downsamplers.0.conv"
            level, block = level + 1, 0
        else:
            yield f"input_blocks.{n}.0", f"down_blocks.{level}.resnets.{block}"
            yield f"input_blocks.{n}.1", f"down_blocks.{level}.attentions.{block}"
            block += 1
    each = count(names, "output_blocks.") // (level + 1)
    for n in range(count(names, "output_blocks.")):
        level, block = divmod(n, each)
        yield f"output_blocks.{n}.0", f"up_blocks.{level}.resnets.{block}"
        yield f"output_blocks.{n}.1", f"up_blocks.{level}.attentions.{block}"
        for layer in (1, 2):
            yield f"output_blocks.{n}.{layer}.conv", f"up_blocks.{level}.upsamplers.0.conv"


def count(names: Iterable[str], prefix: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in names if name.startswith(prefix))


VAE = (  # a pattern of diffusers' name of a VAE's weight -> ours; {n} is its level from the top
    (r"(encoder|decoder)\.mid_block\.resnets\.0\.", r"\1.mid.block_1."),
    (r"(encoder|decoder)\.mid_block\.resnets\.1\.", r"\1.mid.block_2."),
    (r"(encoder|decoder)\.mid_block\.attentions\.0\.", r"\1.mid.attn_1."),
    (r"encoder\.down_blocks\.(\d+)\.resnets\.", r"encoder.down.\1.block."),
    (r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample."),
    (r"decoder\.up_blocks\.(\d+)\.resnets\.", r"decoder.up.\1.block."),
    (r"decoder\.up_blocks\.(\d+)\.upsamplers\.0\.", r"decoder.up.\1.upsample."),
    (r"\.conv_norm_out\.", r".norm_out."),
    (r"\.conv_shortcut\.", r".nin_shortcut."),
    (r"\.attn_1\.group_norm\.", r".attn_1.norm."),
    (r"\.attn_1\.(?:to_q|query)\.", r".attn_1.q."),
    (r"\.attn_1\.(?:to_k|key)\.", r".attn_1.k."),
    (r"\.attn_1\.(?:to_v|value)\.", r".attn_1.v."),
    (r"\.attn_1\.(?:to_out\.0|proj_attn)\.", r".attn_1.proj_out."),
)


def vae(names: Iterable[str]) -> dict[str, str]:
    """Our name -> diffusers' name, of the weights of a VAE that diffusers saved."""
    names = list(names)
    found = re.compile(r"decoder\.up_blocks\.(\d+)\.")
    last = max((int(m[1]) for m in map(found.match, names) if m), default=0)
    return {ours(name, last): name for name in names}


def ours(name: str, last: int) -> str:
    for pattern, to in VAE:
        name = re.sub(pattern, to, name)
    return re.sub(r"^decoder\.up\.(\d+)", lambda m: f"decoder.up.{last - int(m[1])}", name)
