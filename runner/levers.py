"""Levers: what makes the denoiser faster, piece by piece, each with a name and a switch.

None changes a number beyond rounding: every lever is held against the plain UNet by the gates.
Which of them a device can use is decided here; how each works is told where it is done.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import torch

from runner.recipe import Refused


@dataclass(frozen=True)
class Levers:
    """Which levers are pulled. The default is what pays on the CPU."""

    words: bool = True  # keys and values of the text, once per prompt
    times: bool = True  # the time embedding of all steps, and what each block makes of it, at once
    trunk: bool = True  # what comes before the first look at the text, once for all texts
    winograd: bool = True  # 3 x 3 convolutions in 16 products for 36 (CPU)
    columns: bool = True  # 3 x 3 convolutions of few pixels as one product (CPU)
    mapped: bool = True  # wide weights left as the file has them, widened as they are used (CPU)
    onednn: bool = True  # products by oneDNN where torch leaves them to its BLAS (CPU)
    vae: bool = True  # the VAE's in 36 products for 144 (CPU)
    heap: bool = True  # memory of the C library kept between steps, not given back (glibc)
    kernels: bool = False  # normalise and activate in one pass, in Triton (CUDA)
    qkv: bool = False  # query, key and value of a picture in one product (CUDA)
    graph: bool = False  # a whole step as one CUDA graph

    @classmethod
    def here(cls, device: torch.device) -> "Levers":
        """All that can be used on a device."""
        cuda = device.type == "cuda"
        cpu = device.type == "cpu"
        own = dict.fromkeys(("winograd", "columns", "mapped", "onednn", "vae", "heap"), cpu)
        return cls(**own, kernels=cuda, qkv=cuda, graph=cuda)

    def without(self, names: Iterable[str]) -> "Levers":
        """The same with some left alone; "all" leaves the plain model. Refused: unknown-lever."""
        there = [field.name for field in fields(self)]
        asked = set(names)
        for name in asked - {"all", *there}:
            told = ", ".join(("all", *there))
            raise Refused("unknown-lever", f"There is no lever {name!r}; there are: {told}.")
        off = there if "all" in asked else asked
        return replace(self, **dict.fromkeys(off, False))

    @property
    def pulled(self) -> tuple[str, ...]:
        return tuple(field.name for field in fields(self) if getattr(self, field.name))
