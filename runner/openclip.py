"""The text encoders of SD 2.x and SDXL: open_clip's towers (Cherti et al. 2022, ViT-H and bigG).

Attributes carry the checkpoint's own names below `cond_stage_model.` (SD 2.x) or
`conditioner.embedders.` (SDXL, beside CLIP ViT-L). Stored in 16 bits, computed in float32.

Shapes: B rows of text, L = 77 tokens, D width.
"""

# mypy: disable-error-code="no-any-return,no-untyped-call"
# (torch says of no module what it returns)

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.clip import (
    Embedding,
    LayerNorm,
    Linear,
    TextEncoder,
    TextShape,
    rows_of,
    walked,
    weighed,
)
from runner.embeddings import NOTHING, Shelf
from runner.products import product
from runner.tokenizer import END, Chunk, chunks

HEAD = 64  # features of one attention head
H = TextShape(1024, 4096, 24)
BIG_G = TextShape(1280, 5120, 32)


def open_shape(shapes: Mapping[str, Sequence[int]], prefix: str) -> TextShape:
    """Read off the shapes of the weights, by their names below the prefix."""
    words, width = shapes[f"{prefix}token_embedding.weight"]
    positions, _ = shapes[f"{prefix}positional_embedding"]
    inner, _ = shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"]
    start = f"{prefix}transformer.resblocks."
    layers = sum(key.startswith(start) and key.endswith("mlp.c_fc.weight") for key in shapes)
    return TextShape(width, inner, layers, words, positions)


class Attention(nn.Module):
    """Every token looks at itself and at what stands before it; q, k and v in one matrix."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = max(1, width // HEAD)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # (B, L, D), (L, L)
        mixed = product(x, self.in_proj_weight.to(x.dtype), self.in_proj_bias.to(x.dtype))
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in mixed.chunk(3, -1))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(seen.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.c_fc, self.c_proj = Linear(width, inner), Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class ResBlock(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.ln_1, self.ln_2 = LayerNorm(width), LayerNorm(width)
        self.attn, self.mlp = Attention(width), MLP(width, inner)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, shape: TextShape):
        super().__init__()
        blocks = (ResBlock(shape.width, shape.inner) for _ in range(shape.layers))
        self.resblocks = nn.ModuleList(blocks)


class OpenModel(nn.Module):
    """One tower, its words, places and projection."""

    def __init__(self, shape: TextShape):
        super().__init__()
        self.token_embedding = Embedding(shape.words, shape.width)
        self.positional_embedding = nn.Parameter(torch.empty(shape.positions, shape.width))
        self.transformer = Transformer(shape)
        self.ln_final, self.width = LayerNorm(shape.width), shape.width
        self.text_projection = nn.Parameter(torch.empty(shape.width, shape.width))

    def forward(self, chunks: Sequence[Chunk], last: int) -> tuple[Tensor, Tensor]:
        """What layer `last` gives, before the last norm (rows, L, D), and pooled (1, D)."""
        rows = rows_of(chunks, OpenEncoder.pad, self.width)
        x = rows.read(self.token_embedding) + self.positional_embedding.float()
        z, final = walked(self.transformer.resblocks, x, last)
        pooled = self.ln_final(final)[:1, rows.end]
        return z, pooled @ self.text_projection.float()


class OpenEncoder(nn.Module):
    """The text encoder of SD 2.x: the last layer but one of ViT-H, normed (sd2_clip.py)."""

    pad = 0
    usual = -2

    def __init__(self, shape: TextShape):
        super().__init__()
        self.model = OpenModel(shape)

    def encode(
        self, prompt: str, last: int | None = None, shelf: Shelf = NOTHING
    ) -> tuple[Tensor, Tensor]:
        """A prompt's cond (1, 77 k, D) and pooled (1, D), float32; see TextEncoder.encode."""
        return self(self.chunks(prompt, shelf), last)

    def chunks(self, prompt: str, shelf: Shelf) -> list[Chunk]:
        return chunks(prompt, self.pad, shelf.known("clip_h", self.model.width))

    def forward(self, chunks: Sequence[Chunk], last: int | None = None) -> tuple[Tensor, Tensor]:
        z, pooled = self.model(chunks, self.usual if last is None else last)
        return weighed(self.model.ln_final(z), chunks), pooled


class First(nn.Module):
    def __init__(self, shape: TextShape):
        super().__init__()
        self.transformer = TextEncoder(shape)


class PairEncoder(nn.Module):
    """Both text encoders of SDXL: the last layer but one of each, not normed (sdxl_clip.py)."""

    pad = END  # of the first; the second's is 0
    usual = -2

    def __init__(self, first: TextShape, second: TextShape):
        super().__init__()
        self.add_module("0", First(first))
        self.add_module("1", OpenEncoder(second))

    def encode(
        self, prompt: str, last: int | None = None, shelf: Shelf = NOTHING
    ) -> tuple[Tensor, Tensor]:
        """A prompt's cond (1, 77 k, D₁ + D₂) and the second's pooled (1, D₂), float32."""
        last = self.usual if last is None else last
        encoder: Any = self.get_submodule("0.transformer")
        little = self.chunks(prompt, shelf)
        z, _, _ = encoder.hidden(little, last)
        if -last > len(encoder.text_model.encoder.layers):  # there is no such layer: the last
            z = encoder.text_model.final_layer_norm(z)
        second: Any = self.get_submodule("1.model")
        large = chunks(prompt, OpenEncoder.pad, shelf.known("clip_g", second.width))
        z2, pooled = second(large, last)
        both = weighed(z, little), weighed(z2, large)
        shorter = min(one.shape[1] for one in both)  # embeddings may differ in length
        return torch.cat([one[:, :shorter] for one in both], dim=-1), pooled

    def chunks(self, prompt: str, shelf: Shelf) -> list[Chunk]:
        """The first encoder's."""
        first: Any = self.get_submodule("0.transformer")
        return list(first.chunks(prompt, shelf))
