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

from runner.ceiling import Ceiling, ceiling, flops, memory_peak, others
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
    """stages: seconds of text, encode and decode, once each, and of the very first step."""

    machine: Mapping[str, object]
    settings: Settings
    timing: Timing
    stages: Mapping[str, float]
    ceiling: Ceiling
    flops: int | None  # of a guided step
    memory: int | None  # bytes, at most
    others: float  # processes that wanted a core, too

    @property
    def share(self) -> float | None:
        """Of the device's own rate of large products. Past 1 where a lever multiplies less."""
        if self.flops is None:
            return None
        return self.flops / self.timing.typical / self.ceiling.flops

    def doubts(self) -> Iterator[str]:
        yield from self.timing.doubts()
        if self.others > 0.5:
            yield f"{self.others:.1f} other processes wanted this machine's cores."

    def to_json(self) -> dict[str, object]:
        """The object of schema runner.bench/1; seconds are per step, spread in seconds.

        ceiling: flops and bytes a second of this device; memory in bytes.
        """
        typical = self.timing.typical
        return {
            "schema": "runner.bench/1",
            "machine": dict(self.machine),
            "settings": asdict(self.settings),
            "seconds": list(self.timing.seconds),
            "median": typical,
            "spread": self.timing.spread,
            "steps_per_second": 1 / typical,
            "stages": dict(self.stages),
            "ceiling": asdict(self.ceiling),
            "flops": self.flops,
            "share": self.share,
            "memory": self.memory,
            "others": self.others,
            "doubts": list(self.doubts()),
        }


@torch.inference_mode()
def measure(models: Models, settings: Settings, progress: Progress) -> Bench:
    """Time every step of `runs` sampler runs after `warmup` untimed ones, then each other stage."""
    device = models.placement.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    blank = torch.zeros(settings.batch, 4, settings.size // 8, settings.size // 8)
    start = time.perf_counter()
    texts = "a dog with a hat", "a dog without a hat"
    positive, negative = (prompt(models, *models.text.encode(text), blank) for text in texts)
    stages = {"text": (time.perf_counter() - start) / len(texts)}
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
            stages.setdefault("first step", taken[0])
            seconds += taken if run >= settings.warmup else []
            progress("bench", run + 1, total)
    stages |= picture_stages(models, blank)
    said = positive.text.expand(2 * len(blank), -1, -1)
    label = None if positive.label is None else positive.label.expand(len(said), -1)
    times = torch.zeros(len(said))
    asked = flops(models.denoiser.unet, blank.repeat(2, 1, 1, 1), times, said, label)  # type: ignore[arg-type]
    return Bench(
        machine(device),
        replace(settings, levers=" ".join(models.denoiser.levers)),
        Timing(tuple(seconds)),
        stages,
        ceiling(device, models.placement.unet),
        asked,
        memory_peak(device),
        others(),
    )


def picture_stages(models: Models, blank: Tensor) -> dict[str, float]:
    """Seconds to encode and to decode a picture of that size, each the second time."""
    device, found = models.placement.device, dict[str, float]()
    latent = torch.randn_like(blank[:1])
    picture = torch.rand(1, latent.shape[2] * 8, latent.shape[3] * 8, 3)
    works: dict[str, Callable[[], Tensor]] = {
        "encode": lambda: models.vae.encode(picture),  # type: ignore[no-untyped-call]
        "decode": lambda: models.vae.decode(latent),  # type: ignore[no-untyped-call]
    }
    for name, work in works.items():
        for _ in range(2):
            settle(device)
            start = time.perf_counter()
            work()
            settle(device)
            found[name] = time.perf_counter() - start
    return found


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


def briefly(models: Models, progress: Progress, **chosen: int) -> dict[str, object]:
    """The object of a bench on models as they were placed; chosen: size, steps, runs."""
    settings = settings_for(models.name, models.placement, **chosen)
    return measure(models, settings, progress).to_json()


def earlier(path: Path) -> dict[str, object]:
    """A result in a file. Refused: bench-not-comparable."""
    try:
        result = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Refused("bench-not-comparable", f"{path} cannot be read: {error}.") from None
    if not isinstance(result, dict):
        raise Refused("bench-not-comparable", f"{path} is not a result of bench.")
    return result
