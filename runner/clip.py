"""The text encoder of SD 1.x: CLIP ViT-L/14's text tower (Radford et al. 2021).

Attributes carry the checkpoint's own names below `cond_stage_model.transformer.`. Weights may be
stored in 16 bits; the arithmetic is float32 all the same, as in ComfyUI.

Shapes: B rows of text, L = 77 tokens, D width.
"""

# mypy: disable-error-code="no-any-return,no-untyped-call"
# (torch says of no module what it returns)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.embeddings import NOTHING, Shelf
from runner.products import product
from runner.tokenizer import CHUNK, END, START, Chunk, chunks

HEAD = 64  # features of one attention head


@dataclass(frozen=True)
class TextShape:
    width: int = 768
    inner: int = 3072
    layers: int = 12
    words: int = 49_408
    positions: int = CHUNK

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> "TextShape":
        """Read off the shapes of the weights, by their names below the prefix."""
        words, width = shapes["text_model.embeddings.token_embedding.weight"]
        positions, _ = shapes["text_model.embeddings.position_embedding.weight"]
        inner, _ = shapes["text_model.encoder.layers.0.mlp.fc1.weight"]
        layers = sum(key.endswith("mlp.fc1.weight") for key in shapes)
        return cls(width, inner, layers, words, positions)


class Linear(nn.Linear):
    """A linear layer that computes in its input's precision, however its weights are stored."""

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class LayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        """Nothing: weights are loaded. (torch's own draws numbers, and imports its compiler.)"""


class Attention(nn.Module):
    """Every token looks at itself and at what stands before it."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = max(1, width // HEAD)
        self.q_proj, self.k_proj = Linear(width, width), Linear(width, width)
        self.v_proj, self.out_proj = Linear(width, width), Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # (B, L, D), (L, L)
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(seen.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.fc1, self.fc2 = Linear(width, inner), Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h))  # "quick gelu"


class Layer(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = LayerNorm(width), LayerNorm(width)
        self.self_attn, self.mlp = Attention(width), MLP(width, inner)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    def __init__(self, shape: TextShape):
        super().__init__()
        self.token_embedding = Embedding(shape.words, shape.width)
        self.position_embedding = Embedding(shape.positions, shape.width)

    def forward(self, rows: "Rows") -> Tensor:  # (B, L, D), float32
        words = rows.read(self.token_embedding)
        return words + self.position_embedding.weight[: words.shape[1]].float()


class Encoder(nn.Module):
    def __init__(self, shape: TextShape):
        super().__init__()
        self.layers = nn.ModuleList(Layer(shape.width, shape.inner) for _ in range(shape.layers))

    def forward(self, x: Tensor, last: int) -> tuple[Tensor, Tensor]:
        """What layer `last` gives (negative: from the end), and what the last one gives."""
        return walked(self.layers, x, last)


def walked(layers: nn.ModuleList, x: Tensor, last: int) -> tuple[Tensor, Tensor]:
    """Every layer in turn, no token looking ahead; a `last` before the first is the last one."""
    length = x.shape[1]
    mask = torch.full((length, length), -torch.finfo(x.dtype).max, device=x.device).triu(1)
    outputs = []
    for layer in layers:
        x = layer(x, mask)
        outputs.append(x)
    return outputs[last] if -last <= len(outputs) else x, x


class TextModel(nn.Module):
    def __init__(self, shape: TextShape):
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = Encoder(shape)
        self.final_layer_norm = LayerNorm(shape.width)

    def forward(self, rows: "Rows", last: int) -> tuple[Tensor, Tensor]:  # (B, L, D)
        return self.encoder(self.embeddings(rows), last)


class TextEncoder(nn.Module):
    """Prompts, as chunks of tokens, to what the denoiser looks at."""

    pad = END  # what fills a chunk
    usual = -1  # the layer whose output is looked at, from the end

    def __init__(self, shape: TextShape):
        super().__init__()
        self.text_model = TextModel(shape)
        self.width = shape.width

    def encode(
        self, prompt: str, last: int | None = None, shelf: Shelf = NOTHING
    ) -> tuple[Tensor, Tensor]:
        """A prompt's cond (1, 77 k, D) and pooled (1, D), float32.

        last: CLIPSetLastLayer's; shelf: where the prompt's embeddings are looked up.
        """
        return self(self.chunks(prompt, shelf), last)

    def chunks(self, prompt: str, shelf: Shelf) -> list[Chunk]:
        return chunks(prompt, self.pad, shelf.known("clip_l", self.width))

    def forward(self, chunks: Sequence[Chunk], last: int | None = None) -> tuple[Tensor, Tensor]:
        """One prompt's chunks (of L tokens): cond (1, L * chunks, D) and pooled (1, D), float32."""
        z, final, end = self.hidden(chunks, last)
        norm = self.text_model.final_layer_norm
        return weighed(norm(z), chunks), norm(final)[:1, end]

    def hidden(self, chunks: Sequence[Chunk], last: int | None) -> tuple[Tensor, Tensor, int]:
        """Layer outputs (rows, L, D) before the last norm, and where the first row ends."""
        rows = rows_of(chunks, self.pad, self.width)
        return *self.text_model(rows, self.usual if last is None else last), rows.end


@dataclass(frozen=True)
class Rows:
    """What a text encoder reads: ids (B, L), vectors that replace some, and the first row's end."""

    ids: Sequence[Sequence[int]]
    vectors: Sequence[tuple[int, int, Tensor]]  # (row, place, (D,))
    end: int

    def read(self, words: nn.Embedding) -> Tensor:
        """(B, L, D), float32."""
        read = words(torch.tensor(self.ids, device=words.weight.device)).float()
        for row, place, vector in self.vectors:
            read[row, place] = vector.to(read)
        return read


def rows_of(chunks: Sequence[Chunk], pad: int, width: int) -> Rows:
    """Every chunk's tokens, and the empty prompt's where some token is weighted.

    Vectors of another width are left out, and what follows them moves up (sd1_clip.py,
    process_tokens); the end is counted as it is there, vectors behind it included.
    """
    rows = [[token for token, _ in chunk] for chunk in chunks]
    if any(weight != 1.0 for chunk in chunks for _, weight in chunk):
        rows.append([START, END] + [pad] * (len(rows[0]) - 2))
    ids, vectors = [], []
    for place, row in enumerate(rows):
        kept = [one for one in row if isinstance(one, int) or one.shape == (width,)]
        kept += [pad] * (len(row) - len(kept))
        vectors += [(place, at, one) for at, one in enumerate(kept) if not isinstance(one, int)]
        ids.append([one if isinstance(one, int) else pad for one in kept])
    plain = [one for one in rows[0] if isinstance(one, int)]
    end = plain.index(END) + sum(row == 0 for row, _, _ in vectors)
    return Rows(ids, vectors, min(end, len(rows[0]) - 1))


def weighed(z: Tensor, chunks: Sequence[Chunk]) -> Tensor:
    """All chunks after each other, (1, L * chunks, D), from rows as rows_of() made them.

    Weighted tokens move away from the empty prompt's: (z - z0) w + z0 (sd1_clip.py).
    """
    if len(z) > len(chunks):
        z, empty = z[:-1], z[-1]
        w = torch.tensor([[weight for _, weight in chunk] for chunk in chunks]).to(z)[..., None]
        z = torch.where(w == 1.0, z, (z - empty) * w + empty)
    return z.flatten(0, 1)[None]
