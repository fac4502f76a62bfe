"""Engine: the UNet of unet.py on the same weights, computed faster.

unet.py is the page to read; this file says the same in the order a machine likes, lever by lever
(levers.py). Pictures lie channels last throughout, so that pixels are rows for every product.

Shapes: B latents of (C, H, W); k texts each, so K = k·B rows; N = H·W pixels, L tokens.
"""

# mypy: disable-error-code="no-any-return,no-untyped-call"
# (torch says of no module what it returns)

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner import kernels, winograd
from runner.graphs import Captured
from runner.levers import Levers
from runner.memory import free_memory
from runner.products import by_columns, product, without
from runner.unet import (
    Attention,
    Downsample,
    FeedForward,
    ResBlock,
    SpatialTransformer,
    TransformerBlock,
    UNet,
    Upsample,
    waves,
)

Words = Sequence[tuple[Tensor, Tensor]]  # of each look at the text: keys, values (K, heads, L, d)
REPAYS = 2000  # pixels a convolution must see in a run before transformed weights repay
FEWEST = 128  # pixels a step below which tiles do not pay: their weights are 16/9 as many
FEW, HEAVY = 128, 1 << 20  # pixels of a step, and weights, of a convolution that is one product
TOGETHER = 8  # steps whose time embeddings are computed in one product
NARROWEST = 32  # channels, likewise


class Engine:
    """A UNet computed fast. Called like it, but with each latent once for all its texts.

    Not for two threads at a time: what is remembered belongs to the render that goes on.
    """

    def __init__(self, unet: UNet, levers: Levers):
        self.unet, self.levers, self.labels = unet, levers, unet.labels
        self.device, self.dtype = next(unet.parameters()).device, unet.dtype
        self.resblocks = [one for one in unet.modules() if isinstance(one, ResBlock)]
        self.blocks = [one for one in unet.modules() if isinstance(one, TransformerBlock)]
        self.coming: tuple[float, ...] = ()
        self.shifts: dict[float, Tensor] = {}  # timestep -> (1 or K, all blocks' channels)
        self.labelled: Tensor | None = None
        self.read: tuple[Tensor, Words] | None = None
        self.tiled: dict[nn.Module, Tensor] = {}
        self.joined: dict[nn.Module, Tensor] = {}
        self.captured: Captured | None = None
        self.spare = (free_memory() - unet.narrow) / 2  # bytes for transformed weights

    def begin(self, timesteps: Sequence[float]) -> None:
        """A render begins that will ask for these training steps, in this order."""
        self.coming = tuple(timesteps)
        self.shifts = {}

    def __call__(self, x: Tensor, t: float, text: Tensor, label: Tensor | None = None) -> Tensor:
        """The UNet's answer (K, 4, H, W) for x (B, 4, H, W) at step t with texts (K, L, D).

        label (K, Y): what SDXL is told beside the text. Rows are those of x, for the first text
        of each, then for the second.
        """
        with nullcontext() if self.levers.onednn else without():
            return self.answer(x, t, text, label)

    def answer(self, x: Tensor, t: float, text: Tensor, label: Tensor | None) -> Tensor:
        """The same, whichever way products are done."""
        if not self.levers.trunk:
            x = x.repeat(len(text) // len(x), 1, 1, 1)
        x = x.contiguous(memory_format=torch.channels_last)
        shift, words = self.shift(t, label), self.words(text)
        if not (self.levers.graph and x.is_cuda):
            return self.computed(x, shift, words)
        if self.captured is None or not self.captured.fits(x, shift, words):
            self.captured = Captured(self.computed, x, shift, words)
        return self.captured(x, shift, words)

    def computed(self, x: Tensor, shift: Tensor, words: Words) -> Tensor:
        """One pass through the network; no number in it depends on anything but its arguments."""
        unet, rows = self.unet, len(words[0][0])
        said = iter(words)
        moved = iter(shift.split([one.out_layers[3].out_channels for one in self.resblocks], 1))
        skips: list[Tensor] = []
        for block in unet.input_blocks:
            x = self.stage(block, x, moved, said, rows)
            skips.append(x)
        x = self.stage(unet.middle_block, x, moved, said, rows)
        for block in unet.output_blocks:
            x = torch.cat([x, widened(skips.pop(), len(x))], dim=1)
            size = skips[-1].shape[2:] if skips else x.shape[2:]
            x = self.stage(block, x, moved, said, rows, (size[0], size[1]))
        return widened(self.convolve(unet.out[2], self.activated(unet.out[0], x)), rows)

    def stage(
        self,
        layers: nn.Module,
        x: Tensor,
        shifts: Iterator[Tensor],
        said: Iterator[tuple[Tensor, Tensor]],
        rows: int,
        size: tuple[int, int] = (0, 0),
    ) -> Tensor:
        for layer in layers.children():
            match layer:
                case ResBlock():
                    x = self.residual(layer, x, next(shifts))
                case SpatialTransformer():
                    x = self.look(layer, x, said, rows)
                case Upsample():
                    x = self.convolve(layer.conv, F.interpolate(x, size=size, mode="nearest"))
                case Downsample():
                    x = self.convolve(layer.op, x)
                case _:
                    x = self.convolve(layer, x)
        return x

    def residual(self, block: ResBlock, x: Tensor, shift: Tensor) -> Tensor:
        """x (B or K, I, H, W) to (B or K, O, H, W); one shift (1 or K, O) per row, or for all."""
        h = self.convolve(block.in_layers[2], self.activated(block.in_layers[0], x))
        if len(shift) > len(h):
            h, x = widened(h, len(shift)), widened(x, len(shift))
        h = h.add_(shift[:, :, None, None])
        h = self.convolve(block.out_layers[3], self.activated(block.out_layers[0], h))
        same = isinstance(block.skip_connection, nn.Identity)
        return h.add_(x if same else self.projected(block.skip_connection, x))

    def look(
        self,
        layer: SpatialTransformer,
        x: Tensor,
        said: Iterator[tuple[Tensor, Tensor]],
        rows: int,
    ) -> Tensor:
        y = F.group_norm(x, layer.norm.num_groups, layer.norm.weight, layer.norm.bias, 1e-6)
        pixels = self.flat(layer.proj_in, y)
        for block in layer.transformer_blocks:
            pixels = self.block(block, pixels, next(said), rows)
        x = widened(x, rows)
        pixels = self.flat(layer.proj_out, unflat(pixels, x))
        return unflat(pixels, x).add_(x)

    def block(
        self, block: nn.Module, x: Tensor, said: tuple[Tensor, Tensor], rows: int
    ) -> Tensor:  # (B or K, N, C) to (K, N, C)
        assert isinstance(block, TransformerBlock)
        x = self.attend(block.attn1, block.norm1(x)).add_(x)
        q = split(self.linear(block.attn2.to_q, block.norm2(x)), block.attn2.heads)
        x, q = widened(x, rows), widened(q, rows)
        seen = F.scaled_dot_product_attention(q, *said)
        x = self.linear(block.attn2.to_out[0], seen.transpose(1, 2).flatten(2)).add_(x)
        return self.forward(block.ff, block.norm3(x)).add_(x)

    def attend(self, layer: Attention, x: Tensor) -> Tensor:
        """Every pixel looks at every pixel (B, N, C)."""
        if self.levers.qkv:
            q, k, v = F.linear(x, self.together(layer)).chunk(3, dim=-1)
        else:
            q, k, v = (self.linear(one, x) for one in (layer.to_q, layer.to_k, layer.to_v))
        q, k, v = (split(one, layer.heads) for one in (q, k, v))
        seen = F.scaled_dot_product_attention(q, k, v)
        return self.linear(layer.to_out[0], seen.transpose(1, 2).flatten(2))

    def together(self, layer: Attention) -> Tensor:
        if layer not in self.joined:
            own = layer.to_q.weight, layer.to_k.weight, layer.to_v.weight
            self.joined[layer] = torch.cat(own)
        return self.joined[layer]

    def forward(self, layer: FeedForward, x: Tensor) -> Tensor:
        geglu: Any = layer.net[0]
        wide = self.linear(geglu.proj, x)
        if self.levers.kernels and kernels.usable(wide):
            return self.linear(layer.net[2], kernels.geglu(wide))
        value, gate = wide.chunk(2, dim=-1)
        return self.linear(layer.net[2], F.gelu(gate).mul_(value))

    def activated(self, norm: nn.Module, x: Tensor) -> Tensor:
        """silu(group norm(x))."""
        assert isinstance(norm, nn.GroupNorm)
        if self.levers.kernels and kernels.usable(x):
            return kernels.norm_silu(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return F.silu(
            F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps), inplace=True
        )

    def convolve(self, layer: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(layer, nn.Conv2d)
        if self.tiles(layer, x):
            rows = x.permute(0, 2, 3, 1).contiguous()
            return winograd.convolved(rows, self.tiled[layer], layer.bias).permute(0, 3, 1, 2)
        return by_columns(x, layer) if self.columns(layer, x) else layer(x)

    def columns(self, layer: nn.Conv2d, x: Tensor) -> bool:
        """Whether this convolution is little else than reading its weights."""
        pixels = len(x) * x.shape[2] * x.shape[3] // (layer.stride[0] * layer.stride[1])
        return self.levers.columns and pixels <= FEW and layer.weight.numel() >= HEAVY

    def tiles(self, layer: nn.Conv2d, x: Tensor) -> bool:
        """Whether this convolution is done in tiles in this run; their weights are made once."""
        pixels = len(x) * x.shape[2] * x.shape[3]
        narrow = min(layer.in_channels, layer.out_channels) < NARROWEST
        if not self.levers.winograd or narrow or not winograd.suits(layer) or pixels < FEWEST:
            return False
        if pixels * len(self.coming) < REPAYS:
            return False
        if layer not in self.tiled:
            need = layer.weight.numel() * x.element_size() * 16 // 9
            if need > self.spare:
                return False
            self.spare -= need
            self.tiled[layer] = winograd.transformed(layer.weight, dtype=x.dtype)
        return True

    def projected(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A 1 x 1 convolution as the product it is; (B, O, H, W)."""
        return unflat(self.flat(layer, x), x)

    def flat(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A linear layer, or a 1 x 1 convolution, on the pixels of (B, C, H, W): (B, N, O)."""
        return self.linear(layer, x.permute(0, 2, 3, 1).flatten(1, 2))

    def linear(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A linear layer, or a 1 x 1 convolution, of rows (B, N, C): (B, N, O)."""
        assert isinstance(layer, (nn.Linear, nn.Conv2d))
        return product(x, layer.weight.flatten(1), layer.bias)

    def shift(self, t: float, label: Tensor | None) -> Tensor:
        """What every residual block adds at a training step: (1 or K, all their channels)."""
        if label is not self.labelled:
            self.shifts, self.labelled = {}, label
        if t not in self.shifts or not self.levers.times:
            ahead = self.coming if self.levers.times and t in self.coming else ()
            steps = list(dict.fromkeys((t, *ahead)))
            for at in range(0, len(steps), TOGETHER):
                some = steps[at : at + TOGETHER]
                self.shifts.update(zip(some, self.some_shifts(some, label), strict=False))
        return self.shifts[t]

    def some_shifts(self, steps: Sequence[float], label: Tensor | None) -> Iterator[Tensor]:
        """Of up to TOGETHER steps; always as many rows, since their number changes last bits."""
        unet: Any = self.unet
        numbers = torch.zeros(TOGETHER, device=self.device)
        numbers[: len(steps)] = torch.tensor(steps)
        time = unet.time_embed(waves(numbers, unet.channels).to(self.dtype))[:, None]
        if label is not None:
            time = time + unet.label_emb(label)
        flat = F.silu(time.flatten(0, 1))
        made = torch.cat([one.emb_layers[1](flat) for one in self.resblocks], dim=1)
        return iter(made.view(TOGETHER, -1, made.shape[1]).unbind())

    def words(self, text: Tensor) -> Words:
        """Keys and values of the text (K, L, D) in every block that looks at it."""
        if self.read is None or self.read[0] is not text or not self.levers.words:
            made = [
                (split(self.linear(one.attn2.to_k, text), one.attn2.heads),
                 split(self.linear(one.attn2.to_v, text), one.attn2.heads))
                for one in self.blocks
            ]  # fmt: skip
            self.read = text, made
        return self.read[1]


def split(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) to (B, heads, N, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def unflat(pixels: Tensor, like: Tensor) -> Tensor:
    """(B, N, C) to (B, C, H, W), of the size of another."""
    return pixels.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


def widened(x: Tensor, rows: int) -> Tensor:
    """The same rows again and again until there are so many."""
    if len(x) >= rows:
        return x
    last = torch.channels_last if x.dim() == 4 and x.shape[1] > 1 else torch.contiguous_format
    again = x.repeat(rows // len(x), *(1 for _ in x.shape[1:]))
    is_picture = x.is_contiguous(memory_format=torch.channels_last) if x.dim() == 4 else False
    return again.contiguous(memory_format=last) if is_picture else again
