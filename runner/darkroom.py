"""Darkroom: the VAE of vae.py on the same weights, computed faster on the CPU.

The same network, its wide 3 x 3 convolutions done in tiles (winograd.py) where they see enough
pixels; pictures then lie channels last on the whole way. Whatever listens to a layer of the plain
VAE (register_forward_hook) still hears it: that layer is then computed the plain way.
"""

# mypy: disable-error-code="no-any-return"
# (torch says of no module what it returns)

from copy import deepcopy

import torch
from torch import Tensor, nn

from runner import winograd
from runner.memory import free_memory
from runner.vae import VAE
from runner.winograd import LARGE

REPAYS = 2000  # pixels below which transforming the weights takes longer than it saves
NARROWEST = 32  # channels, likewise
SHARE = 4  # no more than this part of the free memory is taken


class Tiled(nn.Module):
    """One convolution in tiles: (B, I, H, W) to (B, O, H, W); its weights made when first used."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.plain = [conv]  # in a list: not one of this module's own
        self.tiles: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        (conv,) = self.plain
        if len(x) * x.shape[2] * x.shape[3] < REPAYS or conv._forward_hooks:
            return conv(x)
        if self.tiles is None or self.tiles.dtype != conv.weight.dtype:
            self.tiles = winograd.transformed(conv.weight, LARGE)
        rows = x.permute(0, 2, 3, 1).contiguous()
        return winograd.convolved(rows, self.tiles, conv.bias, LARGE).permute(0, 3, 1, 2)


def quick(vae: VAE) -> VAE:
    """A VAE that shares every weight with the one given; that one itself where tiles do not pay:
    off the CPU, in 16 bits, or where there is no memory for them.
    """
    weight = vae.quant_conv.weight
    wide = [one for one in vae.modules() if isinstance(one, nn.Conv2d) and suits(one)]
    need = sum(one.weight.numel() * one.weight.element_size() * 36 // 9 for one in wide)
    there = weight.device.type == "cpu" and weight.dtype == torch.float32
    if not there or need > free_memory() / SHARE:
        return vae
    leaves = {id(one): one for one in vae.modules() if not list(one.children())}
    return deepcopy(vae, leaves | {id(one): Tiled(one) for one in wide})


def suits(conv: nn.Conv2d) -> bool:
    return winograd.suits(conv) and min(conv.in_channels, conv.out_channels) >= NARROWEST
