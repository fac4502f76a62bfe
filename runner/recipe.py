"""Recipe: everything that decides how a picture comes out, and what is said when it cannot."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Protocol

SEEDS = 2**64  # ComfyUI's KSampler takes 0 .. 2^64 - 1
LONGEST_WALK = 10_000  # steps; KSampler's own limit
LARGEST_SIDE = 16_384  # pixels; ComfyUI's MAX_RESOLUTION


class Progress(Protocol):
    """Told how far the work is; `picture` is what there is so far, where that was asked for."""

    def __call__(
        self, stage: str, done: int, of: int, picture: Mapping[str, object] | None = None, /
    ) -> None: ...


class Refused(Exception):
    """Something expected that stops the work: a kebab-case id, and a sentence for a person."""

    def __init__(self, id: str, message: str):
        super().__init__(message)
        self.id = id


@dataclass(frozen=True)
class Recipe:
    """The settings of one img2img, by the names of ComfyUI's KSampler nodes."""

    positive: str
    negative: str = ""
    steps: int = 20
    cfg: float = 8.0
    sampler_name: str = "euler"
    scheduler: str = "normal"
    denoise: float = 0.6
    seed: int = 0
    width: int | None = None  # pixels; None: the picture's own
    height: int | None = None
    start_at_step: int = 0  # this and the next three: KSamplerAdvanced's
    end_at_step: int = LONGEST_WALK
    add_noise: bool = True
    return_with_leftover_noise: bool = False
    stop_at_clip_layer: int | None = None  # CLIPSetLastLayer's, -1 .. -24; None: the usual one

    def checked(self) -> "Recipe":
        """Itself, or Refused with the first number that KSampler would not take."""
        for field, ok, rule in (
            ("steps", 1 <= self.steps <= LONGEST_WALK, f"a whole number, 1 to {LONGEST_WALK}"),
            ("cfg", math.isfinite(self.cfg) and 0 <= self.cfg <= 100, "a number from 0 to 100"),
            ("denoise", 0 <= self.denoise <= 1, "a number from 0 to 1"),
            ("seed", 0 <= self.seed < SEEDS, "a whole number, 0 to 2^64 - 1"),
            (
                "start_at_step",
                0 <= self.start_at_step <= LONGEST_WALK,
                "a whole number, 0 to 10000",
            ),
            ("end_at_step", 0 <= self.end_at_step <= LONGEST_WALK, "a number from 0 to 10000"),
            ("width", fits(self.width), f"a number of pixels, 8 to {LARGEST_SIDE}"),
            ("height", fits(self.height), f"a number of pixels, 8 to {LARGEST_SIDE}"),
            (
                "stop_at_clip_layer",
                self.stop_at_clip_layer in (None, *range(-24, 0)),
                "a whole number from -24 to -1",
            ),
        ):
            if not ok:
                raise Refused(f"bad-{field}", f"{field} is {getattr(self, field)}; it is {rule}.")
        return self

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Recipe":
        """The recipe of a JSON object; unknown names are refused."""
        unknown = data.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise Refused("bad-recipe", f"A recipe has no {', '.join(sorted(unknown))}.")
        return cls(**data)  # type: ignore[arg-type]


def fits(side: int | None) -> bool:
    return side is None or 8 <= side <= LARGEST_SIDE
