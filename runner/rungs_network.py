"""The second rungs: a loaded model taken apart, each part held against ComfyUI's numbers.

Bounds in float32 are facts of this project; in 16 bits a stage may be 1.5 times as far from
float32 as ComfyUI itself is in that precision (measured; data/golden.*.json, "sixteen").
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor, nn

from runner.births import birth
from runner.devices import name, small_convolutions
from runner.families import FAMILIES
from runner.gate import Gate, Rung, Subject, held, unjudged
from runner.golden import Golden
from runner.guidance import Prompt, guide
from runner.layers import layers, parted
from runner.pipeline import Models, Watch, img2img, not_finite, prompt
from runner.pixels import gradient, to_bytes
from runner.recipe import Recipe
from runner.trace import Trace, gap

TEXT, ENCODE, DECODE, DENOISER = 1e-5, 1e-5, 2e-5, 2e-5
RATIO = 1.5  # of ComfyUI's own error in the same 16 bits
PROBES = (0.4, 3.0, 14.0)  # σ
FLAT = 0.9  # share of a picture's pixels that may have one colour


def second_rungs(subject: Subject) -> Iterator[Rung]:
    yield Rung("weights", weights, "weights")
    yield Rung("precision", precision)
    if subject.golden:
        yield Rung("text", text, "text")
        yield Rung("encode", encode, "vae")
        yield Rung("decode", decode, "vae")
        yield Rung("denoiser", denoiser, "unet")
        yield Rung("odd sizes", odd_sizes, "unet")
    yield Rung("engine", engine, "unet")
    yield Rung("batch", batch, "unet")
    shown = once(subject)
    yield Rung("finite", lambda asked: finite(asked, shown(asked)))
    yield Rung("picture", lambda asked: picture(shown(asked)))
    yield Rung("determinism", lambda asked: determinism(asked, shown(asked)), repeats=True)


def narrow_rungs(subject: Subject) -> Iterator[Rung]:
    """What is asked once more in the 16 bits that ComfyUI would choose on this device."""
    if subject.golden:
        yield Rung("encode in 16 bits", encode, "vae")
        yield Rung("decode in 16 bits", decode, "vae")
        yield Rung("denoiser in 16 bits", denoiser, "unet")
        yield Rung("odd sizes in 16 bits", odd_sizes, "unet")
    shown = once(subject)
    yield Rung("finite in 16 bits", lambda asked: finite(asked, shown(asked)))
    yield Rung("picture in 16 bits", lambda asked: picture(shown(asked)))


def once(subject: Subject) -> Callable[[Subject], Trace]:
    """The short render of a subject, made once for the rungs that look at it."""
    made: list[Trace] = []

    def shown(asked: Subject) -> Trace:
        if asked is not subject:
            return short_run(asked)
        if not made:
            made.append(short_run(asked))
        return made[0]

    return shown


def bound(subject: Subject, stage: str, figure: float) -> float:
    """The bound of a stage: `figure` in float32, by the ratio rule in 16 bits."""
    placement = subject.models.placement
    dtype = placement.vae if stage in ("encode", "decode") else placement.unet
    if dtype == torch.float32 or subject.golden is None:
        return figure
    return RATIO * float(subject.golden.story["sixteen"][name(dtype)][stage])


def weights(subject: Subject) -> Gate:
    """Every weight in memory is the one that was read; the figure counts tensors that differ.

    Synthetic weights by their checksums, a file's by reading it once more.
    """
    models = subject.models
    here = [(part, key, w) for part, net in parts(models) for key, w in net.named_parameters()]
    prefixes = FAMILIES[subject.checkpoint.family].prefixes
    here.sort(key=lambda one: prefixes[one[0]] + one[1])
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        same = list(pool.map(lambda place: unchanged(subject, place, *here[place]),
                             range(len(here))))  # fmt: skip
    wrong = [one for one, fine in zip(here, same, strict=True) if not fine]
    if not wrong:
        return held(0, 0)
    part, key, weight = wrong[0]
    what = difference(weight, reread(subject, part, key, weight))
    return held(len(wrong), 0, f"the first that is not as it was read: {prefixes[part]}{key}{what}")


def unchanged(subject: Subject, place: int, part: str, key: str, weight: Tensor) -> bool:
    sums = subject.golden.tensors.get(f"weights/{name(weight.dtype)}") if subject.golden else None
    if sums is not None:
        return int(sums[place]) == checksum(weight)
    return torch.equal(as_bytes(weight), as_bytes(reread(subject, part, key, weight)))


def reread(subject: Subject, part: str, key: str, weight: Tensor) -> Tensor:
    fresh = torch.empty(weight.shape, dtype=weight.dtype)
    subject.checkpoint.fill(part, key, fresh)
    return fresh


def difference(ours: Tensor, owed: Tensor) -> str:
    """Where two tensors of equal shape and dtype differ; one bit alone is a fault of memory."""
    width = {2: torch.int16, 4: torch.int32}[ours.element_size()]
    mine, theirs = (t.detach().cpu().contiguous().view(-1).view(width) for t in (ours, owed))
    places = (mine != theirs).nonzero()
    if not len(places):
        return " (and as it should be when read again)"
    at = int(places[0])
    flipped = bin(int(mine[at] ^ theirs[at]) & (2 ** (8 * ours.element_size()) - 1)).count("1")
    single = " by one bit: a fault of memory" if len(places) == flipped == 1 else ""
    return f", {len(places)} of {mine.numel()} numbers, the first number {at}{single}"


def parts(models: Models) -> Iterator[tuple[str, nn.Module]]:
    yield "text", models.text
    yield "unet", models.denoiser.unet  # type: ignore[misc]
    yield "vae", models.vae


def checksum(weight: Tensor) -> int:
    return zlib.crc32(as_bytes(weight).numpy())  # type: ignore[arg-type]


def as_bytes(weight: Tensor) -> Tensor:
    return weight.detach().cpu().contiguous().view(-1).view(torch.uint8)


Run = Callable[[], object]


def runs(subject: Subject) -> Mapping[str, tuple[nn.Module, Run]]:
    """Stage -> its network, and one piece of work for it."""
    models = subject.models
    some = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    latent = subject.golden["latent/input"] if subject.golden else some
    return {
        "text": (models.text, lambda: models.text.encode("a dog with a hat")),
        "encode": (models.vae, lambda: models.vae.encode(gradient(64, 64))),
        "decode": (models.vae, lambda: models.vae.decode(latent)),
        "denoiser": (models.denoiser.unet, lambda: probe(subject, 3.0)),  # type: ignore[dict-item]
    }


def precision(subject: Subject) -> Gate:
    """Every layer computes in the precision it was placed in; the figure counts those that do not.

    A float32 whose numbers all fit into 16 bits was rounded on the way.
    """
    placement = subject.models.placement
    owed = {"text": torch.float32, "denoiser": placement.unet}
    wrong, where = 0, ""
    for stage, (network, run) in runs(subject).items():
        wanted = name(owed.get(stage, placement.vae))
        for layer, mark in layers(network, run).items():
            stored = isinstance(network.get_submodule(layer), nn.Embedding)  # gives what is stored
            if mark.computed_in != wanted and not stored:
                wrong += 1
                where = where or f"the first: {stage}, {layer}: {mark.computed_in}, not {wanted}"
    return held(wrong, 0, where)


def text(subject: Subject) -> Gate:
    """Every golden prompt's embedding; large ones are kept as every 7th token, 16th feature."""
    golden = known(subject)
    worst, where = 0.0, ""
    for called, words in golden.story["prompts"].items():
        ours, theirs = subject.models.text.encode(str(words))[0], golden[f"cond/{called}"]
        ours = ours if ours.shape == theirs.shape else ours[:, ::7, ::16]
        if gap(ours, theirs) > worst:
            worst, where = gap(ours, theirs), called
    return explained(subject, "text", worst, TEXT, f"most in prompt {where!r}")


def encode(subject: Subject) -> Gate:
    """The mean of the latent, and never a sample of it."""
    figure = gap(subject.models.vae.encode(gradient(64, 64)), known(subject)["latent/input"])
    return explained(subject, "encode", figure, bound(subject, "encode", ENCODE))


def decode(subject: Subject) -> Gate:
    golden = known(subject)
    figure = gap(subject.models.vae.decode(golden["latent/input"]), golden["image/roundtrip"])
    return explained(subject, "decode", figure, bound(subject, "decode", DECODE))


def known(subject: Subject) -> Golden:
    assert subject.golden is not None, "only asked where there are golden numbers"
    return subject.golden


def probe(subject: Subject, sigma: float, quick: bool = False, which: str = "probe") -> Tensor:
    """The guided denoiser at cfg 5 on one latent (the golden one), at one σ; on the CPU.

    By the plain network, or by its engine. which: "probe", or "odd" for the one of odd size.
    """
    models, level = subject.models, torch.tensor(sigma)
    device = models.placement.device
    if subject.golden:
        x = subject.golden[f"{which}/x"]
        texts = golden_texts(models, subject.golden, x)
    else:
        x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
        texts = [prompt(models, *models.text.encode(words), x) for words in ("a dog", "a cat")]
    x = x * (level**2 + 1) ** 0.5
    ready = models.denoiser.quick(torch.stack([level, level * 0])) if quick else models.denoiser
    towards = guide(ready, texts[0], texts[1], 5.0)
    with small_convolutions(device, x):
        return towards(x.to(device), level.to(device)).cpu()


def golden_texts(models: Models, golden: Golden, x: Tensor) -> list[Prompt]:
    """The plain and the negative prompt for a latent, as ComfyUI's text encoder gave them."""
    pooled = golden.tensors.get
    return [
        prompt(models, golden[f"cond/{n}"], pooled(f"pooled/{n}", torch.empty(0)), x)
        for n in ("plain", "negative")
    ]


def denoiser(subject: Subject) -> Gate:
    return explained(subject, "denoiser", *worst_probe(subject, "probe"))


def odd_sizes(subject: Subject) -> Gate:
    """The guided denoiser on a latent that the network cannot halve evenly."""
    return held(*worst_probe(subject, "odd"))


def worst_probe(subject: Subject, which: str) -> tuple[float, float, str]:
    """Of the probed σ, the one furthest past its bound or nearest to it: figure, bound, where."""
    worst, where, limit, over = 0.0, "", 0.0, 0.0
    for sigma in PROBES:
        owed = known(subject)[f"{which}/denoised/sigma={sigma}"]
        figure = gap(probe(subject, sigma, which=which), owed)
        allowed = bound(subject, f"denoiser {sigma}", DENOISER)
        if figure / allowed >= over:
            over, worst, limit, where = figure / allowed, figure, allowed, f"most at σ = {sigma}"
    return worst, limit, where


def explained(subject: Subject, stage: str, figure: float, limit: float, where: str = "") -> Gate:
    """A figure held against its bound; where it fails, the first layer whose numbers part."""
    if figure <= limit:
        return held(figure, limit)
    golden = known(subject)
    theirs = dict(
        zip(golden.story["layers"][stage], golden[f"layers/{stage}"].double(), strict=True)
    )
    network, run = runs(subject)[stage]
    first = parted(layers(network, run), theirs, limit)
    part_at = f"the numbers part at {first}" if first else "no single layer parts"
    return held(figure, limit, "; ".join(filter(None, [where, part_at])))


def engine(subject: Subject) -> Gate:
    """The engine that renders gives the numbers of the plain network, which the gates hold."""
    limit, worst, where = bound(subject, "denoiser 3.0", DENOISER), 0.0, ""
    for sigma in PROBES:
        figure = gap(probe(subject, sigma, quick=True), probe(subject, sigma))
        if figure > worst:
            worst, where = figure, f"most at σ = {sigma}"
    figure = darkroom(subject)
    if figure > worst:
        worst, where = figure, "most in the VAE"
    if subject.models.placement.unet != torch.float32 and subject.golden is None:
        return unjudged("16 bits round otherwise, and no golden numbers say how much")
    return held(worst, limit, where if worst > limit else "")


def darkroom(subject: Subject) -> float:
    """How far the VAE that renders is from the plain one, decoding; 0 where they are one."""
    models = subject.models
    if models.painter is models.vae:
        return 0.0
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(6))
    return gap(models.painter.decode(latent), models.vae.decode(latent))


def batch(subject: Subject) -> Gate:
    """A latent gets the same guess alone and in a batch, at every place of it."""
    models = subject.models
    device = models.placement.device
    one = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4)).to(device)
    text = prompt(models, *models.text.encode("a dog with a hat"), one)
    level = torch.tensor(1.0, device=device)
    with small_convolutions(device, one):
        guess = guide(models.denoiser, text, text, 1.0)
        together = guess(one, level)
        alone = torch.cat([guess(x[None], level) for x in one])
    limit = bound(subject, "denoiser 3.0", DENOISER)
    if models.placement.unet != torch.float32 and subject.golden is None:
        return unjudged("16 bits round a batch otherwise, and no golden numbers say how much")
    figures = [gap(a, b) for a, b in zip(together, alone, strict=True)]
    return held(max(figures), limit, f"at place {figures.index(max(figures))} of the batch")


SHORT = Recipe("a hat", "a dog", steps=2, cfg=5.0, sampler_name="euler", denoise=0.5, seed=5)


def short_run(subject: Subject, watch: Watch | None = None) -> Trace:
    """A render of two guided steps, everything on the way kept."""
    trace = Trace()

    def seen(called: str, tensor: Tensor) -> None:
        trace.watch(called, tensor)
        if watch:
            watch(called, tensor)

    img2img(subject.models, SHORT, gradient(64, 64), seen)
    return trace


def finite(subject: Subject, shown: Trace) -> Gate:
    """Nothing on the way of a short render is NaN or infinite; the figure counts tensors."""
    bad = list(not_finite(shown.tensors.items()))
    if not bad:
        return held(0, 0)
    born = birth(
        subject.models, lambda models, watch: short_run(replace(subject, models=models), watch)
    )
    return held(len(bad), 0, f"the first: {bad[0]}; born in {born}" if born else f"first {bad[0]}")


def picture(shown: Trace) -> Gate:
    """The picture is not of one colour, as a black one is; the figure is the share that is."""
    pixels = to_bytes(shown.tensors["image/output"][0]).reshape(-1, 3)
    colours, counts = torch.unique(torch.from_numpy(pixels), dim=0, return_counts=True)  # type: ignore[no-untyped-call]
    share, colour = float(counts.max()) / len(pixels), tuple(colours[counts.argmax()].tolist())
    told = "black" if colour == (0, 0, 0) else f"rgb{colour}"
    return held(share, FLAT, f"{share:.0%} of the picture is {told}" if share > FLAT else "")


TIMES = 3  # the same render in one process


def determinism(subject: Subject, shown: Trace) -> Gate:
    """The same short render again and again, bit for bit; the figure counts tensors that differ."""
    first = shown.tensors
    for time in range(1, TIMES):
        again = short_run(subject).tensors
        different = [key for key in first if not same(first[key], again[key])]
        if different:
            key = different[0]
            what = difference(again[key].float(), first[key].float())
            return held(len(different), 0, f"time {time + 1}, the first: {key}{what}")
    return held(0, 0)


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(as_bytes(a), as_bytes(b))  # NaN is the same as itself here
