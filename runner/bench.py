"""Bench: how many guided steps a second, and may you believe the number?

What is timed is the sampler's step on a loaded model: two texts, one latent, new noise in every
run, so that nothing computed once can be used twice.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from runner import nvml, slowness
from runner.causes import causes, far
from runner.ceiling import Ceiling, ceiling, flops, memory_peak, others
from runner.devices import Placement, machine, settle, small_convolutions
from runner.guidance import guide
from runner.noise import Dice, first_noise
from runner.pipeline import Models, prompt
from runner.recipe import Progress, Refused
from runner.samplers import SAMPLERS
from runner.schedules import walk

DRIFT = 0.05  # of the device's own rate, from before to after, above which it is doubted


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
    weights: int | None = None  # bytes of the denoiser's
    card: Mapping[str, object] | None = None  # what it told meanwhile (nvml.py)
    slowness: Mapping[str, object] | None = None  # experiments, where it was far too slow
    drift: float = 0.0  # how the device's own rate of products changed meanwhile: 0.1 is 10 % up

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
        if abs(self.drift) > DRIFT:
            yield f"The device's own rate of products changed by {self.drift:+.0%} meanwhile."
        card: Mapping[str, Any] = self.card or {}
        if card.get("slowed"):
            yield f"The card ran below its clock: {', '.join(card['slowed'])}."
        if card.get("others"):
            yield f"{card['others']} other processes computed on the card."

    def to_json(self) -> dict[str, object]:
        """The object of schema runner.bench/1; seconds are per step, spread in seconds.

        ceiling: flops and bytes a second of this device; drift: how flops changed meanwhile; memory
        and weights in bytes; causes: why it is far below its ceiling, where it is.
        """
        typical = self.timing.typical
        told: dict[str, Any] = {
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
            "drift": self.drift,
            "weights": self.weights,
            "card": self.card,
            "slowness": self.slowness,
            "doubts": list(self.doubts()),
        }
        return told | {"causes": [asdict(cause) for cause in causes(told)]}


@torch.inference_mode()
def measure(models: Models, settings: Settings, progress: Progress) -> Bench:
    """Time every step of `runs` sampler runs after `warmup` untimed ones, then each other stage."""
    device = models.placement.device
    before = ceiling(device, models.placement.unet)
    if device.type == "cuda":  # what the ceiling takes is not the render's
        torch.cuda.reset_peak_memory_stats(device)
    blank = torch.zeros(settings.batch, 4, settings.size // 8, settings.size // 8)
    start = time.perf_counter()
    texts = "a dog with a hat", "a dog without a hat"
    positive, negative = (prompt(models, *models.text.encode(text), blank) for text in texts)
    stages = {"text": (time.perf_counter() - start) / len(texts)}
    table = models.denoiser.table
    sigmas = walk(table, settings.scheduler, settings.sampler_name, settings.steps, 1.0)
    guided = guide(models.denoiser.quick(sigmas), positive, negative, settings.cfg)
    taken: list[list[float]] = []
    total = settings.warmup + settings.runs

    def noisy(number: int) -> Tensor:
        return (first_noise(number, blank) * sigmas[0]).to(device)

    def run(number: int) -> None:
        x = noisy(number)
        steps = SAMPLERS[settings.sampler_name](guided, x, sigmas, Dice(number, x))
        taken.append(list(timed(steps, lambda: settle(device))))
        progress("bench", number + 1, total)

    with small_convolutions(device, blank):
        for number in range(settings.warmup):
            run(number)
        with nvml.watched(nvml.card_of(device)) as looks:
            for number in range(settings.warmup, total):
                run(number)
    stages["first step"] = taken[0][0]
    seconds = [second for one in taken[settings.warmup :] for second in one]
    stages |= picture_stages(models, blank)
    said = positive.text.expand(2 * len(blank), -1, -1)
    label = None if positive.label is None else positive.label.expand(len(said), -1)
    times = torch.zeros(len(said))
    asked = flops(models.denoiser.unet, blank.repeat(2, 1, 1, 1), times, said, label)  # type: ignore[arg-type]
    unet: Any = models.denoiser.unet
    memory = memory_peak(device)
    after = ceiling(device, models.placement.unet)
    found = Bench(
        machine(device),
        replace(settings, levers=" ".join(models.denoiser.levers)),
        Timing(tuple(seconds)),
        stages,
        Ceiling(max(before.flops, after.flops), max(before.bytes, after.bytes)),
        asked,
        memory,
        others(),
        sum(weight.numel() * weight.element_size() for weight in unet.parameters()),
        looks.to_json(len(seconds)),
        drift=after.flops / before.flops - 1,
    )
    if not far(found.to_json()):
        return found
    x = noisy(total)
    with small_convolutions(device, blank):
        tried = slowness.measured(unet, device, models.placement.unet, lambda: guided(x, sigmas[0]))
    return replace(found, slowness=tried)


def picture_stages(models: Models, blank: Tensor) -> dict[str, float]:
    """Seconds to encode and to decode a picture of that size, each the second time."""
    device, found = models.placement.device, dict[str, float]()
    high, wide = blank.shape[2:]
    painter: Any = models.painter
    works: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[], Tensor]]] = {
        "encode": (painter.encode, lambda: torch.rand(1, 8 * high, 8 * wide, 3)),
        "decode": (painter.decode, lambda: torch.randn_like(blank[:1])),
    }
    for name, (work, fresh) in works.items():
        for _ in range(2):
            given = fresh()
            settle(device)
            start = time.perf_counter()
            work(given)
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


def briefly(models: Models, progress: Progress, **chosen: int) -> dict[str, object]:
    """The object of a bench on models as they were placed; chosen: size, steps, runs."""
    settings = settings_for(models.name, models.placement, **chosen)
    return measure(models, settings, progress).to_json()


def short(result: Mapping[str, Any]) -> dict[str, object]:
    """A result in one row of several: its size, and how fast it was."""
    names = ("median", "spread", "steps_per_second", "share", "memory", "doubts")
    return {"size": result["settings"]["size"], **{name: result[name] for name in names}}
