"""Encode, one step of the denoiser and decode, held against diffusers at any size.

    python -m tests.runner.against_diffusers [OUT.json]     full size: 512 x 512 and odd ones

The same weights, not copied: diffusers' modules are given ours under their own names. Small
networks at odd sizes run in the suite (test_against_diffusers.py).
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from runner import aliases, devices, pipeline, synthetic
from runner.guidance import Prompt
from runner.pixels import crop, gradient
from runner.trace import gap

SIZES = ((512, 512), (520, 328), (203, 149))  # width and height; the last is cropped to 200 x 144
SIGMA = 3.0
PLAIN, LOOKS = ("DownBlock2D", "UpBlock2D"), ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")


def unet(ours, shape):
    """diffusers' UNet of the same shape, holding the same tensors."""
    kinds = [LOOKS if depth else PLAIN for depth in shape.depths]
    with torch.device("meta"):
        theirs = UNet2DConditionModel(
            block_out_channels=[shape.channels * width for width in shape.widths],
            down_block_types=[down for down, _ in kinds],
            up_block_types=[up for _, up in reversed(kinds)],
            layers_per_block=shape.blocks,
            cross_attention_dim=shape.context,
            attention_head_dim=shape.heads,
        )
    stored = dict(ours.named_parameters())
    return given(theirs, {name: stored[mine] for mine, name in aliases.unet(stored).items()})


def vae(ours, shape):
    """diffusers' VAE of the same shape, holding the same tensors."""
    levels = len(shape.widths)
    with torch.device("meta"):
        theirs = AutoencoderKL(
            block_out_channels=list(shape.widths),
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            layers_per_block=shape.blocks,
            latent_channels=shape.latent,
        )
    stored, wanted = dict(ours.named_parameters()), theirs.state_dict()
    names = aliases.vae(wanted)
    return given(
        theirs, {name: stored[mine].view(wanted[name].shape) for mine, name in names.items()}
    )


def given(theirs, tensors):
    theirs.load_state_dict(tensors, strict=True, assign=True)
    return theirs.eval()


@torch.inference_mode()
def compare(models, shapes, width, height):
    """Relative rms of encode, one step and decode at one size, ours against diffusers'."""
    their_unet, their_vae = unet(models.denoiser.unet, shapes[0]), vae(models.vae, shapes[1])
    picture = gradient(width, height)
    ours = models.vae.encode(crop(picture))
    pixels = crop(picture).movedim(-1, 1) * 2 - 1
    told = {"encode": gap(ours, their_vae.encode(pixels).latent_dist.mode())}
    text, _ = models.text.encode("a cat")
    sigma = torch.tensor(SIGMA)
    x = ours * models.latent_scale + pipeline.first_noise(1, ours) * sigma
    t = models.denoiser.table.timestep(sigma.view(1))
    out = their_unet(x / (sigma**2 + 1) ** 0.5, t, text).sample
    told["step"] = gap(models.denoiser.guess(x, sigma, Prompt(text)), x - out * sigma)
    decoded = (their_vae.decode(ours).sample / 2 + 0.5).clamp(0, 1).movedim(1, -1)
    told["decode"] = gap(models.vae.decode(ours), decoded)
    return told


def main(out):
    models = pipeline.load(
        synthetic.checkpoint("sd15"), devices.choose("cpu", "float32"), 2, lambda *_: None
    )
    shapes = synthetic.SD1.unet, synthetic.VAEShape()
    told = {f"{width}x{height}": compare(models, shapes, width, height) for width, height in SIZES}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    about = {
        "what": "relative rms against diffusers, SD 1.5 at full size on synthetic weights",
        "command": "python -m tests.runner.against_diffusers",
        "commit": commit.strip(),
        "machine": devices.machine(torch.device("cpu")) | {"node": platform.machine()},
        "diffusers": diffusers.__version__,
        "gaps": told,
    }
    text = json.dumps(about, indent=1) + "\n"
    sys.stdout.write(text)
    if out:
        Path(out).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
