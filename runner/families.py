"""Families: the checkpoints that are rendered here, and how their files are laid out.

Which one a file belongs to is told by names and shapes, never by the file's name (ComfyUI:
model_detection.py, supported_models.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runner.clip import TextEncoder, TextShape
from runner.openclip import OpenEncoder, PairEncoder, open_shape
from runner.unet import UNetShape

Shapes = Mapping[str, Sequence[int]]
AnyText = TextEncoder | OpenEncoder | PairEncoder


@dataclass(frozen=True)
class Family:
    """A layout: the prefix of each part's names, and what its latents are multiplied by."""

    name: str
    prefixes: Mapping[str, str]  # part ("text", "unet", "vae") -> prefix
    text: Callable[[Shapes], AnyText]
    unet: UNetShape  # of the full-size one
    latent_scale: float  # latent_formats.py


def prefixes(text: str) -> dict[str, str]:
    return {"text": text, "unet": "model.diffusion_model.", "vae": "first_stage_model."}


def below(shapes: Shapes, prefix: str) -> Shapes:
    return {k.removeprefix(prefix): v for k, v in shapes.items() if k.startswith(prefix)}


SD1 = Family(
    "SD 1.x",
    prefixes("cond_stage_model.transformer."),
    lambda shapes: TextEncoder(TextShape.of(shapes)),
    UNetShape(),
    0.18215,
)
SD2 = Family(
    "SD 2.x",
    prefixes("cond_stage_model."),
    lambda shapes: OpenEncoder(open_shape(shapes, "model.")),
    UNetShape(heads=0, context=1024, linear=True),
    0.18215,
)
SDXL = Family(
    "SDXL",
    prefixes("conditioner.embedders."),
    lambda shapes: PairEncoder(
        TextShape.of(below(shapes, "0.transformer.")), open_shape(shapes, "1.model.")
    ),
    UNetShape(
        widths=(1, 2, 4),
        depths=(0, 2, 10),
        middle=10,
        heads=0,
        context=2048,
        linear=True,
        labels=2816,
    ),
    0.13025,
)
FAMILIES = {family.name: family for family in (SD1, SD2, SDXL)}
