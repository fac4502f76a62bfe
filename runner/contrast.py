"""Contrast: how well a picture and a text fit, as CLIP learned it (Radford et al. 2021).

Two towers put pictures and texts into one space. Training told each picture of a batch from the
others by its text and each text by its picture (the contrastive loss); a render minimises nothing,
it is only measured by it. Attributes carry the names of transformers' CLIPModel.

Shapes: B pictures, S pixels a side, D width, P width of the common space.
"""

# mypy: disable-error-code="no-any-return,no-untyped-call"
# (torch says of no module what it returns)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.clip import Layer, LayerNorm


@dataclass(frozen=True)
class ImageShape:
    width: int = 768
    inner: int = 3072
    layers: int = 12
    patch: int = 32  # pixels a side
    patches: int = 49
    common: int = 512  # P

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> "ImageShape":
        """Read off the shapes of the weights."""
        inside = "vision_model.encoder.layers."
        width, _, patch, _ = shapes["vision_model.embeddings.patch_embedding.weight"]
        positions, _ = shapes["vision_model.embeddings.position_embedding.weight"]
        inner, _ = shapes[f"{inside}0.mlp.fc1.weight"]
        layers = sum(k.startswith(inside) and k.endswith("mlp.fc1.weight") for k in shapes)
        common, _ = shapes["visual_projection.weight"]
        return cls(width, inner, layers, patch, positions - 1, common)


class Patches(nn.Module):
    def __init__(self, shape: ImageShape):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(shape.width))
        self.patch_embedding = nn.Conv2d(3, shape.width, shape.patch, shape.patch, bias=False)
        self.position_embedding = nn.Embedding(shape.patches + 1, shape.width)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, S, S) -> (B, 1 + patches, D)
        patches = self.patch_embedding(x).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(x), 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight


class Layers(nn.Module):
    def __init__(self, shape: ImageShape):
        super().__init__()
        self.layers = nn.ModuleList(Layer(shape.width, shape.inner) for _ in range(shape.layers))


class VisionModel(nn.Module):
    def __init__(self, shape: ImageShape):
        super().__init__()
        self.embeddings, self.encoder = Patches(shape), Layers(shape)
        self.pre_layrnorm = LayerNorm(shape.width)  # so spelled in every CLIP file
        self.post_layernorm = LayerNorm(shape.width)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, S, S) -> (B, D)
        h, every = self.pre_layrnorm(self.embeddings(x)), torch.zeros(1, 1, device=x.device)
        for layer in self.encoder.layers:
            h = layer(h, every)
        return self.post_layernorm(h[:, 0])


class Contrast(nn.Module):
    """The image tower, both ways into the common space, and the learned temperature."""

    def __init__(self, shape: ImageShape, text_width: int):
        super().__init__()
        self.side = shape.patch * round(shape.patches**0.5)  # S
        self.vision_model = VisionModel(shape)
        self.visual_projection = nn.Linear(shape.width, shape.common, bias=False)
        self.text_projection = nn.Linear(text_width, shape.common, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))  # ln(1 / 0.07), as CLIP began

    def look(self, image: Tensor) -> Tensor:
        """What the tower makes of pictures (B, H, W, 3) in 0..1, scaled to S by S first: (B, D)."""
        x = image.movedim(-1, 1) * 2.0 - 1.0
        if x.shape[2:] != (self.side, self.side):
            size = self.side, self.side
            x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
        return self.vision_model(x)

    def see(self, image: Tensor) -> Tensor:
        """Pictures (B, H, W, 3) in 0..1 as unit vectors (B, P)."""
        return self.place(self.look(image))

    def place(self, seen: Tensor) -> Tensor:
        """What look() gave as unit vectors (B, P)."""
        return F.normalize(self.visual_projection(seen), dim=-1)

    def read(self, pooled: Tensor) -> Tensor:
        """Pooled texts (B, D) as unit vectors (B, P)."""
        return F.normalize(self.text_projection(pooled), dim=-1)

    def logits(self, image: Tensor, pooled: Tensor) -> Tensor:
        """e^s cos(picture, text) for every picture and text, (B, B'); e^-s is CLIP's temperature.

        The one temperature in the whole process, and it belongs to training: a sampler has none.
        """
        return self.logit_scale.exp() * self.see(image) @ self.read(pooled).T


def contrastive_loss(logits: Tensor) -> Tensor:
    """Picture i belongs to text i of the batch (Radford et al. 2021, figure 3), in nats.

    ½ (E[-ln softmax over texts] + E[-ln softmax over pictures]), logits (B, B).
    """
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
