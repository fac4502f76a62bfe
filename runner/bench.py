"""Bench: how many guided steps a second, and may you believe the number?

What is timed is the sampler's step on a loaded model: two texts, one latent, new noise in every
run, so that nothing computed once can be used twice.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from runner.devices import Placement, machine, settle, small_convolutions
from runner.guidance import guide
from runner.noise import Dice, first_noise
from runner.pipeline import Models, prompt
from runner.recipe import Progress, Refused
from runner.samplers import SAMPLERS
from runner.schedules import walk


@dataclass(frozen=True)
class Settings:
    """What was timed. Two timings with other settings, or on other machines, do not compare."""

    model: str
    size: int = 64  # pixels a side
    batch: int = 1
    steps: int = 3  # per run
    runs: int = 3
    warmup: int = 1  # runs
    dtype: str = "float32"
    sampler_name: str = "euler"
    scheduler: str = "normal"
    cfg: float = 7.0
    levers: str = ""  # what made the denoiser fast, by name

    def checked(self) -> "Settings":
        for field, low, high in (
            ("size", 64, 4096), ("batch", 1, 64), ("steps", 1, 1000), ("runs", 1, 1000),
            ("warmup", 0, 100),
        ):  # fmt: skip
            if not low <= getattr(self, field) <= high:
                what = f"{field} is {getattr(self, field)}; it is a number from {low} to {high}."
                raise Refused(f"bad-{field}", what)
        if self.size % 8:
            raise Refused("bad-size", f"size is {self.size}; it is a multiple of 8.")
        return self


@dataclass(frozen=True)
class Timing:
    seconds: tuple[float, ...]  # every step, in order: the report can always be recomputed

    @property
    def typical(self) -> float:
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """Median absolute deviation, seconds, which one bad step cannot move."""
        return median(abs(second - self.typical) for second in self.seconds)

    def doubts(self) -> Iterator[str]:
        if len(self.seconds) < 5:
            yield "Fewer than five steps were timed."
        if self.seconds[0] > 1.5 * self.typical:
            yield "The first step was slow; warm up more."
        if self.spread > 0.05 * self.typical:
            yield "Steps differ by more than 5 %; is something else using the machine?"


@dataclass(frozen=True)
class Bench:
    machine: Mapping[str, object]
    settings: Settings
    timing: Timing

    def to_json(self) -> dict[str, object]:
        """The object of schema runner.bench/1; seconds are per step, spread in seconds."""
        typical = self.timing.typical
        return {
            "schema": "runner.bench/1",
            "machine": dict(self.machine),
            "settings": asdict(self.settings),
            "seconds": list(self.timing.seconds),
            "median": typical,
            "spread": self.timing.spread,
            "steps_per_second": 1 / typical,
            "doubts": list(self.timing.doubts()),
        }


@torch.inference_mode()
def measure(models: Models, settings: Settings, progress: Progress) -> Bench:
    """Time every step of `runs` sampler runs after `warmup` untimed ones."""
    device = models.placement.device
    blank = torch.empty(settings.batch, 4, settings.size // 8, settings.size // 8)
    texts = "a dog with a hat", "a dog without a hat"
    positive, negative = (prompt(models, *models.text.encode(text), blank) for text in texts)
    table = models.denoiser.table
    sigmas = walk(table, settings.scheduler, settings.sampler_name, settings.steps, 1.0)
    guided = guide(models.denoiser.quick(sigmas), positive, negative, settings.cfg)
    seconds: list[float] = []
    total = settings.warmup + settings.runs
    with small_convolutions(device, blank):
        for run in range(total):
            x = first_noise(run, blank) * sigmas[0]
            steps = SAMPLERS[settings.sampler_name](
                guided, x.to(device), sigmas, Dice(run, x.to(device))
            )
            taken = list(timed(steps, lambda: settle(device)))
            seconds += taken if run >= settings.warmup else []
            progress("bench", run + 1, total)
    settings = replace(settings, levers=" ".join(models.denoiser.levers))
    return Bench(machine(device), settings, Timing(tuple(seconds)))


def timed(steps: Iterator[Tensor], settle: Callable[[], None]) -> Iterator[float]:
    """The seconds each step takes; settle() waits for the device, so queued work is counted."""
    settle()
    start = time.perf_counter()
    for _ in steps:
        settle()
        yield time.perf_counter() - start
        start = time.perf_counter()


def settings_for(models_name: str, placement: Placement, **chosen: int) -> Settings:
    """Settings for a model as it was placed."""
    return Settings(models_name, dtype=placement.dtype, **chosen).checked()  # type: ignore[arg-type]


def compare(ours: Mapping[str, object], theirs: Mapping[str, object]) -> float:
    """How many times as fast we are as an earlier result.

    Refused: bench-not-comparable, when anything in machine or settings differs.
    """
    if theirs.get("schema") != ours["schema"]:
        raise Refused("bench-not-comparable", "The other file is not a runner.bench/1 result.")
    different = []
    for part in ("machine", "settings"):
        here, there = ours[part], theirs.get(part)
        if not isinstance(here, Mapping) or not isinstance(there, Mapping):
            raise Refused("bench-not-comparable", f"The other result has no {part}.")
        names = sorted(here.keys() | there.keys())
        different += [f"{part}.{n}" for n in names if here.get(n) != there.get(n)]
    if different:
        raise Refused("bench-not-comparable", f"The results differ in {', '.join(different)}.")
    try:
        return float(theirs["median"]) / float(ours["median"])  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise Refused("bench-not-comparable", "The other result has no usable median.") from None


def earlier(path: Path) -> dict[str, object]:
    """A result in a file. Refused: bench-not-comparable."""
    try:
        result = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Refused("bench-not-comparable", f"{path} cannot be read: {error}.") from None
    if not isinstance(result, dict):
        raise Refused("bench-not-comparable", f"{path} is not a result of bench.")
    return result
