"""Experiments: a failed gate asked again with one thing changed, to tell the suspects apart.

Each experiment is what one launch flag of ComfyUI does, or takes away one thing that may be at
fault. The narrowest comes first; the first under which the gate passes names the suspect.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from runner import products
from runner.devices import set_threads, threads, without_onednn
from runner.gate import FAILED, PASSED, Gate, Rung, Subject, Suspect, Trial, judged
from runner.guidance import Denoiser

AGAIN = 2  # times a gate is asked again as it was: one pass is enough to distrust the machine
Under = Callable[[Subject], AbstractContextManager[Subject]]


@dataclass(frozen=True)
class Experiment:
    """One change, and whether it can bear on a gate at all."""

    name: str
    under: Under
    suits: Callable[[Subject, Rung], bool]


@contextmanager
def as_it_was(subject: Subject) -> Iterator[Subject]:
    yield subject


@contextmanager
def attention_math(subject: Subject) -> Iterator[Subject]:
    """Attention by torch's plain formula: neither flash, nor memory-efficient, nor cuDNN."""
    if not hasattr(torch.nn, "attention"):  # torch before 2.3
        with torch.backends.cuda.sdp_kernel(enable_flash=False, enable_mem_efficient=False):
            yield subject
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield subject


class Upcast(TorchFunctionMode):  # type: ignore[misc]
    """Attention in float32, whatever came in: --force-upcast-attention."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        wide = [one.float() for one in args[:3]]
        return func(*wide, *args[3:], **(kwargs or {})).to(args[0].dtype)


@contextmanager
def attention_float32(subject: Subject) -> Iterator[Subject]:
    with attention_math(subject), Upcast():
        yield subject


@contextmanager
def vae_float32(subject: Subject) -> Iterator[Subject]:
    models = subject.models
    wide = replace(models.placement, vae=torch.float32)
    vae = deepcopy(models.vae).float()
    yield replace(subject, models=replace(models, vae=vae, placement=wide, darkroom=None))


@contextmanager
def unet_float32(subject: Subject) -> Iterator[Subject]:
    models = subject.models
    wide = replace(models.placement, unet=torch.float32)
    denoiser = other_denoiser(models.denoiser, torch.float32)
    yield replace(subject, models=replace(models, denoiser=denoiser, placement=wide))


def other_denoiser(denoiser: Denoiser, where: torch.dtype | torch.device) -> Denoiser:
    """A copy of a denoiser in another precision, or on another device."""
    copy: Any = deepcopy(denoiser.unet).to(where)  # type: ignore[attr-defined]
    return Denoiser.of(copy, denoiser.table, denoiser.predicts)


@contextmanager
def without_libraries(subject: Subject) -> Iterator[Subject]:
    """Convolutions by torch itself: without cuDNN on a GPU, without oneDNN on the CPU."""
    if subject.models.placement.device.type == "cpu":
        with without_onednn(), products.without():
            yield subject
    else:
        with torch.backends.cudnn.flags(enabled=False):
            yield subject


@contextmanager
def deterministic(subject: Subject) -> Iterator[Subject]:
    """What ComfyUI's --deterministic does, and no choice of kernels by stopwatch."""
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield subject
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]


@contextmanager
def one_thread(subject: Subject) -> Iterator[Subject]:
    count = threads()
    set_threads(1)
    try:
        yield subject
    finally:
        set_threads(count)


@contextmanager
def on_the_cpu(subject: Subject) -> Iterator[Subject]:
    """Everything on the CPU, in the same precision."""
    models, cpu = subject.models, torch.device("cpu")
    moved = replace(
        models,
        text=deepcopy(models.text).to(cpu),
        vae=deepcopy(models.vae).to(cpu),
        darkroom=None,
        denoiser=other_denoiser(models.denoiser, cpu),
        placement=replace(models.placement, device=cpu),
    )
    yield replace(subject, models=moved)


def on_gpu(subject: Subject) -> bool:
    return subject.models.placement.device.type != "cpu"


def narrow(part: str) -> Callable[[Subject, Rung], bool]:
    """Does the gate look at that part, and is the part in less than float32?"""

    def suits(subject: Subject, rung: Rung) -> bool:
        dtype = getattr(subject.models.placement, part)
        return rung.about in (part, "all") and dtype != torch.float32 and not rung.repeats

    return suits


def some_narrow(subject: Subject, rung: Rung) -> bool:
    return any(narrow(part)(subject, rung) for part in ("unet", "vae"))


EXPERIMENTS = (
    Experiment("again", as_it_was, lambda _, rung: not rung.repeats),
    Experiment("attention-math", attention_math, lambda *_: True),
    Experiment("attention-float32", attention_float32, some_narrow),
    Experiment("vae-float32", vae_float32, narrow("vae")),
    Experiment("unet-float32", unet_float32, narrow("unet")),
    Experiment("without-libraries", without_libraries, lambda *_: True),
    Experiment("deterministic", deterministic, lambda _, rung: rung.repeats),
    Experiment("one-thread", one_thread, lambda subject, _: not on_gpu(subject)),
    Experiment("cpu", on_the_cpu, lambda subject, _: on_gpu(subject)),
)


def suspected(subject: Subject, rung: Rung, failed: Gate) -> Suspect:
    """Ask a failed gate again under each experiment that bears on it, until one cures it."""
    tried: list[Trial] = []
    for experiment in EXPERIMENTS:
        if not experiment.suits(subject, rung):
            continue
        for _ in range(AGAIN if experiment.name == "again" else 1):
            with suppress(RuntimeError), experiment.under(subject) as changed:
                changed = replace(changed)  # nothing kept of the first asking
                gate = judged(failed.name, lambda changed=changed: rung.ask(changed))  # type: ignore[misc]
                tried.append(Trial(experiment.name, gate.verdict, gate.figure))
        if tried and tried[-1].experiment == experiment.name and tried[-1].verdict == PASSED:
            return Suspect(failed.name, experiment.name, tuple(tried))
    return Suspect(failed.name, "", tuple(tried))


def worth_trying(gate: Gate, rung: Rung) -> bool:
    """A failed gate that looks at a network's numbers; a wrong weight is known already."""
    return gate.verdict == FAILED and rung.about in ("text", "vae", "unet", "all")
