"""Glimpse: what a sampler has so far as a small picture, without a decoder.

How the channels of a latent colour a picture is fitted to the very render, by least squares: what
the encoder made of the picture that came in, against that picture. So it holds for every model and
needs no table; a picture of one colour teaches it little, and its glimpses stay near that colour.
"""

from base64 import b64encode
from collections.abc import Mapping
from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 48  # latent pixels of the longer side, at most
RIDGE = 1e-3  # keeps a fit to few colours tame


def glimpse(seen: Mapping[str, Tensor], step: int, scale: float) -> dict[str, object]:
    """The sampler's state after a step, brought to the spread of a latent without noise.

    seen: the trace so far; scale: of the model's latents. As JSON: width, height, and rgb, bytes
    row by row in base64.
    """
    state = seen[f"step/{step}"][:1].float() / (1 + seen["sigmas"][step] ** 2).sqrt()
    clean = smaller(seen["latent/input"][:1].float() * scale)
    colours = fitted(clean, seen["image/input"][:1, ..., :3].movedim(-1, 1))
    picture = (spots(smaller(state)) @ colours).clamp(0, 1).nan_to_num() * 255
    high, wide = smaller(state).shape[2:]
    rgb = picture.round().byte().contiguous().numpy().tobytes()
    return {"width": wide, "height": high, "rgb": b64encode(rgb).decode("ascii")}


def smaller(latent: Tensor) -> Tensor:
    """(1, C, h, w) with no side beyond SIDE: every n-th place of a larger one."""
    return latent[:, :, :: (every := ceil(max(latent.shape[2:]) / SIDE)), ::every]


def spots(latent: Tensor) -> Tensor:
    """(1, C, h, w) -> (h w, C + 1): the channels of each place, and a 1."""
    flat = latent[0].flatten(1).T
    return torch.cat([flat, torch.ones(len(flat), 1)], 1)


def fitted(latent: Tensor, image: Tensor) -> Tensor:
    """(C + 1, 3): the share of each channel in red, green and blue, then what is added."""
    small = adaptive_avg_pool2d(image.float(), (latent.shape[2], latent.shape[3]))
    rows, wanted = spots(latent).double(), small[0].flatten(1).T.double()
    tame = RIDGE * len(rows) * torch.eye(rows.shape[1], dtype=rows.dtype)
    tame[-1, -1] = 0  # what is added is free
    shares: Tensor = torch.linalg.solve(rows.T @ rows + tame, rows.T @ wanted)
    return shares.float()
