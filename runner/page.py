"""Page: one render told in pictures, for a person: a self-contained HTML file in each language.

No script and nothing from elsewhere: pictures are data URIs, plots are SVG, sentences and style
are data (data/page.json, data/page.css). What is shown is what happened: see listening.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path

from runner import page_stages as stages
from runner.drawing import picture
from runner.listening import Call
from runner.page_stages import Told, came_out, figure, paragraph, row
from runner.pipeline import Models
from runner.pixels import whole_file
from runner.recipe import Progress, Recipe, Refused
from runner.trace import Render, Trace

STYLE = Path(__file__).parent / "data" / "page.css"
LANGUAGES = ("en", "zh")
Section = Callable[[Told], Iterator[str]]
SECTIONS: dict[str, Section] = {
    "tokens": stages.tokens,
    "text": stages.text,
    "encode": stages.encode,
    "noise": stages.noise,
    "steps": stages.stepping,
    "guidance": stages.guidance,
    "decode": stages.decode,
    "glossary": stages.glossary,
    "settings": stages.settings,
}


def can_write(folder: Path) -> None:
    """Make the folder a page goes to. Refused: cannot-write."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise Refused("cannot-write", f"{folder} cannot be made: {why}.") from error


def write(
    folder: Path,
    models: Models,
    recipe: Recipe,
    render: Render,
    trace: Trace,
    heard: list[Call],
    progress: Progress,
) -> list[Path]:
    """render.en.html and render.zh.html in a folder; their paths. Refused: cannot-write."""
    can_write(folder)
    told = Told(models, recipe, render, trace, heard, "en")
    written = []
    for lang in LANGUAGES:
        path = folder / f"render.{lang}.html"
        text = html(replace(told, lang=lang))
        with whole_file(path) as file:
            file.write(text.encode())
        written.append(path)
        progress("page", len(written), len(LANGUAGES))
    return written


def html(told: Told) -> str:
    """The whole page in one language."""
    other = next(lang for lang in LANGUAGES if lang != told.lang)
    code = {"en": "en", "zh": "zh-CN"}
    parts = "".join(section(told, name, tell) for name, tell in SECTIONS.items())
    links = "".join(f'<li><a href="#{name}">{heading(told, name)}</a></li>' for name in SECTIONS)
    return (
        f'<!doctype html>\n<html lang="{code[told.lang]}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{told.say('title')}</title>\n<style>\n{STYLE.read_text('utf-8')}</style>\n"
        f'</head>\n<body>\n<a class="skip" href="#tokens">{told.say("skip")}</a>\n'
        f'<header><p><a lang="{code[other]}" hreflang="{code[other]}" '
        f'href="render.{other}.html">{told.say("other-language")}</a></p>\n'
        f"<h1>{told.say('title')}</h1>\n{''.join(opening(told))}</header>\n"
        f'<nav aria-label="{told.say("contents")}"><ol>{links}</ol></nav>\n'
        f"<main>{parts}</main>\n</body>\n</html>\n"
    )


def heading(told: Told, name: str) -> str:
    return told.say(name).partition(". ")[2] or told.say(name)


def section(told: Told, name: str, tell: Section) -> str:
    title = f'<h2 id="{name}-title">{told.say(name)}</h2>'
    body = "\n".join(tell(told))
    return f'<section id="{name}" aria-labelledby="{name}-title">\n{title}\n{body}\n</section>\n'


def opening(told: Told) -> Iterator[str]:
    recipe, render = told.recipe, told.render
    before = told["image/input"]
    yield paragraph(
        told.say(
            "lead",
            steps=recipe.steps,
            sampler=recipe.sampler_name,
            scheduler=recipe.scheduler,
            cfg=recipe.cfg,
            denoise=recipe.denoise,
            seed=recipe.seed,
            model=Path(render.checkpoint).name,
            device=render.device,
            dtype=render.dtype,
        )
    )
    if render.checkpoint.startswith("synthetic"):
        yield paragraph(told.say("synthetic"))
    wide, high = before.shape[2], before.shape[1]
    came = told.say("came-in", width=wide, height=high)
    yield row(
        [
            figure(picture(before[0]), came),
            figure(picture(told["image/output"][0]), came_out(told)),
        ]
    )
    for name in ("positive", "negative"):
        words = escape(getattr(recipe, name)) or told.say("no-tokens")
        yield f'<p class="faint">{told.say(name)}: {words}</p>'
