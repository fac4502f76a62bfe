"""Platforms with ways of their own to a card: WSL, and AMD's ROCm."""

import re
from collections.abc import Iterator

from doctor.check import check
from doctor.checks.causes import tried
from doctor.checks.gpu import built_for_cards, codes_of_wheel, sees_a_card
from doctor.checks.torch import version_and_build
from doctor.facts import Facts
from doctor.finding import Finding, Severity

OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"
WSL = "/usr/lib/wsl/"


@check("wsl-cuda-driver")
def wsl_cuda_driver(facts: Facts) -> Iterator[Finding]:
    """Inside WSL, a libcuda of Linux stands before that of Windows, which alone works there."""
    if not facts.host.wsl or facts.host.container:
        return
    strange = [path for path in facts.host.libcuda if not path.startswith(WSL)]
    own = len(strange) < len(facts.host.libcuda)
    if strange and not sees_a_card(facts):
        needed = built_for_cards(facts) == "nvidia"
        yield Finding(
            Severity.ERROR if needed else Severity.WARNING,
            because=(*strange, *(() if own else (f"nothing in {WSL}lib",))),
        )


@check("wsl-slow-drive")
def wsl_slow_drive(facts: Facts) -> Iterator[Finding]:
    """Inside WSL, ComfyUI lies on a drive of Windows, which is read many times slower."""
    path = facts.comfyui.path if facts.comfyui is not None else ""
    if re.match(r"/mnt/[a-z]/", path) and facts.host.wsl:
        yield Finding(Severity.INFO, because=(path,))


@check("rocm-gfx-unsupported")
def rocm_gfx_unsupported(facts: Facts) -> Iterator[Finding]:
    """ROCm's torch has no code for this AMD card, or was told that it is a card of another kind."""
    cards = [g for g in facts.gpus if g.vendor == "amd" and g.capability.startswith("gfx")]
    told = facts.environment.get(OVERRIDE, "")
    if built_for_cards(facts) != "amd" or not cards:
        return
    for gpu in cards:
        codes = [code.split(":")[0] for code in codes_of_wheel(facts)]
        if told and generation(told) != generation(gpu.capability):
            because: tuple[str, ...] = (f"{OVERRIDE}={told}", f"{gpu.name}: {gpu.capability}")
        elif codes and not told and gpu.capability not in codes:
            because = (f"{gpu.name}: {gpu.capability}", f"torch: {' '.join(codes)}")
        else:
            continue
        works = tried(facts, "torch") is not None and sees_a_card(facts) and not told
        yield Finding(
            Severity.ERROR if not works or told else Severity.WARNING,
            because=(*because, f"torch {version_and_build(facts)}"),
        )
        return


def generation(text: str) -> str:
    """ "10" of gfx1030 and of 10.3.0; "11" of gfx1100 and of 11.0.0: RDNA2, RDNA3."""
    return text[3:-2] if text.startswith("gfx") else text.split(".")[0]
