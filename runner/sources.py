"""Sources: a checkpoint with what options put beside it: a VAE, LoRA files, another sampling."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from torch import Tensor

from runner import canvas, checkpoint, lora
from runner.checkpoint import Checkpoint
from runner.recipe import Refused

ASKED = re.compile(r"(.+?)(?::([-+.\d]+))?(?::([-+.\d]+))?", re.DOTALL)
STRONGEST = 100.0  # LoraLoader's own limit


def changed(
    base: Checkpoint,
    vae: Path | None = None,
    loras: Iterable[str] = (),
    predicts: str | None = None,
    zero_snr: bool | None = None,
) -> Checkpoint:
    """A checkpoint with another VAE, LoRA files ("FILE:0.8:0.5") and what it predicts.

    Refused: bad-lora, and as checkpoint.read_vae() and lora.read() do.
    """
    if vae:
        base = with_vae(base, vae)
    for asked in loras:
        base = with_lora(base, *strengths(asked))
    base = replace(base, predicts=predicts or base.predicts)
    return base if zero_snr is None else replace(base, zero_snr=zero_snr)


def with_vae(base: Checkpoint, path: Path) -> Checkpoint:
    own = checkpoint.read_vae(path)

    def fill(part: str, name: str, out: Tensor) -> None:
        (own if part == "vae" else base).fill(part, name, out)

    def lend(part: str, name: str) -> Tensor | None:
        return (own if part == "vae" else base).lend(part, name)

    return replace(base, shapes={**base.shapes, **own.shapes}, fill=fill, lend=lend)


def with_lora(base: Checkpoint, path: Path, model: float, text: float) -> Checkpoint:
    file = lora.read(path, base)
    both = file.applied(file.applied(base, "unet", model), "text", text)
    return replace(both, notes=(*base.notes, *file.notes()))


def drawn(checkpoint: str, image: str, asked: Mapping[str, Any]) -> canvas.Files:
    """The same for a graph: changed()'s arguments, with the names of checkpoint and picture."""
    loras = [strengths(one) for one in asked.get("loras", ())]
    predicts, zero_snr = asked.get("predicts"), asked.get("zero_snr")
    named = {None: "eps", "eps": "eps", "v": "v_prediction"}[predicts]
    return canvas.Files(
        checkpoint,
        image,
        str(asked["vae"]) if asked.get("vae") else None,
        tuple((str(path), model, text) for path, model, text in loras),
        None if predicts is None and zero_snr is None else (named, bool(zero_snr)),
    )


def strengths(asked: str) -> tuple[Path, float, float]:
    """(file, strength for the model, for the text encoder) of FILE[:STRENGTH[:CLIP]]."""
    match = ASKED.fullmatch(asked)
    if match is None:
        raise Refused("bad-lora", "A LoRA is FILE[:STRENGTH[:CLIP]].")
    try:
        model = float(match[2] or 1)
        text = float(match[3] or model)
    except ValueError:
        raise Refused("bad-lora", f"{asked!r} does not end in numbers.") from None
    if not all(isfinite(one) and abs(one) <= STRONGEST for one in (model, text)):
        raise Refused("bad-lora", f"{asked!r}: a strength is a number from -100 to 100.")
    return Path(match[1]), model, text
