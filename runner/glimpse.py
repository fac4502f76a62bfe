"""Glimpse: what a sampler has so far as a small picture, without a decoder.

How the channels of a latent colour a picture is fitted by least squares to the model at hand: what
its own encoder makes of eight pictures of one colour each, against those colours. So it holds for
every model and needs no table. (Of the embedded model's last steps it leaves 0.12 rms, a fit to the
very pictures 0.11; patches of colours in one picture 0.35: an encoder sees their edges.)
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from itertools import product
from math import ceil

import torch
from torch import Tensor

SIDE = 48  # latent pixels of the longer side, at most
FLAT = 48  # pixels a side of a picture of one colour
RIDGE = 1e-3  # keeps a fit tame


@torch.inference_mode()
def colours(encode: Callable[[Tensor], Tensor], scale: float) -> Tensor:
    """(C + 1, 3): the share of each channel of a scaled latent in red, green and blue, then what
    is added. encode: (B, H, W, 3) in 0..1 -> (B, C, H / 8, W / 8), unscaled; scale: of latents."""
    flats = torch.tensor(list(product((0.0, 1.0), repeat=3)))
    pictures = flats[:, None, None].repeat(1, FLAT, FLAT, 1)
    latents = encode(pictures).cpu().float() * scale
    rows = torch.cat([spots(one[None]) for one in latents])
    return fitted(rows, flats.repeat_interleave(len(rows) // len(flats), 0))


def glimpse(seen: Mapping[str, Tensor], step: int, shares: Tensor) -> dict[str, object]:
    """The sampler's state after a step, brought to the spread of a latent without noise.

    seen: the trace so far; shares: as colours() gives them. As JSON: width, height, and rgb, bytes
    row by row in base64.
    """
    state = smaller(seen[f"step/{step}"][:1].float())
    state = state / (1 + seen["sigmas"][step] ** 2).sqrt()
    picture = (spots(state) @ shares).nan_to_num().clamp(0, 1) * 255
    high, wide = state.shape[2:]
    rgb = picture.round().byte().contiguous().numpy().tobytes()
    return {"width": wide, "height": high, "rgb": b64encode(rgb).decode("ascii")}


def smaller(latent: Tensor) -> Tensor:
    """(1, C, h, w) with no side beyond SIDE: every n-th place of a larger one."""
    every = ceil(max(latent.shape[2:]) / SIDE)
    return latent[:, :, ::every, ::every]


def spots(latent: Tensor) -> Tensor:
    """(1, C, h, w) -> (h w, C + 1): the channels of each place, and a 1."""
    flat = latent[0].flatten(1).T
    return torch.cat([flat, torch.ones(len(flat), 1)], 1)


def fitted(rows: Tensor, wanted: Tensor) -> Tensor:
    """(C + 1, 3): the shares with which rows (n, C + 1) come nearest to colours (n, 3)."""
    rows, wanted = rows.double(), wanted.double()
    tame = RIDGE * len(rows) * torch.eye(rows.shape[1], dtype=rows.dtype)
    tame[-1, -1] = 0  # what is added is free
    shares: Tensor = torch.linalg.solve(rows.T @ rows + tame, rows.T @ wanted)
    return shares.float()
