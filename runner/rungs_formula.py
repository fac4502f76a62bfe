"""The ladder's first rungs, which need no network: words, formulas, and the device's arithmetic."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.devices import capability, name
from runner.gate import FAILED, Gate, held
from runner.golden import golden
from runner.guidance import one_hill, two_hills, uniform
from runner.noise import Dice, first_noise
from runner.pipeline import noised
from runner.sampler import Guided
from runner.samplers import SAMPLERS
from runner.schedules import sigma_table, walk
from runner.tokenizer import chunks
from runner.trace import gap

SAMPLER = 1e-5  # relative rms
GOLDEN_CAPABILITY = "AVX2"  # of the machine the golden numbers came from
LAST_BITS = 2e-6  # what another instruction set may change in log, exp and pow
REPEATS = 8  # of every known product: a device that errs, errs now and then
SIDE, DEPTH = 192, 252  # of the known products; sums of DEPTH ones are whole in every precision

Ask = Callable[[], Gate]


def first_rungs(device: torch.device) -> Iterator[tuple[str, Ask]]:
    yield "tokens", tokens
    yield "schedules", schedules
    yield "noise", noise
    yield "arithmetic", lambda: arithmetic(device)
    for sampler_name in SAMPLERS:
        yield f"sampler {sampler_name}", partial(sampler, sampler_name)


def tokens() -> Gate:
    """Every golden prompt in the same tokens and weights; the figure counts those that differ."""
    wrong = []
    story = golden().story
    for called, prompt in story["prompts"].items():
        ours = [[list(token) for token in chunk] for chunk in chunks(str(prompt))]
        if ours != story["tokens"][called]:
            wrong.append(called)
    return held(len(wrong), 0, f"prompt {wrong[0]!r} is read otherwise" if wrong else "")


def schedules() -> Gate:
    """Every golden schedule bit for bit; on another instruction set, to the last bits."""
    tables = {"eps": sigma_table(), "v": sigma_table(), "v_zsnr": sigma_table(zero_snr=True)}
    worst, where, different = 0.0, "", 0
    for key, theirs in golden().tensors.items():
        if not key.startswith("sigmas/"):
            continue
        _, predicts, scheduler, sampler_name, steps, denoise = key.split("/")
        n, d = int(steps.removeprefix("steps=")), float(denoise.removeprefix("denoise="))
        ours = walk(tables[predicts], scheduler, sampler_name, n, d)
        if not torch.equal(ours, theirs):
            different += 1
            if gap(ours, theirs) > worst:
                worst, where = gap(ours, theirs), key
    return bits(worst, f"{different} differ, most {where}" if different else "")


def bits(figure: float, where: str) -> Gate:
    """0 is asked for on the instruction set of the golden numbers, LAST_BITS elsewhere."""
    here = capability().upper()
    if here == GOLDEN_CAPABILITY or figure == 0:
        return held(figure, 0.0, where)
    why = f"{where}; equal bits need {GOLDEN_CAPABILITY} and torch uses {here} here"
    return held(figure, LAST_BITS, why)


def noise() -> Gate:
    theirs = golden()["noise/seed=42"]
    figure = gap(first_noise(42, theirs), theirs)
    return bits(figure, "the noise of seed 42 differs" if figure else "")


def arithmetic(device: torch.device) -> Gate:
    """Products whose answers are whole numbers, the same in any order of summing.

    Matrix products, convolutions and attention in every precision, again and again; the figure
    counts wrong numbers. A device that is too hot, overclocked or worn out fails here.
    """
    wrong, where = 0, ""
    for called, run, answer in known_products():
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for repeat in range(REPEATS):
                got = run(device, dtype).double().cpu()
                bad = int((got != answer).sum())
                wrong += bad
                if bad and not where:
                    at = int((got != answer).flatten().nonzero()[0])
                    here, owed = got.flatten()[at].item(), answer.flatten()[at].item()
                    where = (
                        f"the first: {called} in {name(dtype)}, time {repeat + 1}, {bad} of "
                        f"{answer.numel()} numbers; number {at} is {here:g} and not {owed:g}"
                    )
    return held(wrong, 0, where)


Run = Callable[[torch.device, torch.dtype], Tensor]


def known_products() -> Iterator[tuple[str, Run, Tensor]]:
    """(name, what is computed, the exact answer in float64)."""
    a, b = signs(1, SIDE, DEPTH), signs(2, DEPTH, SIDE)
    yield "a matrix product", lambda d, t: a.to(d, t) @ b.to(d, t), a @ b
    image, kernel = signs(3, 1, DEPTH // 9, 16, 16), signs(4, 32, DEPTH // 9, 3, 3)
    columns = F.unfold(image, 3)
    answer = (kernel.flatten(1) @ columns[0]).view(1, 32, 14, 14)
    yield "a convolution", lambda d, t: F.conv2d(image.to(d, t), kernel.to(d, t)), answer
    order = torch.randperm(64, generator=torch.Generator().manual_seed(5))
    one = torch.eye(64, dtype=torch.float64)[None, None]
    value = signs(6, 1, 1, 64, 64)

    def attend(d: torch.device, t: torch.dtype) -> Tensor:
        query, key = 30 * one[:, :, order], 30 * one  # scores of 112 where they meet, else 0
        return F.scaled_dot_product_attention(query.to(d, t), key.to(d, t), value.to(d, t))

    yield "attention", attend, value[:, :, order]


def signs(seed: int, *shape: int) -> Tensor:
    """-1, 0 or 1, by a seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, shape, generator=generator).double()


def sampler(called: str) -> Gate:
    """A sampler in the world with a known answer, its end and its number of model calls."""
    worst, why = 0.0, ""
    for key, theirs in golden().tensors.items():
        if not key.startswith(f"samples/{called}/"):
            continue
        ours, calls = in_known_world(key)
        if calls != golden().story["model_calls"][key]:
            return Gate("", float(calls), None, FAILED, f"{calls} model calls in {key}")
        figure = gap(ours, theirs)
        if figure > worst:
            worst, why = figure, key if figure > SAMPLER else ""
    return held(worst, SAMPLER, why)


def in_known_world(key: str) -> tuple[Tensor, int]:
    """Run the golden case of that name on denoisers that are formulas; (1, 4, 8, 8) and calls."""
    _, called, scheduler, *numbers = key.split("/")
    told = {k: float(v) for k, v in (number.split("=") for number in numbers)}
    steps, seed = int(told["steps"]), int(told["seed"])
    table, calls = sigma_table(), 0

    def both(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        unwanted, wanted = one_hill(x, sigma), two_hills(x, sigma)
        return unwanted + told["cfg"] * (wanted - unwanted), unwanted

    latent = uniform(7)
    sigmas = walk(table, scheduler, called, steps, told["denoise"])
    x = noised(latent, first_noise(seed, latent), sigmas[0], table)
    denoise = Guided(lambda x, sigma: both(x, sigma)[0], both, table)
    *_, end = SAMPLERS[called](denoise, x, sigmas, Dice(seed, latent))
    return end, calls
