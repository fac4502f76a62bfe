"""Launch flags, kept for this installation with their reasons; `launch` gives them to main.py."""

import json
from collections.abc import Iterator
from pathlib import Path

from doctor.facts import Facts
from doctor.fix import CannotFix, fix
from doctor.step import Step, Write


@fix("disable-cuda-malloc")
def disable_cuda_malloc(facts: Facts) -> Iterator[Step]:
    """Start ComfyUI with --disable-cuda-malloc from now on."""
    yield keep_flag(facts, "--disable-cuda-malloc", "cuda-malloc-unsupported")


def keep_flag(facts: Facts, flag: str, why: str) -> Write:
    if facts.comfyui is None:
        raise CannotFix("launch flags are kept for a ComfyUI folder: --comfyui DIR")
    kept = {**facts.comfyui.flags, flag: why}
    path = Path(facts.comfyui.path, ".comfy-doctor", "flags.json")
    return Write(str(path), json.dumps(kept, indent=2, sort_keys=True) + "\n")
