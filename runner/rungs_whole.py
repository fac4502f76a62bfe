"""The third rungs: whole runs and their pictures, another process, another device, memory, time."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.again import fresh, hashes
from runner.devices import settle, small_convolutions
from runner.experiments import on_the_cpu
from runner.gate import Gate, Rung, Subject, held, unjudged
from runner.golden import Golden
from runner.guidance import guide
from runner.layers import layers, parted
from runner.pipeline import img2img, prompt
from runner.pixels import gradient, to_bytes
from runner.recipe import Recipe
from runner.rungs_network import DENOISER, bound, known, once, runs
from runner.trace import Trace, gap

RUN = 1e-4  # relative rms of a whole run's latent, in float32
LEVEL, PSNR, SSIM = 1.0, 40.0, 0.99  # of a picture: mean difference in levels, dB, likeness
FREE_MEMORY = 256 * 2**20  # bytes written, read and compared
CACHED = 1.10  # the same work again may be a tenth faster; more, and something was not computed
ROUNDS = 6  # timed pairs
BUSY = 0.1  # spread of the times above which they say nothing


def third_rungs(subject: Subject) -> Iterator[Rung]:
    if subject.golden:
        for place, told in enumerate(subject.golden.story["runs"]):
            called = f"{place}: {told['sampler']} {told['scheduler']}"
            made = once_run(subject, place)
            yield Rung(f"run {called}", partial(whole_run, place=place, made=made))
            yield Rung(f"picture {called}", partial(whole_picture, place=place, made=made))
    shown = once(subject)
    yield Rung("fresh process", lambda asked: fresh_process(asked, shown(asked)), repeats=True)
    yield Rung("memory", lambda asked: memory(asked.models.placement.device), "memory")
    yield Rung("cpu against gpu", two_devices)
    yield Rung("timing", timing, "timing")


def once_run(subject: Subject, place: int) -> Callable[[Subject], Trace]:
    """A golden run of a subject, made once for its latent and its picture."""
    made: list[Trace] = []

    def run(asked: Subject) -> Trace:
        if asked is subject and made:
            return made[0]
        trace = Trace()
        img2img(asked.models, recipe_of(asked, place), gradient(64, 64), trace.watch)
        if asked is subject:
            made.append(trace)
        return trace

    return run


def recipe_of(subject: Subject, place: int) -> Recipe:
    told = dict(known(subject).story["runs"][place])
    prompts = known(subject).story["prompts"]
    words = str(prompts["plain"]), str(prompts["negative"])
    return Recipe(*words, sampler_name=told.pop("sampler"), **told)


def whole_run(subject: Subject, place: int, made: Callable[[Subject], Trace]) -> Gate:
    """A whole golden render; its latent, and how far it had strayed after every step.

    Where it fails, the first of the stages or steps that part is named.
    """
    golden, seen = known(subject), made(subject).tensors
    figure, limit = gap(seen["latent/output"], golden[f"run/{place}/latent"]), RUN
    grown = strayed(golden, place, seen)
    told = " -> ".join(f"{one:.1e}" for one in grown)
    if subject.models.placement.unet != torch.float32:
        return unjudged(f"its bound is in float32 (here by step {told}); the picture is judged")
    if figure <= limit:
        return held(figure, limit, f"by step: {told}")
    before = {"cond/positive": "cond/plain", "cond/negative": "cond/negative"}
    before["latent/input"] = "latent/input"
    allowed = bound(subject, "encode", 2e-5)
    stages = [k for k, v in before.items() if gap(seen[k], golden[v]) > allowed]
    stages += [f"step {step}" for step, one in enumerate(grown, 1) if not one <= limit]
    return held(figure, limit, f"the numbers part at {stages[0]}; by step: {told}")


def strayed(golden: Golden, place: int, seen: Mapping[str, Tensor]) -> list[float]:
    """Relative rms of the sampler's state after each step of a golden run; the last is the end."""
    steps = sorted(key for key in golden.tensors if key.startswith(f"run/{place}/step/"))
    between = [gap(seen[key.removeprefix(f"run/{place}/")], golden[key]) for key in steps]
    return [*between, gap(seen["latent/output"], golden[f"run/{place}/latent"])]


def whole_picture(subject: Subject, place: int, made: Callable[[Subject], Trace]) -> Gate:
    """The 8-bit picture of a golden run: mean difference in levels; PSNR and SSIM hold, too."""
    theirs = known(subject)[f"run/{place}/picture"].numpy()
    ours = to_bytes(made(subject).tensors["image/output"][0])
    if ours.shape != theirs.shape:
        return held(torch.inf, LEVEL, f"it is {ours.shape} and not {theirs.shape}")
    a, b = (torch.from_numpy(one).double() for one in (ours, theirs))
    levels, noise = float((a - b).abs().mean()), float((a - b).square().mean())
    decibels = 10 * float(torch.log10(torch.tensor(255.0**2 / noise))) if noise else torch.inf
    like = likeness(a, b)
    share = float((a != b).double().mean())
    why = f"{share:.1%} of the bytes differ, PSNR {decibels:.1f} dB, SSIM {like:.4f}"
    if decibels < PSNR or like < SSIM:
        return held(max(levels, LEVEL * 1.001), LEVEL, f"{why}; {PSNR} dB and {SSIM} are owed")
    return held(levels, LEVEL, why if noise else "")


def likeness(a: Tensor, b: Tensor) -> float:
    """SSIM of two (H, W, 3) pictures in 0..255, over 8 x 8 windows (Wang et al. 2004, eq. 13)."""
    a, b = (one.movedim(-1, 0)[:, None] for one in (a, b))

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 8, 4)

    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * ma * mb + c1) * (2 * both + c2)
    return float((top / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())


def fresh_process(subject: Subject, shown: Trace) -> Gate:
    """The same short render by another process, bit for bit; the figure counts what differs."""
    here, there = hashes(shown), fresh(subject)
    different = [key for key in here if there.get(key) != here[key]]
    return held(len(different), 0, f"the first: {different[0]}" if different else "")


def memory(device: torch.device) -> Gate:
    """A known pattern written to fresh memory of the device and read back; wrong numbers."""
    count = FREE_MEMORY // 4
    owed = torch.arange(count, dtype=torch.int32) * 40_503
    wrong, where = 0, ""
    for pattern in (owed, ~owed):
        kept = torch.empty(count, dtype=torch.int32, device=device)
        kept.copy_(pattern)
        settle(device)
        bad = (kept.cpu() != pattern).nonzero()
        wrong += len(bad)
        if len(bad):
            where = where or f"the first: number {int(bad[0])} of {count}"
    return held(wrong, 0, where)


Elsewhere = Callable[[Subject], AbstractContextManager[Subject]]


def two_devices(subject: Subject, elsewhere: Elsewhere | None = None) -> Gate:
    """Every part on the CPU and on the device, float32 without TF32: the worst of them.

    The layer where the two part is named. `elsewhere` moves a subject to the CPU.
    """
    if subject.models.placement.device.type == "cpu" and elsewhere is None:
        return unjudged("these gates ran on the CPU alone")
    if {subject.models.placement.unet, subject.models.placement.vae} != {torch.float32}:
        return unjudged("it needs float32 on both")
    worst, where = 0.0, ""
    with (elsewhere or on_the_cpu)(subject) as moved:
        for stage, (network, run) in runs(subject).items():
            other, other_run = runs(moved)[stage]
            figure = gap(first(run()), first(other_run()))
            if figure > worst:
                worst, where = figure, stage
            if figure > DENOISER:
                theirs = {k: mark.numbers for k, mark in layers(other, other_run).items()}
                part_at = parted(layers(network, run), theirs, DENOISER)
                return held(figure, DENOISER, f"{stage}: the numbers part at {part_at}")
    return held(worst, DENOISER, f"most in {where}")


def first(given: object) -> Tensor:
    one = given[0] if isinstance(given, tuple) else given
    assert isinstance(one, Tensor)
    return one


def timing(subject: Subject) -> Gate:
    """The same step again and a new one, in turns: how many times as fast the old one is."""
    models, device = subject.models, subject.models.placement.device
    blank = torch.zeros(1, 4, 8, 8)
    texts = [prompt(models, *models.text.encode(words), blank) for words in ("a dog", "a cat")]
    guided = guide(models.denoiser, texts[0], texts[1], 5.0)
    level = torch.tensor(3.0, device=device)
    generator = torch.Generator().manual_seed(6)

    def seconds(x: Tensor) -> float:
        settle(device)
        start = time.perf_counter()
        guided(x, level)
        settle(device)
        return time.perf_counter() - start

    old = torch.randn(blank.shape, generator=generator).to(device)
    times: tuple[list[float], list[float]] = [], []
    with small_convolutions(device, blank):
        seconds(old)
        for _ in range(ROUNDS):
            new = torch.randn(blank.shape, generator=generator).to(device)
            times[0].append(seconds(old))
            times[1].append(seconds(new))
    same, fresh_ones = (median(one) for one in times)
    spread = max(median(abs(t - median(one)) for t in one) / median(one) for one in times)
    always = all(old < new for old, new in zip(*times, strict=True))  # as what is kept would be
    if spread > BUSY or (fresh_ones > CACHED * same and not always):
        return unjudged(f"the times differ by {spread:.0%}: the machine is busy with other things")
    return held(fresh_ones / same, CACHED, f"{fresh_ones * 1000:.0f} ms a guided step at 64 x 64")
