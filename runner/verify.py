"""Verify: is every stage right, on this machine, now? A ladder of gates against ComfyUI's numbers.

Depth 1 needs no network: tokens, schedules, noise, the device's arithmetic, samplers in a world
with a known answer. Depth 2 takes a model apart: weights, precision, text, encoder, decoder,
denoiser, NaN, black pictures, repeats. Depth 3 adds whole runs and their pictures, a fresh
process, memory, the CPU against the GPU, and whether timings are honest.

Figures are relative rms against `data/golden.*` (ComfyUI 0.3.64, CPU, float32) unless said. A
failed gate of a network is asked again under experiments, which tell the suspects apart.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace

import torch

from runner.devices import Placement, choose, machine, name
from runner.experiments import other_denoiser, suspected, worth_trying
from runner.gate import Gate, Rung, Subject, Suspect, Verdict, judged
from runner.recipe import Progress, Refused
from runner.rungs_formula import first_rungs
from runner.rungs_network import narrow_rungs, second_rungs
from runner.rungs_whole import third_rungs

Load = Callable[[], Subject]


@dataclass
class Climb:
    """The gates answered so far, and what was found out about those that failed."""

    progress: Progress
    gates: list[Gate] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)
    of: int = 0

    def note(self, gate: Gate) -> None:
        self.gates.append(gate)
        self.progress("verify", len(self.gates), max(self.of, len(self.gates)))

    def climb(self, subject: Subject, rungs: Iterable[Rung], prefix: str = "") -> None:
        """Ask every rung; of those that fail, who is at fault."""
        listed = list(rungs)
        self.of += len(listed)
        failed: list[tuple[Rung, Gate]] = []
        for rung in listed:
            gate = judged(prefix + rung.name, lambda rung=rung: rung.ask(subject))  # type: ignore[misc]
            self.note(gate)
            failed += [(rung, gate)] if worth_trying(gate, rung) else []
        for done, (rung, gate) in enumerate(failed, 1):
            self.suspects.append(suspected(subject, rung, gate))
            self.progress("suspects", done, len(failed))


def verify(
    depth: int, placement: Placement, loads: Mapping[str, Load], progress: Progress
) -> Verdict:
    """Climb the ladder to a depth of 1, 2 or 3 with every model that `loads` names, one by one."""
    ladder = Climb(progress)
    plain = list(first_rungs(placement.device))
    ladder.of = len(plain)
    for called, ask in plain:
        ladder.note(judged(called, ask))
    for model, load in loads.items() if depth >= 2 else ():
        prefix = f"{model} " if len(loads) > 1 else ""
        try:
            subject = load()
        except Refused as lacking:
            if lacking.id != "not-enough-memory" or len(loads) == 1:
                raise
            ladder.note(Gate(model, None, None, "not judged", str(lacking)))
            continue
        ladder.climb(subject, rungs_of(subject, depth), prefix)
        for narrow in narrowed(subject):
            ladder.climb(narrow, narrow_rungs(narrow), prefix)
        del subject
    dtype = name(placement.unet) if depth >= 2 else "float32"
    gates, suspects = tuple(ladder.gates), tuple(ladder.suspects)
    return Verdict(gates, machine(placement.device), depth, dtype, suspects)


def rungs_of(subject: Subject, depth: int) -> Iterator[Rung]:
    yield from second_rungs(subject)
    if depth >= 3:
        yield from third_rungs(subject)


def narrowed(subject: Subject) -> Iterator[Subject]:
    """The subject in the precision ComfyUI would choose on its device, where that is another."""
    models = subject.models
    wanted = choose(str(models.placement.device))
    here = models.placement
    if here.unet != torch.float32 or (wanted.unet, wanted.vae) == (here.unet, here.vae):
        return
    yield replace(
        subject,
        models=replace(
            models,
            denoiser=other_denoiser(models.denoiser, wanted.unet),
            vae=deepcopy(models.vae).to(wanted.vae),
            darkroom=None,
            placement=wanted,
        ),
    )
