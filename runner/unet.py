"""The denoiser of SD 1.x, SD 2.x and SDXL: a UNet whose pixels look at words (Rombach et al. 2022).

Attributes carry the checkpoint's own names below `model.diffusion_model.`, so loading needs no
mapping. Layers are torch's own, but for weights that may be kept in fewer bits (mapped.py).

Shapes: B batch, C channels, H and W latent size, N = H·W pixels, L text tokens, D text width.
"""

# mypy: disable-error-code="no-any-return,no-untyped-call"
# (torch says of no module what it returns)

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.mapped import Conv2d, Linear


@dataclass(frozen=True)
class UNetShape:
    channels: int = 320
    widths: tuple[int, ...] = (1, 2, 4, 4)  # channels of each level, in units of `channels`
    depths: tuple[int, ...] = (1, 1, 1, 0)  # transformer blocks of each level's attention
    middle: int = 1  # the same, between the way down and the way up
    blocks: int = 2  # residual blocks per level
    heads: int = 8  # 0: as many as there are 64 channels
    context: int = 768  # D
    latent: int = 4
    linear: bool = False  # projections into the transformer: linear, or convolutions
    labels: int = 0  # numbers said beside the text (SDXL: pooled text and sizes)

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> "UNetShape":
        """Read off the shapes of the weights, by their names below the prefix.

        The number of heads leaves no trace in them: it is 8 where projections are convolutions
        (SD 1.x), and one for 64 channels where they are linear (SD 2.x, SDXL).
        """
        channels, latent = shapes["input_blocks.0.0.weight"][:2]
        widths, depths, blocks = [], [], 0
        for stage in range(1, 1 + max(int(k.split(".")[1]) for k in shapes if "input_bl" in k)):
            here = f"input_blocks.{stage}."
            if f"{here}0.op.weight" in shapes:
                blocks = 0
                continue
            blocks += 1
            if blocks == 1:
                widths.append(shapes[f"{here}0.out_layers.3.weight"][0] // channels)
                depths.append(depth(shapes, f"{here}1."))
        context = shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1]
        linear = len(shapes["middle_block.1.proj_in.weight"]) == 2
        labels = shapes.get("label_emb.0.0.weight", (0, 0))[1]
        middle, heads = depth(shapes, "middle_block.1."), 0 if linear else 8
        levels = tuple(widths), tuple(depths)
        return cls(channels, *levels, middle, blocks, heads, context, latent, linear, labels)


def depth(shapes: Mapping[str, Sequence[int]], stage: str) -> int:
    """How many transformer blocks the attention of a stage has."""
    start = f"{stage}transformer_blocks."
    return sum(key.startswith(start) and key.endswith("norm1.weight") for key in shapes)


class ResBlock(nn.Module):
    """Two convolutions; the time embedding shifts the features between them."""

    def __init__(self, c_in: int, c_out: int, c_time: int):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, c_in), nn.SiLU(), conv3(c_in, c_out))
        self.emb_layers = nn.Sequential(nn.SiLU(), Linear(c_time, c_out))
        tail = nn.GroupNorm(32, c_out), nn.SiLU(), nn.Identity(), conv3(c_out, c_out)
        self.out_layers = nn.Sequential(*tail)  # Identity holds the place of a training dropout
        self.skip_connection = nn.Identity() if c_in == c_out else Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:  # (B, C, H, W), (B, 4C)
        h = self.in_layers(x) + self.emb_layers(time)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Attention(nn.Module):
    """Pixels look at pixels, or, given a context, at words."""

    def __init__(self, width: int, heads: int, context: int):
        super().__init__()
        self.heads = heads
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(context, width, bias=False)
        self.to_v = Linear(context, width, bias=False)
        self.to_out = nn.Sequential(Linear(width, width), nn.Identity())

    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # (B, N, C), (B, L, D)
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.to_q(x)), split(self.to_k(context)), split(self.to_v(context))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.proj = Linear(width, inner * 2)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        inner = width * 4
        self.net = nn.Sequential(GEGLU(width, inner), nn.Identity(), Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, context: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, heads, width)
        self.attn2 = Attention(width, heads, context)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of an image."""

    def __init__(self, width: int, depth: int, heads: int, context: int):
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in: nn.Module = Conv2d(width, width, 1)
        blocks = (TransformerBlock(width, heads, context) for _ in range(depth))
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out: nn.Module = Conv2d(width, width, 1)

    def look(self, pixels: Tensor, context: Tensor) -> Tensor:  # (B, N, C), (B, L, D)
        for block in self.transformer_blocks:
            pixels = block(pixels, context)
        return pixels

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        pixels = self.look(self.proj_in(self.norm(x)).flatten(2).transpose(1, 2), context)
        return x + self.proj_out(pixels.transpose(1, 2).reshape_as(x))


class LinearTransformer(SpatialTransformer):
    """The same, its projections linear layers: what SD 2.x and SDXL have."""

    def __init__(self, width: int, depth: int, heads: int, context: int):
        super().__init__(width, depth, heads, context)
        self.proj_in, self.proj_out = Linear(width, width), Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        pixels = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        pixels = self.proj_out(self.look(pixels, context))
        return x + pixels.transpose(1, 2).reshape_as(x)


class Downsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.op = conv3(width, width, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Twice the size, or one pixel less where the latent's side was odd on the way down."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = conv3(width, width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class Stage(nn.Sequential):
    """A row of layers, each given what it asks for. `size` is that of the next skip."""

    def forward(  # type: ignore[override]
        self, x: Tensor, time: Tensor, context: Tensor, size: tuple[int, int] = (0, 0)
    ) -> Tensor:
        for layer in self:
            match layer:
                case ResBlock():
                    x = layer(x, time)
                case SpatialTransformer():
                    x = layer(x, context)
                case Upsample():
                    x = layer(x, size)
                case _:
                    x = layer(x)
        return x


class UNet(nn.Module):
    def __init__(self, shape: UNetShape):
        super().__init__()
        self.channels, c_time = shape.channels, shape.channels * 4
        self.time_embed = nn.Sequential(
            Linear(shape.channels, c_time), nn.SiLU(), Linear(c_time, c_time)
        )
        if shape.labels:
            layers = Linear(shape.labels, c_time), nn.SiLU(), Linear(c_time, c_time)
            self.label_emb = nn.Sequential(nn.Sequential(*layers))
        self.labels = shape.labels
        down, skips = downward(shape)
        c = skips[-1]
        self.input_blocks = nn.ModuleList(down)
        self.middle_block = stage(shape, c, c, shape.middle, ResBlock(c, c, c_time))
        self.output_blocks = nn.ModuleList(upward(shape, skips))
        c = shape.channels * shape.widths[0]
        self.out = nn.Sequential(nn.GroupNorm(32, c), nn.SiLU(), conv3(c, shape.latent))

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in; some of its weights may be kept in fewer bits."""
        norm = self.out[0]
        assert isinstance(norm, nn.GroupNorm)
        return norm.weight.dtype

    @property
    def narrow(self) -> int:
        """Bytes of the weights that are kept in fewer bits than it computes in."""
        kept = (weight for weight in self.parameters() if weight.dtype != self.dtype)
        return sum(weight.numel() * weight.element_size() for weight in kept)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, label: Tensor | None = None) -> Tensor:
        """Predict the noise in x (B, 4, H, W) at timestep t (B,), given a text (B, L, D).

        label (B, labels): what SDXL is told beside the text; None where there are no labels.
        """
        time = self.time_embed(waves(t, self.channels).to(x.dtype))
        if label is not None:
            time = time + self.label_emb(label)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            x = block(x, time, context)
            skips.append(x)
        x = self.middle_block(x, time, context)
        for block in self.output_blocks:
            x = torch.cat([x, skips.pop()], dim=1)
            high, wide = skips[-1].shape[2:] if skips else x.shape[2:]
            x = block(x, time, context, (high, wide))
        return self.out(x)


def stage(shape: UNetShape, c_in: int, c_out: int, depth: int, *more: nn.Module) -> Stage:
    kind = LinearTransformer if shape.linear else SpatialTransformer
    heads = shape.heads or c_out // 64
    look = [kind(c_out, depth, heads, shape.context)] if depth else []
    return Stage(ResBlock(c_in, c_out, shape.channels * 4), *look, *more)


def downward(shape: UNetShape) -> tuple[list[Stage], list[int]]:
    """The way down, and the width of what each stage hands over to the way up."""
    c = shape.channels
    down, skips = [Stage(conv3(shape.latent, c))], [c]
    for level, (times, depth) in enumerate(zip(shape.widths, shape.depths, strict=True)):
        if level > 0:
            down.append(Stage(Downsample(c)))
            skips.append(c)
        for _ in range(shape.blocks):
            down.append(stage(shape, c, shape.channels * times, depth))
            c = shape.channels * times
            skips.append(c)
    return down, skips


def upward(shape: UNetShape, skips: Sequence[int]) -> list[Stage]:
    """The way up: each stage is given the one below and what its counterpart handed over."""
    up, left, c = [], list(skips), skips[-1]
    for level, (times, depth) in reversed(
        list(enumerate(zip(shape.widths, shape.depths, strict=True)))
    ):
        for block in range(shape.blocks + 1):
            width = shape.channels * times
            grow = [Upsample(width)] if level > 0 and block == shape.blocks else []
            up.append(stage(shape, c + left.pop(), width, depth, *grow))
            c = width
    return up


def conv3(c_in: int, c_out: int, stride: int = 1) -> Conv2d:
    return Conv2d(c_in, c_out, 3, stride, padding=1)


def waves(t: Tensor, width: int, longest: float = 10000) -> Tensor:
    """A number as cosines and sines of it, from fast to slow."""
    half = width // 2
    rates = torch.exp(-math.log(longest) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
