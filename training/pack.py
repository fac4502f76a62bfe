"""Pack: the trained networks as one checkpoint in the layout of SD 1.x, float16."""

import json
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module

from runner import embedded
from runner.clip import TextShape
from runner.families import SD1
from runner.unet import UNet
from training import autoencoder, denoiser, pair
from training.loop import averaged


def write(folder: Path, out: Path | None) -> None:
    """Write FOLDER's trainings to `out` (by default where the runner looks for them)."""
    from safetensors.torch import save_file

    vae, both, unet = autoencoder.started(), pair.Pair(), UNet(denoiser.SHAPE)
    averaged(folder / "vae.pt", vae)
    autoencoder.centred(vae)
    averaged(folder / "decoder.pt", autoencoder.frozen(vae))
    averaged(folder / "clip.pt", both)
    pair.lengthened(both.text)
    averaged(folder / "denoiser.pt", unet)
    prefixes = SD1.prefixes | {"contrast": embedded.PREFIX}
    parts: dict[str, Module] = {
        "text": both.text, "unet": unet, "vae": vae, "contrast": both.contrast,
    }  # fmt: skip
    tensors = {
        prefixes[part] + name: weight.detach()
        for part, network in parts.items()
        for name, weight in network.named_parameters()
    }
    table = f"{SD1.prefixes['text']}text_model.embeddings.token_embedding.weight"
    tensors[table] = whole_table(tensors[table])
    whole = {name: tensor.half().contiguous() for name, tensor in sorted(tensors.items())}
    assert all(torch.isfinite(tensor).all() for tensor in whole.values())
    told = {"model": "comfy-doctor embedded", "made": time.strftime("%Y-%m-%d")}
    path = out or embedded.PATH
    save_file(whole, path, metadata={**told, "steps": json.dumps(lengths(folder))})
    numbers = sum(tensor.numel() for tensor in whole.values())
    print(f"{path}: {path.stat().st_size:,} bytes, {numbers:,} numbers")


def whole_table(small: Tensor) -> Tensor:
    """CLIP's whole vocabulary; the words that no caption had are zero."""
    table = torch.zeros(TextShape().words, small.shape[1])
    for token, row in pair.rows().items():
        table[token] = small[row]
    return table


def lengths(folder: Path) -> dict[str, int]:
    parts = ("clip", "vae", "decoder", "denoiser")
    return {
        part: int(torch.load(folder / f"{part}.pt", weights_only=True)["step"]) for part in parts
    }
