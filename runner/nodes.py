"""Nodes: the boxes of a ComfyUI graph that are executed here, with their inputs and limits.

ComfyUI 0.3.64, nodes.py: INPUT_TYPES and RETURN_TYPES of each class, in their order, which is
also the order of the widgets on the screen. What they do is in `workflow`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.recipe import LARGEST_SIDE, LONGEST_WALK, SEEDS

Value = int | float | str
TURNS = ("enable", "disable")


@dataclass(frozen=True)
class Widget:
    """A value typed in: its type ("INT", "FLOAT", "STRING", "COMBO"), its limits or its choices.

    rolls: the interface shows "control after generate" behind it, an entry of its own.
    """

    type: str
    default: Value
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()  # empty: any, as the names of files are
    rolls: bool = False

    def typed(self, value: Any) -> Any:
        """The value as ComfyUI converts it (execution.py). ValueError, TypeError, OverflowError."""
        match self.type:
            case "INT":
                return int(value)
            case "FLOAT":
                return float(value)
            case "STRING":
                return str(value)
        return value

    def against(self, value: Any) -> str | None:
        """What a value should have been, or None where it is fine."""
        try:
            given = self.typed(value)
        except (ValueError, TypeError, OverflowError):
            return {"INT": "a whole number", "FLOAT": "a number"}.get(self.type, "text")
        if self.type in ("INT", "FLOAT") and not self.low <= given <= self.high:
            return f"a number from {self.low} to {self.high}"
        if self.type == "COMBO" and not isinstance(given, str):
            return "a name"
        if self.choices and given not in self.choices:
            return f"one of {', '.join(self.choices)}"
        return None


@dataclass(frozen=True)
class Kind:
    """A kind of node. An input is a Widget, or the type of what is linked to it."""

    inputs: Mapping[str, str | Widget] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    saves: bool = False


def whole(default: int, low: int, high: int) -> Widget:
    return Widget("INT", default, low, high)


def real(default: float, low: float, high: float) -> Widget:
    return Widget("FLOAT", default, low, high)


def choice(*choices: str) -> Widget:
    return Widget("COMBO", choices[0], choices=choices)


FILE = Widget("COMBO", "")
TEXT = Widget("STRING", "")
SEED = Widget("INT", 0, 0, SEEDS - 1, rolls=True)
STEPS, CFG = whole(20, 1, LONGEST_WALK), real(8.0, 0.0, 100.0)
SIDE = whole(512, 0, LARGEST_SIDE)
LATENT_SIDE = whole(512, 16, LARGEST_SIDE)
STRENGTH = real(1.0, -100.0, 100.0)
PROMPTS = {"positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT"}
METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
BATCH = whole(1, 1, 4096)

NODES: dict[str, Kind] = {
    "CheckpointLoaderSimple": Kind({"ckpt_name": FILE}, ("MODEL", "CLIP", "VAE")),
    "LoraLoader": Kind(
        {
            "model": "MODEL",
            "clip": "CLIP",
            "lora_name": FILE,
            "strength_model": STRENGTH,
            "strength_clip": STRENGTH,
        },
        ("MODEL", "CLIP"),
    ),
    "VAELoader": Kind({"vae_name": FILE}, ("VAE",)),
    "ModelSamplingDiscrete": Kind(
        {
            "model": "MODEL",
            "sampling": choice("eps", "v_prediction"),
            "zsnr": Widget("BOOLEAN", False),
        },
        ("MODEL",),
    ),
    "CLIPSetLastLayer": Kind({"clip": "CLIP", "stop_at_clip_layer": whole(-1, -24, -1)}, ("CLIP",)),
    "CLIPTextEncode": Kind({"text": TEXT, "clip": "CLIP"}, ("CONDITIONING",)),
    "LoadImage": Kind({"image": FILE}, ("IMAGE", "MASK")),
    "ImageScale": Kind(
        {
            "image": "IMAGE",
            "upscale_method": choice(*METHODS),
            "width": SIDE,
            "height": SIDE,
            "crop": choice("disabled", "center"),
        },
        ("IMAGE",),
    ),
    "VAEEncode": Kind({"pixels": "IMAGE", "vae": "VAE"}, ("LATENT",)),
    "EmptyLatentImage": Kind(
        {"width": LATENT_SIDE, "height": LATENT_SIDE, "batch_size": BATCH}, ("LATENT",)
    ),
    "KSampler": Kind(
        {
            "model": "MODEL",
            "seed": SEED,
            "steps": STEPS,
            "cfg": CFG,
            "sampler_name": FILE,  # both are held against what there is where they are run
            "scheduler": FILE,
            **PROMPTS,
            "denoise": real(1.0, 0.0, 1.0),
        },
        ("LATENT",),
    ),
    "KSamplerAdvanced": Kind(
        {
            "model": "MODEL",
            "add_noise": choice(*TURNS),
            "noise_seed": SEED,
            "steps": STEPS,
            "cfg": CFG,
            "sampler_name": FILE,
            "scheduler": FILE,
            **PROMPTS,
            "start_at_step": whole(0, 0, LONGEST_WALK),
            "end_at_step": whole(LONGEST_WALK, 0, LONGEST_WALK),
            "return_with_leftover_noise": choice(*reversed(TURNS)),
        },
        ("LATENT",),
    ),
    "VAEDecode": Kind({"samples": "LATENT", "vae": "VAE"}, ("IMAGE",)),
    "SaveImage": Kind(
        {"images": "IMAGE", "filename_prefix": Widget("STRING", "ComfyUI")}, saves=True
    ),
    "PreviewImage": Kind({"images": "IMAGE"}, saves=True),
}
