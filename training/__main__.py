"""`python -m training PART --folder F`, in order: clip, vae, denoiser, pack; or `all` of them.

Each training is taken up where it was left.
"""

import argparse
from pathlib import Path

import torch

from runner.clip import TextEncoder
from runner.vae import VAE
from training import autoencoder, denoiser, pack, pair
from training.loop import Plan, averaged, together, train

STEPS = {"clip": 1000, "vae": 3200, "denoiser": 5000}


def main() -> None:
    options = argparse.ArgumentParser(prog="training", description=__doc__)
    options.add_argument("part", choices=(*STEPS, "pack", "all"))
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--steps", type=int)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--out", type=Path)
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    together()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for part in (*STEPS, "pack") if asked.part == "all" else (asked.part,):
        if part == "pack":
            pack.write(asked.folder, asked.out)
        else:
            teach(part, asked.folder, asked.steps or STEPS[part])


def teach(part: str, folder: Path, steps: int) -> None:
    match part:
        case "clip":
            both = pair.Pair()
            plan = Plan(part, steps, 2e-3, warm=60)
            train(both, plan, folder, lambda number: pair.loss(both, number))
        case "vae":
            vae = autoencoder.started()
            plan = Plan(part, steps, 5e-4, warm=60)
            train(vae, plan, folder, lambda number: autoencoder.loss(vae, number))
        case "denoiser":
            unet = denoiser.started()
            there = denoiser.pool(lambda: frozen(folder), folder)
            plan = Plan(part, steps, 1.5e-3, warm=100)
            train(unet, plan, folder, lambda number: denoiser.loss(unet, there, number))


def frozen(folder: Path) -> tuple[VAE, TextEncoder]:
    """What the denoiser rests on: the encoder, its latents centred, and the text tower."""
    vae, both = autoencoder.started(), pair.Pair()
    averaged(folder / "vae.pt", vae)
    averaged(folder / "clip.pt", both)
    return autoencoder.centred(vae), pair.lengthened(both.text)


if __name__ == "__main__":
    main()
