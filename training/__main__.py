"""`python -m training PART --folder F`: clip, vae, decoder, denoiser, pack, in order, or `all`.

Each training is taken up where it was left.
"""

import argparse
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from runner.clip import TextEncoder
from runner.vae import VAE
from training import autoencoder, denoiser, pack, pair
from training.loop import Plan, averaged, together, train

STEPS = {"clip": 1000, "vae": 3200, "decoder": 400, "denoiser": 11500}


def main() -> None:
    options = argparse.ArgumentParser(prog="training", description=__doc__)
    options.add_argument("part", choices=(*STEPS, "pack", "all"))
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--steps", type=int)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--workers", type=int, default=1, help="of the denoiser, a thread each")
    options.add_argument("--out", type=Path)
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    together()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for part in (*STEPS, "pack") if asked.part == "all" else (asked.part,):
        steps = asked.steps or STEPS.get(part, 0)
        if part == "pack":
            pack.write(asked.folder, asked.out)
        elif part == "denoiser" and asked.workers > 1:
            shared(asked.folder, steps, asked.workers)
        else:
            teach(part, asked.folder, steps)


def shared(folder: Path, steps: int, workers: int) -> None:
    """The denoiser by several processes: threads would wait for each other more than they work."""
    denoiser.pool(lambda: frozen(folder), folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    words = ["denoiser", "--folder", str(folder), "--steps", str(steps)]
    every = [
        subprocess.Popen(
            [sys.executable, "-m", "training", *words],
            env=os.environ | meeting | {"WORLD_SIZE": str(workers), "RANK": str(rank)},
        )
        for rank in range(workers)
    ]
    codes = [worker.wait() for worker in every]
    if any(codes):
        raise SystemExit(1)


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
        case "decoder":
            vae = autoencoder.started()
            averaged(folder / "vae.pt", vae)
            vae = autoencoder.frozen(autoencoder.centred(vae))
            plan = Plan(part, steps, 3e-4, warm=20, keep=0.98)
            train(vae, plan, folder, lambda number: autoencoder.decoder_loss(vae, number))
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
