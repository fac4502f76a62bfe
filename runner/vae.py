"""The autoencoder of Stable Diffusion: pictures to latents an eighth of the size, and back.

Attributes carry the checkpoint's own names below `first_stage_model.` (Esser et al. 2021,
Rombach et al. 2022). Shapes: B, C channels, H and W; a latent has Z = 4 channels.
"""

# mypy: disable-error-code="no-any-return,no-untyped-call"
# (torch says of no module what it returns)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class VAEShape:
    widths: tuple[int, ...] = (128, 256, 512, 512)  # channels of each level, finest first
    blocks: int = 2  # residual blocks per level; the decoder has one more
    latent: int = 4
    moments: int = 4  # channels after quant_conv, of which the first half is the mean, times 2
    colours: int = 3

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> "VAEShape":
        """Read off the shapes of the weights, by their names below the prefix."""
        first = [key for key in shapes if key.startswith("encoder.down.")]
        levels = 1 + max(int(key.split(".")[2]) for key in first)
        widths = [shapes[f"encoder.down.{n}.block.0.conv1.weight"][0] for n in range(levels)]
        blocks = sum(k.startswith("encoder.down.0.block.") and "conv1.w" in k for k in first)
        latent = shapes["decoder.conv_in.weight"][1]
        moments = shapes["quant_conv.weight"][0] // 2
        return cls(tuple(widths), blocks, latent, moments, shapes["encoder.conv_in.weight"][1])


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


def conv3(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1)


class ResBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), conv3(c_in, c_out)
        self.norm2, self.conv2 = norm(c_out), conv3(c_out, c_out)
        if c_in != c_out:
            self.nin_shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class Attention(nn.Module):
    """Every pixel looks at every pixel, with one head."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        def flat(y: Tensor) -> Tensor:  # (B, C, H, W) -> (B, 1, H W, C)
            return y.flatten(2).transpose(1, 2)[:, None].contiguous()

        h = self.norm(x)
        q, k, v = flat(self.q(h)), flat(self.k(h)), flat(self.v(h))
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return x + self.proj_out(seen.reshape_as(x))


class Middle(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.block_1, self.attn_1 = ResBlock(width, width), Attention(width)
        self.block_2 = ResBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # right and below only, as it was trained


class Upsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one size, and the way to the next size where there is one."""

    def __init__(self, c_in: int, c_out: int, blocks: int, **change: nn.Module):
        super().__init__()
        widths = [c_in] + [c_out] * (blocks - 1)
        self.block = nn.ModuleList(ResBlock(width, c_out) for width in widths)
        for name, module in change.items():
            self.add_module(name, module)
        self.change = tuple(change)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        for name in self.change:
            x = getattr(self, name)(x)
        return x


class Encoder(nn.Module):
    def __init__(self, shape: VAEShape):
        super().__init__()
        widths, last = shape.widths, len(shape.widths) - 1
        self.conv_in = conv3(shape.colours, widths[0])
        levels, c = [], widths[0]
        for n, width in enumerate(widths):
            change = {"downsample": Downsample(width)} if n < last else {}
            levels.append(Level(c, width, shape.blocks, **change))
            c = width
        self.down, self.mid = nn.ModuleList(levels), Middle(c)
        self.norm_out, self.conv_out = norm(c), conv3(c, shape.latent * 2)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 2 Z, H/8, W/8)
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, shape: VAEShape):
        super().__init__()
        c = shape.widths[-1]
        self.conv_in, self.mid = conv3(shape.latent, c), Middle(c)
        levels: list[nn.Module] = []
        for n, width in reversed(list(enumerate(shape.widths))):
            change = {"upsample": Upsample(width)} if n > 0 else {}
            levels.insert(0, Level(c, width, shape.blocks + 1, **change))
            c = width
        self.up = nn.ModuleList(levels)
        self.norm_out, self.conv_out = norm(c), conv3(c, shape.colours)

    def forward(self, z: Tensor) -> Tensor:  # (B, Z, h, w) -> (B, 3, 8 h, 8 w)
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VAE(nn.Module):
    def __init__(self, shape: VAEShape):
        super().__init__()
        self.encoder, self.decoder = Encoder(shape), Decoder(shape)
        self.quant_conv = nn.Conv2d(shape.latent * 2, shape.moments * 2, 1)
        self.post_quant_conv = nn.Conv2d(shape.moments, shape.latent, 1)

    def moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, 3) in 0..1, sides multiples of 8, to mean and log-variance, float32.

        Both (B, Z, H/8, W/8) and unscaled; the log-variance is held in -30 .. 20, as where it was
        trained (CompVis, distributions.py).
        """
        weight = self.quant_conv.weight
        x = (image * 2.0 - 1.0).to(weight.device, weight.dtype).movedim(-1, 1)
        mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
        return mean.float(), logvar.float().clamp(-30.0, 20.0)

    def encode(self, image: Tensor) -> Tensor:
        """The mean of moments(), and never a sample of the posterior (ComfyUI, autoencoder.py)."""
        return self.moments(image)[0]

    def decode(self, latent: Tensor) -> Tensor:
        """(B, Z, h, w), unscaled, to (B, 8 h, 8 w, 3) in 0..1, float32 and not yet truncated."""
        weight = self.quant_conv.weight
        x = self.decoder(self.post_quant_conv(latent.to(weight.device, weight.dtype)))
        return ((x.float() + 1.0) / 2.0).clamp(0.0, 1.0).movedim(1, -1)
