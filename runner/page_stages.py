"""The stages of a page: what each of them did to one picture, as HTML with this run's numbers."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path

from torch import Tensor

from runner.drawing import heat, picture, plot, tiles
from runner.listening import SMALL, Call, Step, looked_at, spread, steps
from runner.pipeline import Models
from runner.pixels import crop, scale
from runner.recipe import Recipe
from runner.tokenizer import CHUNK, END, START, Chunk, chunks, vocabulary
from runner.trace import Render, Trace, gap

WORDS = Path(__file__).parent / "data" / "page.json"
SHOWN = 20  # steps whose pictures are shown
TERMS = 10


@dataclass(frozen=True)
class Told:
    """One render and all that it said, for one language."""

    models: Models
    recipe: Recipe
    render: Render
    trace: Trace
    heard: list[Call]
    lang: str

    def __getitem__(self, key: str) -> Tensor:
        return self.trace.tensors[key]

    def say(self, key: str, **values: object) -> str:
        """A sentence of data/page.json, its blanks filled, safe in HTML."""
        return escape(sentences()[key][self.lang].format(**values))


@lru_cache(maxsize=1)
def sentences() -> dict[str, dict[str, str]]:
    told: dict[str, dict[str, str]] = json.loads(WORDS.read_text("utf-8"))
    return told


def size(values: Tensor) -> float:
    """Root mean square."""
    return float(values.double().square().mean().sqrt())


def short(value: float) -> str:
    return f"{value:.3g}"


def formula(told: Told, line: str, numbers: str) -> str:
    """What a stage computes, and the same with this run's numbers."""
    here = told.say("numbers")
    return (
        f'<div class="formula"><code>{escape(line)}</code>'
        f"<p><strong>{here}:</strong> {numbers}</p></div>"
    )


def figure(source: str, caption: str, pixels: bool = False) -> str:
    kind = ' class="pixels"' if pixels else ""
    return (
        f'<figure><img{kind} src="{source}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def row(figures: Sequence[str]) -> str:
    return f'<div class="row">{"".join(figures)}</div>'


def paragraph(text: str) -> str:
    return f"<p>{text}</p>"


def tokens(told: Told) -> Iterator[str]:
    yield paragraph(told.say("tokens-text", chunk=CHUNK))
    read = {n: chunks(getattr(told.recipe, n), told.models.text.pad) for n in SIDES}
    for name, parts in read.items():
        yield f"<h3>{told.say(name)}</h3>"
        yield chips(told, [token for part in parts for token in words_of(part)])
    counts = {name: sum(len(list(words_of(p))) for p in parts) for name, parts in read.items()}
    weighted = sum(weight != 1.0 for parts in read.values() for p in parts for _, weight in p)
    numbers = told.say("tokens-numbers", chunks=len(read["positive"]), weighted=weighted, **counts)
    yield formula(told, "(x) → 1.1    (x:w) → w    ((x)) → 1.1 · 1.1", numbers)


SIDES = ("positive", "negative")


def words_of(chunk: Chunk) -> Iterator[tuple[int, float]]:
    """The tokens between a chunk's start and its end."""
    for token, weight in chunk:
        if token == END:
            return
        if token != START:
            yield token, weight


def chips(told: Told, words: Sequence[tuple[int, float]]) -> str:
    if not words:
        return paragraph(told.say("no-tokens"))
    names = spelled()
    items = []
    for token, weight in words:
        label = told.say("token-label", id=token, weight=f"{weight:g}")
        marked = ' class="weighted"' if weight != 1.0 else ""
        items.append(f"<li{marked}>{escape(names.get(token, '?'))}<small>{label}</small></li>")
    return f'<ul class="tokens">{"".join(items)}</ul>'


@lru_cache(maxsize=1)
def spelled() -> dict[int, str]:
    """Token id -> what it stands for; a piece of a letter stays as its bytes' letters."""
    from runner.tokenizer import alphabet

    byte_of = {letter: byte for byte, letter in alphabet().items()}

    def plain(token: str) -> str:
        whole = token.removesuffix("</w>")
        try:
            return bytes(byte_of[letter] for letter in whole).decode()
        except (KeyError, UnicodeDecodeError):
            return whole

    return {number: plain(token) for token, number in vocabulary().ids.items()}


def text(told: Told) -> Iterator[str]:
    yield paragraph(told.say("text-text"))
    cond = {name: told[f"cond/{name}"][0] for name in SIDES}
    shortest = min(len(one) for one in cond.values())
    apart = gap(cond["positive"][:shortest], cond["negative"][:shortest])
    numbers = told.say(
        "text-numbers",
        tokens=len(cond["positive"]),
        width=cond["positive"].shape[1],
        rms=short(size(cond["positive"])),
        rms_negative=short(size(cond["negative"])),
        apart=f"{apart:.0%}",
    )
    yield formula(told, "z ← (z − z∅) · w + z∅", numbers)
    lines = [(told.say(n), [size(one) for one in cond[n][:CHUNK]]) for n in SIDES]
    title = told.say("text-plot")
    yield f"<figure>{plot(title, lines, told.say('place'), 'rms', False)}"
    yield f"<figcaption>{title}</figcaption></figure>"


def encode(told: Told) -> Iterator[str]:
    mean, recipe = told["latent/input"][0], told.recipe
    image = told["image/input"]
    wide = spread(told.models, recipe, image)
    yield paragraph(told.say("encode-text", channels=len(mean)))
    numbers = told.say(
        "encode-numbers",
        shape=shape_of(mean),
        mean=short(float(mean.mean())),
        rms=short(size(mean)),
        low=short(float(mean.min())),
        high=short(float(mean.max())),
        spread=short(float(wide.mean())),
        share=f"{float(wide.mean()) / (size(mean) or 1):.1%}",
    )
    yield formula(told, "μ, ln σ² = E(2 · image − 1)      z = μ", numbers)
    limit = short(float(mean.abs().max()))
    back = looked_at(told.models, mean * told.models.latent_scale)
    yield row(
        [
            figure(
                tiles(mean), told.say("encode-mean", channels=len(mean), limit=limit), pixels=True
            ),
            figure(
                heat(wide.mean(0)),
                told.say("encode-spread", high=short(float(wide.max()))),
                pixels=True,
            ),
            figure(picture(back), told.say("encode-back")),
        ]
    )


def shape_of(tensor: Tensor) -> str:
    return " × ".join(str(side) for side in tensor.shape)


def noise(told: Told) -> Iterator[str]:
    recipe, sigmas = told.recipe, told["sigmas"]
    if len(sigmas) < 2:
        yield paragraph(told.say("none-visited"))
        return
    share, count = recipe.denoise, len(sigmas) - 1
    total = recipe.steps if share > 0.9999 else int(recipe.steps / share)
    yield paragraph(told.say("noise-text", denoise=share, steps=count, total=total))
    drawn, start = told["noise"][0], told.heard[0].x
    numbers = told.say(
        "noise-numbers",
        scale=told.models.latent_scale,
        first=short(float(sigmas[0])),
        last=short(float(sigmas[-2])),
        mean=f"{float(drawn.mean()):.3f}",
        spread=f"{float(drawn.std()):.3f}",
        rms=short(size(start)),
    )
    yield formula(told, "x = z · scale + σ₀ · noise", numbers)
    largest = float(told.models.denoiser.table.sigmas[-1])
    if float(sigmas[0]) >= largest * (1 - 1e-5):
        yield paragraph(told.say("noise-full"))
    yield row(
        [
            figure(tiles(drawn), told.say("noise-tile"), pixels=True),
            figure(tiles(start), told.say("noisy-tile"), pixels=True),
        ]
    )
    title = told.say("schedule-plot")
    yield f"<figure>{plot(title, [('σ', sigmas.tolist())], told.say('step'), 'σ', True)}"
    yield f"<figcaption>{title}</figcaption></figure>"


def stepping(told: Told) -> Iterator[str]:
    walked = list(steps(told.trace, told.heard))
    if not walked:
        yield paragraph(told.say("none-visited"))
        return
    yield paragraph(told.say("steps-text"))
    first, cfg, name = walked[0], told.recipe.cfg, told.recipe.sampler_name
    guess = first.call.guided(cfg)
    slope = (first.call.x - guess) / first.call.sigma
    numbers = told.say(
        "steps-numbers",
        sigma=short(first.call.sigma),
        target=short(first.target),
        x=short(size(first.call.x)),
        guess=short(size(guess)),
        slope=short(size(slope)),
    )
    yield formula(told, "d = (x − D) / σ", numbers)
    if name in ("euler", "ddim"):
        yield paragraph(told.say("steps-euler") + " <code>x′ = x + d · (σ′ − σ)</code>")
    else:
        told_calls = told.say("steps-other", sampler=name, calls=len(told.heard), steps=len(walked))
        yield paragraph(told_calls)
    yield table_of(told, walked)
    shown = some(walked)
    yield paragraph(told.say("steps-shown", shown=len(shown), steps=len(walked), small=SMALL))
    for step in shown:
        yield step_row(told, step)


def some(walked: Sequence[Step]) -> list[Step]:
    """At most SHOWN of the steps, the first and the last among them."""
    if len(walked) <= SHOWN:
        return list(walked)
    return [walked[round(n * (len(walked) - 1) / (SHOWN - 1))] for n in range(SHOWN)]


def step_row(told: Told, step: Step) -> str:
    call = step.call
    caption = told.say("step-latent", n=step.number, sigma=short(call.sigma))
    guess = looked_at(told.models, call.guided(told.recipe.cfg))
    return row(
        [
            figure(tiles(call.x), caption, pixels=True),
            figure(picture(looked_at(told.models, call.x)), told.say("step-decoded")),
            figure(picture(guess), told.say("step-guess")),
        ]
    )


COLUMNS = ("step", "sigma", "t", "x", "guess", "moved", "changed", "pull")


def table_of(told: Told, walked: Sequence[Step]) -> str:
    head = "".join(f'<th scope="col">{told.say(f"col-{name}")}</th>' for name in COLUMNS)
    rows, before = [], None
    for step in walked:
        call, guess = step.call, step.call.guided(told.recipe.cfg)
        pull = "–" if call.unwanted is None else short(size(call.wanted - call.unwanted))
        cells = [
            short(call.sigma),
            str(call.timestep),
            short(size(call.x)),
            short(size(guess)),
            short(size(step.after - call.x)),
            "–" if before is None else short(size(guess - before)),
            pull,
        ]
        before = guess
        told_cells = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{step.number}</th>{told_cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{told.say("steps-table")}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def guidance(told: Told) -> Iterator[str]:
    yield paragraph(told.say("guidance-text"))
    walked, cfg = list(steps(told.trace, told.heard)), told.recipe.cfg
    pulled = [(step, step.call.unwanted) for step in walked if step.call.unwanted is not None]
    if not pulled:
        yield paragraph(told.say("guidance-one" if walked else "none-visited"))
        return
    middle, unwanted = pulled[len(pulled) // 2]
    call = middle.call
    numbers = told.say(
        "guidance-numbers",
        sigma=short(call.sigma),
        wanted=short(size(call.wanted - call.x)),
        unwanted=short(size(unwanted - call.x)),
        pull=short(size(call.wanted - unwanted)),
        cfg=cfg,
        reach=short(size((call.wanted - unwanted) * cfg)),
    )
    yield formula(told, "D = D⁻ + cfg · (D⁺ − D⁻)", numbers)
    lines = [
        (told.say("line-wanted"), [size(s.call.wanted - s.call.x) for s, _ in pulled]),
        (told.say("line-unwanted"), [size(un - s.call.x) for s, un in pulled]),
        (told.say("line-apart"), [size(s.call.wanted - un) for s, un in pulled]),
    ]
    title = told.say("guidance-plot")
    yield f"<figure>{plot(title, lines, told.say('step'), 'rms', False)}"
    yield f"<figcaption>{title}</figcaption></figure>"
    places = sorted({0, len(pulled) // 2, len(pulled) - 1})
    for step, unwanted in (pulled[place] for place in places):
        yield guidance_row(told, step, unwanted)


def guidance_row(told: Told, step: Step, unwanted: Tensor) -> str:
    call, models, cfg = step.call, told.models, told.recipe.cfg
    apart = (call.wanted - unwanted).abs().mean(0)
    return row(
        [
            figure(picture(looked_at(models, unwanted)), told.say("guess-negative", n=step.number)),
            figure(picture(looked_at(models, call.wanted)), told.say("guess-positive")),
            figure(picture(looked_at(models, call.guided(cfg))), told.say("guess-guided", cfg=cfg)),
            figure(heat(apart), told.say("guess-where"), pixels=True),
        ]
    )


def decode(told: Told) -> Iterator[str]:
    latent, out = told["latent/output"][0], told["image/output"][0]
    before = crop(scale(told["image/input"], told.recipe.width, told.recipe.height))[0]
    yield paragraph(told.say("decode-text"))
    numbers = told.say(
        "decode-numbers",
        shape=shape_of(latent),
        rms=short(size(latent)),
        size=f"{out.shape[1]} × {out.shape[0]}",
        clipped=f"{float(((out <= 0) | (out >= 1)).double().mean()):.1%}",
        apart=short(size(out - before)),
    )
    yield formula(told, "p = clamp((D(x / scale) + 1) / 2, 0, 1)      file = ⌊255 · p⌋", numbers)
    yield row(
        [
            figure(tiles(latent), told.say("decode-tile"), pixels=True),
            figure(picture(out), came_out(told)),
        ]
    )


def came_out(told: Told) -> str:
    high, wide = told["image/output"].shape[1:3]
    return told.say("came-out", width=wide, height=high)


def glossary(told: Told) -> Iterator[str]:
    sigmas = told["sigmas"]
    blanks = {
        "cfg": told.recipe.cfg,
        "denoise": told.recipe.denoise,
        "first": short(float(sigmas[0])) if len(sigmas) else "–",
        "predicts": told.models.denoiser.predicts,
    }
    yield "<dl>"
    for number in range(1, TERMS + 1):
        yield f"<dt>{told.say(f'term-{number}')}</dt>"
        yield f"<dd>{told.say(f'meaning-{number}', **blanks)}</dd>"
    yield "</dl>"


def settings(told: Told) -> Iterator[str]:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in told.recipe.to_json().items()
        if value is not None
    )
    head = f'<th scope="col">{told.say("name")}</th><th scope="col">{told.say("value")}</th>'
    yield (
        f'<div class="scroll" tabindex="0"><table class="settings"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    yield f"<h3>{told.say('again')}</h3>"
    yield paragraph(told.say("again-text", sha=told.render.sha256["output"]))
