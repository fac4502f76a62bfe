"""Launch flags, kept for this installation with their reasons; `launch` gives them to main.py.

Which flag answers which finding is data: manifests/launch.toml.
"""

from collections.abc import Iterator
from pathlib import Path

from doctor.check import CHECKS
from doctor.checks.launch import unneeded
from doctor.facts import Facts, Flag
from doctor.fix import CannotFix, fix
from doctor.flags import circumstances, next_cure
from doctor.step import KeepFlags, Step


@fix("disable-cuda-malloc")
def disable_cuda_malloc(facts: Facts) -> Iterator[Step]:
    """Start ComfyUI with --disable-cuda-malloc from now on."""
    yield kept_against(facts, "cuda-malloc-unsupported")


@fix("start-on-cpu")
def start_on_cpu(facts: Facts) -> Iterator[Step]:
    """Start ComfyUI with --cpu from now on, until there is a card that torch can use."""
    yield kept_against(facts, "cpu-flag-needed")


@fix("raise-precision")
def raise_precision(facts: Facts) -> Iterator[Step]:
    """Start with the VAE in single precision; where that was tried, with upcast attention too."""
    yield kept_against(facts, "black-nan-image")


@fix("plain-attention")
def plain_attention(facts: Facts) -> Iterator[Step]:
    """Start with ComfyUI's own attention in place of torch's fast kernels."""
    yield kept_against(facts, "attention-wrong")


@fix("repeatable-kernels")
def repeatable_kernels(facts: Facts) -> Iterator[Step]:
    """Start with torch's deterministic kernels."""
    yield kept_against(facts, "render-not-repeatable")


@fix("wider-numbers")
def wider_numbers(facts: Facts) -> Iterator[Step]:
    """Start with the precision under which the runner's numbers were right."""
    yield kept_against(facts, "numbers-wrong")


@fix("spare-card-memory")
def spare_card_memory(facts: Facts) -> Iterator[Step]:
    """Start with a gigabyte of the card's memory left free; where that was tried, in parts."""
    yield kept_against(facts, "gpu-out-of-memory")


@fix("another-port")
def another_port(facts: Facts) -> Iterator[Step]:
    """Start on the next port that is free, as long as ComfyUI's own is taken."""
    if not facts.port.free:
        raise CannotFix(f"no port up to a hundred above {facts.port.number} is free")
    yield kept_against(facts, "port-in-use", str(facts.port.free))


@fix("allowed-port")
def allowed_port(facts: Facts) -> Iterator[Step]:
    """Start on a port outside of the forbidden range."""
    yield kept_against(facts, "port-forbidden")


@fix("listen-here")
def listen_here(facts: Facts) -> Iterator[Step]:
    """Listen on this machine's own address."""
    yield kept_against(facts, "listen-address-invalid")


@fix("withdraw-flags")
def withdraw_flags(facts: Facts) -> Iterator[Step]:
    """Take back the flags whose cause is gone."""
    yield KeepFlags(home(facts), drop=tuple(unneeded(facts)))


def kept_against(facts: Facts, finding: str, value: str = "") -> KeepFlags:
    """The next flag against this finding, kept with its reason and the circumstances of today;
    whatever main.py does not take beside it goes. CannotFix where no flag is left."""
    cure = next_cure(facts, finding)
    if cure is None:
        raise CannotFix(f"every launch flag against {finding} is kept already")
    groups = (row.flags for row in facts.world.exclusive if cure.flag in row.flags)
    rivals = {flag for group in groups for flag in group} - {cure.flag}
    there = facts.comfyui.flags if facts.comfyui is not None else {}
    kept = Flag(
        why=finding,
        value=value or cure.value,
        because=next((told.because for told in CHECKS[finding](facts)), ()),
        where=circumstances(facts),
    )
    return KeepFlags(home(facts), {cure.flag: kept}, tuple(sorted(rivals & there.keys())))


def home(facts: Facts) -> str:
    if facts.comfyui is None:
        raise CannotFix("launch flags are kept for a ComfyUI folder: --comfyui DIR")
    return str(Path(facts.comfyui.path, ".comfy-doctor"))
