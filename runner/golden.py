"""Golden: ComfyUI's own numbers, which the ladder holds ours against (data/SOURCES.md).

`sd15` also holds what needs no network: schedules, samplers, tokens.
"""

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

DATA = Path(__file__).parent / "data"
MODELS = ("sd15", "sd21", "sdxl")


@dataclass(frozen=True)
class Golden:
    """The numbers on one synthetic checkpoint."""

    model: str

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        return load_file(DATA / f"golden.{self.model}.safetensors")

    @cached_property
    def story(self) -> dict[str, Any]:
        """Prompts, tokens, settings of the runs, model calls, names of layers, 16-bit errors."""
        path = DATA / f"golden.{self.model}.json"
        told: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return told

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]


def known(model: str) -> Golden | None:
    """The numbers on a synthetic model; None where there are none, as for a file of one's own."""
    there = model in MODELS and (DATA / f"golden.{model}.json").exists()
    return golden(model) if there else None


@lru_cache(maxsize=len(MODELS))
def golden(model: str = "sd15") -> Golden:
    return Golden(model)
