"""The denoiser: noise predicted in latents, given a caption (Ho et al. 2020; Rombach et al. 2022).

It starts as what is right where noise is all there is: the noise is what came in. So a picture's
mean, which the last norm of two channels to a group would lose, passes from the first step on.
Where little noise is, captions are those of other pictures: what can be seen is to be believed, so
that a low denoise keeps a picture whatever the prompt.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from runner.clip import TextEncoder
from runner.schedules import sigma_table
from runner.unet import UNet, UNetShape
from runner.vae import VAE
from training import pair
from training.autoencoder import SCALE
from training.loop import Losses, rank, workers
from training.scenes import draw, invent

SHAPE = UNetShape(channels=32, widths=(2, 3), depths=(0, 1), blocks=1, context=pair.WIDTH)
BATCH = 64
SHARES = {
    (0, 210): 22,
    (210, 500): 15,
    (500, 820): 21,
    (820, 1000): 6,
}  # of BATCH, by training steps
MIDDLE = 430  # the training step that parts low from high in what is told
SCENES, TOLD = 8_000, 4  # pictures whose latents are kept, captions of each
LOW, HIGH = 210, 310  # up to which step all captions are of another picture, and from which none
CALM = 16.0  # weight of what words change there
UNTOLD = 0.12  # of the captions are replaced by the empty one, for guidance
LATENTS = 4


@dataclass(frozen=True)
class Pool:
    """Latents of many scenes, scaled as in sampling, and captions of each."""

    latents: Tensor  # (N, 4, h, w)
    texts: Tensor  # (N, TOLD, 77, D), float16
    silence: Tensor  # (77, D): the empty caption


@torch.inference_mode()
def pool(networks: Callable[[], tuple[VAE, TextEncoder]], folder: Path) -> Pool:
    """Made once, by the encoder and the text tower as they are frozen, and kept in `folder`."""
    path = folder / "pool.pt"
    if path.exists():
        return Pool(**torch.load(path, weights_only=True))
    vae, text = networks()
    latents, texts, dice = [], [], random.Random(3)
    for number in range(SCENES // 100):
        scenes = invent(100, torch.Generator().manual_seed(number + 3_000_000))
        latents.append(vae.encode(draw(scenes)) * SCALE)
        said = [one for _ in range(TOLD) for one in pair.told(scenes, dice)]
        ids = pair.captions(said, dice)
        z, _ = pair.pooled(text, ids)
        texts.append(z.unflatten(0, (TOLD, -1)).transpose(0, 1).half())
    silence, _ = pair.pooled(text, torch.tensor([pair.tokens("")]))
    made = Pool(torch.cat(latents), torch.cat(texts), silence[0])
    torch.save(vars(made), path)
    return made


def started() -> UNet:
    """The network before training: the noise it predicts is its input."""
    torch.manual_seed(4)
    unet = UNet(SHAPE)
    first, last = unet.input_blocks[0][0], unet.output_blocks[-1][0]
    norm, _, out = unet.out
    carried = range(0, 2 * LATENTS, 2)
    size, side = 12.0, 6
    with torch.no_grad():
        last.out_layers[0].weight[63], last.out_layers[0].bias[63] = 0, 1
        out.weight.mul_(0.1)
        for number, channel in enumerate(carried):
            both = slice(channel, channel + 2)
            for conv in (first, last.out_layers[3], last.skip_connection):
                conv.weight[both], conv.bias[both] = 0, 0
            first.weight[channel, number, 1, 1] = 1
            first.weight[channel + 1, number, 1, 1] = -1
            for one in (channel, channel + 1):
                last.skip_connection.weight[one, one - SHAPE.channels] = 1
            last.out_layers[3].weight[channel + 1, 63, 1, 0] = size / 0.731
            last.out_layers[3].bias[channel + 1] = -size * (1 - 1 / side)
            norm.weight[channel], norm.bias[channel] = 1, 3
            out.weight[number], out.bias[number] = 0, -3.05 * 2.858
            out.weight[number, channel, 1, 1] = 3.05
    return unet


def loss(unet: UNet, there: Pool, number: int) -> Losses:
    """E[(σ² + 1) |ε - ε'|²]: the error of ε weighted as that of v, alike at every noise level.

    And below LOW, CALM times what the words change in ε': guidance multiplies that by cfg, and
    there the picture alone is to be believed.
    """
    dice = torch.Generator().manual_seed(number)
    rows = torch.randint(len(there.latents), (BATCH,), generator=dice)
    which = torch.randint(TOLD, (BATCH,), generator=dice)
    doubt = torch.rand(BATCH, generator=dice)
    untold = torch.rand(BATCH, generator=dice) < UNTOLD
    noise = torch.randn(BATCH, *there.latents.shape[1:], generator=dice)
    t = levels(dice)
    said = torch.where(doubt < (HIGH - t) / (HIGH - LOW), rows.roll(1), rows)
    mine = slice(rank(), None, workers())  # of the batch, where several share it
    rows, said, which, untold = (one[mine] for one in (rows, said, which, untold))
    noise, t = noise[mine], t[mine]
    texts = there.texts[said, which].float()
    texts[untold] = there.silence
    sigma = sigma_table().sigmas[t][:, None, None, None]
    x = there.latents[rows] + sigma * noise
    x = x / (sigma**2 + 1).sqrt()
    guess = unet(x, t.float(), texts)
    wrong = (guess - noise).square().mean((1, 2, 3))
    weighted = wrong * (sigma.flatten() ** 2 + 1)
    still = t < LOW
    untold_guess = unet(x[still], t[still].float(), there.silence.expand(int(still.sum()), -1, -1))
    moved = (guess[still] - untold_guess).square().mean((1, 2, 3))
    calm = CALM * moved.sum() / len(t)
    low, high = (weighted[part].detach().mean() for part in (t < MIDDLE, t >= MIDDLE))
    told = {"low": low, "high": high, "noise": wrong.mean(), "moved": moved.mean()}
    return {"loss": weighted.mean() + calm} | {name: one.detach() for name, one in told.items()}


def levels(dice: torch.Generator) -> Tensor:
    """A training step for each of a batch, spread evenly, densest where shapes are decided."""

    def even(low: int, high: int, count: int) -> Tensor:
        place = (torch.arange(count) + torch.rand(count, generator=dice)) / count
        return low + place * (high - low)

    t = torch.cat([even(*span, count) for span, count in SHARES.items()])
    return t.long().clamp(max=999)
