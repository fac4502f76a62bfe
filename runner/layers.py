"""Layers: what every layer of a network gave, and the first whose numbers part from another's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor, nn

from runner.devices import name

WAVES = 8  # numbers kept of every layer, besides its size
NARROW = (torch.bfloat16, torch.float16)
FEW = 64  # numbers that may be round by chance


@dataclass(frozen=True)
class Mark:
    """What is kept of a layer's output.

    numbers (1 + WAVES,) float64: its rms, then its overlap with eight fixed waves: enough to
    measure how far another machine's layer is off, without keeping the layer.
    """

    numbers: Tensor
    dtype: str
    rounded: str = ""  # a narrower precision that holds every one of its numbers exactly

    @property
    def computed_in(self) -> str:
        return self.rounded or self.dtype


def layers(network: nn.Module, run: Callable[[], object]) -> dict[str, Mark]:
    """The mark of every layer with weights while `run` ran, in the order of their work."""
    seen: dict[str, Mark] = {}

    def look(layer: str) -> Callable[[nn.Module, object, Tensor | tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, __: object, given: Tensor | tuple[Tensor, ...]) -> None:
            out = given[0] if isinstance(given, tuple) else given
            seen[layer] = Mark(landmark(out), name(out.dtype), rounding(out))

        return hook

    hooks = [
        module.register_forward_hook(look(layer))
        for layer, module in network.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def landmark(tensor: Tensor) -> Tensor:
    flat = tensor.detach().cpu().double().flatten()
    count = len(flat)
    rates = torch.arange(1, 1 + WAVES, dtype=torch.float64)[:, None] * 0.7
    waves = torch.cos(rates * torch.arange(count, dtype=torch.float64))
    return torch.cat([flat.square().mean().sqrt()[None], waves @ flat / count**0.5])


def rounding(out: Tensor) -> str:
    """The 16-bit precision that float32 numbers were rounded to on the way, if any was."""
    if out.dtype != torch.float32 or out.numel() < FEW or not bool(out.any()):
        return ""
    return next((name(d) for d in NARROW if torch.equal(out.to(d).float(), out)), "")


def parted(ours: Mapping[str, Mark], theirs: Mapping[str, Tensor], bound: float) -> str | None:
    """The first of our layers whose estimated relative error is above bound, and by how much."""
    for layer, mark in ours.items():
        if layer not in theirs:
            return f"{layer}, which the other does not have"
        size = float(theirs[layer][0])
        apart = float((mark.numbers - theirs[layer])[1:].square().mean().sqrt())
        if not isfinite(apart) or apart > bound * size:
            narrow = f", in the numbers of {mark.rounded}" if mark.rounded else ""
            return f"{layer} (about {apart / size if size else inf:.1e}{narrow})"
    return None
