"""Verify: is every stage right, on this machine, now? A ladder of gates against ComfyUI's numbers.

Depth 1 needs no network: tokens, schedules, noise, samplers in a world with a known answer.
Depth 2 takes the full-size synthetic SD 1.5 apart: weights, text, encoder, decoder, denoiser.
Depth 3 adds whole runs, and the CPU against the GPU where both are there.
Figures are relative rms against `data/golden.*` (ComfyUI 0.3.64, CPU, float32) unless said.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.checkpoint import PREFIXES
from runner.devices import Placement, capability, denoiser_dtype, machine, name, small_convolutions
from runner.guidance import Denoiser, Prompt, guide, one_hill, two_hills, uniform
from runner.noise import Dice, first_noise
from runner.pipeline import Models, img2img, noised, not_finite
from runner.pixels import gradient
from runner.recipe import Progress, Recipe, Refused
from runner.sampler import Guided
from runner.samplers import SAMPLERS
from runner.schedules import sigma_table, walk
from runner.tokenizer import chunks
from runner.trace import Trace, gap, layers, parted

DATA = Path(__file__).parent / "data"
TEXT, ENCODE, DECODE, DENOISER, RUN, SAMPLER = 1e-5, 1e-5, 2e-5, 2e-5, 1e-4, 1e-5
COARSER = {"float32": 1, "float16": 250, "bfloat16": 2500}  # times the bounds of a network
GOLDEN_CAPABILITY = "AVX2"  # of the machine the golden numbers came from
LAST_BITS = 2e-6  # what another instruction set may change in log, exp and pow
PROBES = (0.4, 3.0, 14.0)  # σ

PASSED, FAILED, NOT_JUDGED = "passed", "failed", "not judged"


@dataclass(frozen=True)
class Gate:
    """One question, its measured figure, the bound it was held against, and why if not passed."""

    name: str
    figure: float | None
    bound: float | None
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    gates: tuple[Gate, ...]
    machine: Mapping[str, object]
    depth: int
    dtype: str = ""

    @property
    def passed(self) -> bool:
        """No gate failed, and some were judged."""
        verdicts = {gate.verdict for gate in self.gates}
        return FAILED not in verdicts and PASSED in verdicts

    def to_json(self) -> dict[str, object]:
        """The object of schema runner.verify/1; an infinite figure is the string "inf"."""
        gates = [asdict(gate) for gate in self.gates]
        for gate in gates:
            gate["figure"] = "inf" if gate["figure"] == inf else gate["figure"]
        return {
            "schema": "runner.verify/1",
            "depth": self.depth,
            "dtype": self.dtype,
            "machine": dict(self.machine),
            "gates": gates,
            "passed": self.passed,
        }


Ask = Callable[[], Gate]


@lru_cache(maxsize=1)
def golden() -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(DATA / "golden.safetensors")


@lru_cache(maxsize=1)
def story() -> dict[str, Any]:
    """Prompts, tokens, settings of the runs, model calls and the names of layers."""
    told: dict[str, Any] = json.loads((DATA / "golden.json").read_text("utf-8"))
    return told


def verify(
    depth: int, placement: Placement, load: Callable[[], Models], progress: Progress
) -> Verdict:
    """Climb the ladder to a depth of 1, 2 or 3. load() gives the synthetic sd15 where needed."""
    asked = list(first_rungs())
    gates = []
    models = None
    if depth >= 2:
        models = load()
        asked += second_rungs(models)
    if depth >= 3 and models:
        asked += third_rungs(models)
    for done, (called, ask) in enumerate(asked, 1):
        gates.append(judged(called, ask))
        progress("verify", done, len(asked))
    dtype = name(placement.unet) if depth >= 2 else "float32"
    return Verdict(tuple(gates), machine(placement.device), depth, dtype)


def judged(called: str, ask: Ask) -> Gate:
    """A gate's answer. A crash is an answer too: that stage does not work here."""
    try:
        with torch.inference_mode():
            return replace(ask(), name=called)
    except Refused as lacking:
        absent = lacking.id == "torchsde-missing"  # ComfyUI brings it, torch alone does not
        verdict = NOT_JUDGED if absent else FAILED
        return Gate(called, None, None, verdict, str(lacking))
    except Exception as error:  # noqa: BLE001 - whatever is broken must fail this gate alone
        return Gate(called, None, None, FAILED, f"it stopped with {type(error).__name__}: {error}")


def held(figure: float, bound: float, why: str = "") -> Gate:
    """Passed if the figure is within its bound; `why` is kept either way."""
    return Gate("", figure, bound, PASSED if figure <= bound else FAILED, why)


def first_rungs() -> Iterator[tuple[str, Ask]]:
    yield "tokens", tokens
    yield "schedules", schedules
    yield "noise", noise
    for sampler_name in SAMPLERS:
        yield f"sampler {sampler_name}", partial(sampler, sampler_name)


def tokens() -> Gate:
    """Every golden prompt in the same tokens and weights; the figure counts those that differ."""
    wrong = []
    for called, prompt in story()["prompts"].items():
        ours = [[list(token) for token in chunk] for chunk in chunks(str(prompt))]
        if ours != story()["tokens"][called]:
            wrong.append(called)
    return held(len(wrong), 0, f"prompt {wrong[0]!r} is read otherwise" if wrong else "")


def schedules() -> Gate:
    """Every golden schedule bit for bit; on another instruction set, to the last bits."""
    tables = {"eps": sigma_table(), "v": sigma_table(), "v_zsnr": sigma_table(zero_snr=True)}
    worst, where, different = 0.0, "", 0
    for key, theirs in golden().items():
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


def sampler(called: str) -> Gate:
    """A sampler in the world with a known answer, its end and its number of model calls."""
    worst, why = 0.0, ""
    for key, theirs in golden().items():
        if not key.startswith(f"samples/{called}/"):
            continue
        ours, calls = in_known_world(key)
        if calls != story()["model_calls"][key]:
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


def second_rungs(models: Models) -> Iterator[tuple[str, Ask]]:
    yield "weights", lambda: weights(models)
    yield "text", lambda: text(models)
    yield "encode", lambda: encode(models)
    yield "decode", lambda: decode(models)
    yield "denoiser", lambda: denoiser(models, models.denoiser, bound(models, DENOISER))
    if models.placement.device.type != "cpu":
        yield "denoiser in 16 bits", lambda: sixteen_bits(models)
    once: list[Trace] = []
    yield "finite", lambda: finite(models, once)
    yield "determinism", lambda: determinism(models, once)


def bound(models: Models, figure: float) -> float:
    return figure * COARSER[models.placement.dtype]


def weights(models: Models) -> Gate:
    """The checksum of every tensor in memory; the figure counts those that differ."""
    here = [(p, k, w) for p, network in parts(models) for k, w in network.named_parameters()]
    here.sort(key=lambda one: PREFIXES[one[0]] + one[1])
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        ours = list(pool.map(lambda one: checksum(one[2]), here))
    wrong = []
    for place, ((part, key, weight), mine) in enumerate(zip(here, ours, strict=True)):
        theirs = golden().get(f"weights/{name(weight.dtype)}")
        if theirs is None:
            return Gate("", None, None, NOT_JUDGED, f"no checksums of {name(weight.dtype)} weights")
        if int(theirs[place]) != mine:
            wrong.append(PREFIXES[part] + key)
    return held(len(wrong), 0, f"the first that is not its recipe's: {wrong[0]}" if wrong else "")


def parts(models: Models) -> Iterator[tuple[str, torch.nn.Module]]:
    yield "text", models.text
    yield "unet", models.denoiser.unet  # type: ignore[misc]
    yield "vae", models.vae


def checksum(weight: Tensor) -> int:
    return zlib.crc32(weight.detach().cpu().contiguous().view(torch.uint8).numpy())  # type: ignore[arg-type]


def text(models: Models) -> Gate:
    """Every golden prompt's embedding; large ones are kept as every 7th token, 16th feature."""
    worst, where = 0.0, ""
    for called, prompt in story()["prompts"].items():
        ours, theirs = models.text(chunks(str(prompt)))[0], golden()[f"cond/{called}"]
        ours = ours if ours.shape == theirs.shape else ours[:, ::7, ::16]
        if gap(ours, theirs) > worst:
            worst, where = gap(ours, theirs), called
    run = lambda: models.text(chunks("a dog with a hat"))  # noqa: E731
    return explained(worst, TEXT, models.text, "text", run, f"most in prompt {where!r}")


def encode(models: Models) -> Gate:
    picture = gradient(64, 64)
    figure = gap(models.vae.encode(picture), golden()["latent/input"])
    run = lambda: models.vae.encode(picture)  # noqa: E731
    return explained(figure, bound(models, ENCODE), models.vae, "encode", run)


def decode(models: Models) -> Gate:
    latent = golden()["latent/input"]
    figure = gap(models.vae.decode(latent), golden()["image/roundtrip"])
    run = lambda: models.vae.decode(latent)  # noqa: E731
    return explained(figure, bound(models, DECODE), models.vae, "decode", run)


def probe(models: Models, denoise: Denoiser, sigma: float) -> Tensor:
    """The guided denoiser at cfg 5 on the golden latent, at one σ; (1, 4, 8, 8) on the CPU."""
    level, device = torch.tensor(sigma), models.placement.device
    x = golden()["probe/x"] * (level**2 + 1) ** 0.5
    texts = Prompt(golden()["cond/plain"]), Prompt(golden()["cond/negative"])
    towards = guide(denoise, *texts, 5.0)
    with small_convolutions(device, x):
        return towards(x.to(device), level.to(device)).cpu()


def denoiser(models: Models, denoise: Denoiser, limit: float) -> Gate:
    worst, where = 0.0, ""
    for sigma in PROBES:
        figure = gap(probe(models, denoise, sigma), golden()[f"probe/denoised/sigma={sigma}"])
        if figure > worst:
            worst, where = figure, f"most at σ = {sigma}"
    run = lambda: probe(models, denoise, 3.0)  # noqa: E731
    return explained(worst, limit, denoise.unet, "denoiser", run, where)  # type: ignore[arg-type]


def explained(
    figure: float,
    limit: float,
    network: torch.nn.Module,
    part: str,
    run: Callable[[], object],
    where: str = "",
) -> Gate:
    """A figure held against its bound; where it fails, the first layer whose numbers part."""
    if figure <= limit:
        return held(figure, limit, "")
    names = story()["layers"][part]
    theirs = dict(zip(names, golden()[f"layers/{part}"].double(), strict=True))
    first = parted(layers(network, run), theirs, limit)
    part_at = f"the numbers part at {first}" if first else "no single layer parts"
    return held(figure, limit, "; ".join(filter(None, [where, part_at])))


def sixteen_bits(models: Models) -> Gate:
    """The denoiser in the precision ComfyUI would choose on this device."""
    dtype = denoiser_dtype(models.placement.device)
    if dtype == models.placement.unet:
        return Gate("", None, None, NOT_JUDGED, f"{name(dtype)} is what was judged already")
    copy = deepcopy(models.denoiser.unet).to(dtype)  # type: ignore[attr-defined]
    narrow = replace(models.denoiser, unet=copy, dtype=dtype)
    return denoiser(models, narrow, DENOISER * COARSER[name(dtype)])


def finite(models: Models, once: list[Trace]) -> Gate:
    """Nothing on the way of a short render is NaN or infinite; the figure counts tensors."""
    once.append(short_run(models))
    bad = list(not_finite(once[0].tensors.items()))
    return held(len(bad), 0, f"the first: {bad[0]}" if bad else "")


def determinism(models: Models, once: list[Trace]) -> Gate:
    """The same short render again, bit for bit; the figure counts tensors that differ."""
    first, again = once[0].tensors, short_run(models).tensors
    different = [key for key in first if not torch.equal(first[key], again[key])]
    return held(len(different), 0, f"the first: {different[0]}" if different else "")


def short_run(models: Models) -> Trace:
    trace = Trace()
    recipe = Recipe("a hat", steps=1, cfg=1.0, sampler_name="euler", seed=5)
    img2img(models, recipe, gradient(64, 64), trace.watch)
    return trace


def third_rungs(models: Models) -> Iterator[tuple[str, Ask]]:
    for place, told in enumerate(story()["runs"]):
        called = f"run {place}: {told['sampler']} {told['scheduler']}"
        yield called, partial(whole_run, models, place)
    yield "cpu against gpu", lambda: two_devices(models)


def whole_run(models: Models, place: int) -> Gate:
    """A whole golden render; its latent. The first of the stages before that parts is named."""
    told = dict(story()["runs"][place])
    prompts = story()["prompts"]
    recipe = Recipe(
        str(prompts["plain"]),
        str(prompts["negative"]),
        sampler_name=told.pop("sampler"),
        **told,
    )
    trace = Trace()
    img2img(models, recipe, gradient(64, 64), trace.watch)
    seen = trace.tensors
    figure = gap(seen["latent/output"], golden()[f"run/{place}/latent"])
    if figure <= bound(models, RUN):
        return held(figure, bound(models, RUN))
    before = {"cond/positive": "cond/plain", "cond/negative": "cond/negative"}
    before["latent/input"] = "latent/input"
    stages = (k for k, v in before.items() if gap(seen[k], golden()[v]) > bound(models, ENCODE))
    first = next(stages, "the sampler's steps: all before them agrees")
    return held(figure, bound(models, RUN), f"the numbers part at {first}")


def two_devices(models: Models) -> Gate:
    """The same guided step on the CPU and on the device, float32 without TF32."""
    if models.placement.device.type == "cpu":
        return Gate("", None, None, NOT_JUDGED, "these gates ran on the CPU alone")
    if models.placement.unet != torch.float32:
        return Gate("", None, None, NOT_JUDGED, "it needs float32 on both")
    copy = deepcopy(models.denoiser.unet).cpu()  # type: ignore[attr-defined]
    here = replace(models, placement=replace(models.placement, device=torch.device("cpu")))
    ours = probe(models, models.denoiser, 3.0)
    return held(gap(ours, probe(here, replace(models.denoiser, unet=copy), 3.0)), DENOISER)
