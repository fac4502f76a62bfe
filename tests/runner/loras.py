"""LoRA files for tests: every weight of a small checkpoint changed once, in every style there is.

Which names there are is ComfyUI's word (tests/golden/lora.json.gz); numbers follow from names.
"""

import zlib
from math import prod

import torch

STYLES = (  # how U and D are named
    (".lora_up.weight", ".lora_down.weight"),
    ("_lora.up.weight", "_lora.down.weight"),
    (".lora_B.weight", ".lora_A.weight"),
    (".lora.up.weight", ".lora.down.weight"),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
)
RANK = 2


def number(text):
    return zlib.crc32(text.encode())


def made(name, *shape):
    u = torch.rand(shape, generator=torch.Generator().manual_seed(number(name))) - 0.5
    return (u * (12 / max(1, prod(shape[1:]))) ** 0.5).half()


def one_each(names):
    """{alias: [key, shape]} -> key -> (an alias, shape): another alias for every key."""
    aliases = {}
    for alias, (key, shape) in names.items():
        aliases.setdefault(key, []).append((alias, shape))
    return {key: sorted(found)[number(key) % len(found)] for key, found in aliases.items()}


def tensors(names):
    """The tensors of a LoRA file that changes every weight named."""
    told = {}
    for alias, shape in one_each(names).values():
        if len(shape) < 2:
            told[f"{alias}.diff"] = made(alias, *shape)
        else:
            told |= product(alias, shape)
    return told


def product(alias, shape):
    style = number(alias) % (len(STYLES) + 2)
    up, down = STYLES[style % len(STYLES)]
    out, inner, *window = shape
    told = {}
    if style == len(STYLES) and window and not alias.endswith("x"):  # a convolution between
        up, down = STYLES[0]
        told[f"{alias}.lora_mid.weight"] = made(f"{alias}m", RANK, RANK, *window)
        window = [1] * len(window)
    if style == len(STYLES) + 1:
        told[f"{alias}.dora_scale"] = 1 + made(f"{alias}s", 1, inner, *[1] * len(window)).abs()
    told[alias + up] = made(f"{alias}u", out, RANK, *[1] * len(window))
    told[alias + down] = made(f"{alias}d", RANK, inner, *window)
    if number(alias) % 3:
        told[f"{alias}.alpha"] = torch.tensor(1.5).half()
    return told
