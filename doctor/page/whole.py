"""The whole page: its sections in order, below a bar with the languages and the contents."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from doctor import __version__, handoff
from doctor.facts import Facts, build
from doctor.page import patient, proof, timing
from doctor.page.markup import CODES, both, code, safe
from doctor.page.proof import Pictures
from doctor.words import LANGUAGES, say

NAMES = {"en": "English", "zh": "中文"}
NOTHING = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # no script, no network


def html(
    run: patient.Report,
    pictures: Pictures,
    before: Sequence[patient.Report] = (),
    lang: str = "en",
) -> str:
    """A page of what report.json holds; `lang` is the language that is shown first.

    `before`: the reports of earlier runs, newest first.
    """
    facts: Facts = build(Facts, run["facts"])
    parts = {
        "summary": patient.summary(run, facts),
        "findings": patient.findings(run),
        "treatment": patient.treatment(run),
        "render": proof.render(run, pictures),
        "ladder": proof.ladder(run),
        "bench": timing.bench(run),
        "earlier": proof.earlier(run, before),
        "packages": patient.packages(facts),
        "raw": proof.raw(run),
    }
    state = say(f"html-{patient.verdict(run).replace(' ', '-')}", lang)
    return framed("html-title", state, opening(run), parts, lang)


def framed(title: str, state: str, opening: str, parts: Mapping[str, str], lang: str) -> str:
    """A page of these sections, each by its id; `title` is a key of the words, `state` a word of
    the language that is shown first, `opening` HTML."""
    links = (
        f'<li><a href="#{n}">{both(f"html-{n}")}</a></li>' for n, part in parts.items() if part
    )
    return (
        f'<!doctype html>\n<html lang="{CODES[lang]}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{NOTHING}">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{safe(f'{say(title, lang)}: {state}')}</title>\n"
        f"<style>\n{style()}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#summary">{both("html-skip")}</a>\n'
        f"<header>{languages(lang)}<h1>{both(title)}</h1>\n{opening}</header>\n"
        f'<nav aria-label="{safe(say("html-contents", lang))}"><ol>{"".join(links)}</ol></nav>\n'
        f"<main>\n{''.join(parts.values())}</main>\n"
        f"<footer><p>comfy-doctor {__version__}</p></footer>\n</body>\n</html>\n"
    )


def style() -> str:
    """The look of the runner's pages, and what this one has besides."""
    files = handoff.runner() / "data" / "page.css", Path(__file__).parent / "page.css"
    return "".join(file.read_text(encoding="utf-8") for file in files)


def opening(run: patient.Report) -> str:
    where = run["target"]["comfyui"] or run["target"]["python"] or "–"
    return f'<p class="faint">{code(where)} · {code(run.get("when", "–"))}</p>'


def languages(lang: str) -> str:
    """A choice without a script: the style sheet asks which one is checked."""
    buttons = (
        f'<input type="radio" name="lang" id="in-{name}"{" checked" if name == lang else ""}>'
        f'<label for="in-{name}" lang="{CODES[name]}">{NAMES[name]}</label>'
        for name in LANGUAGES
    )
    return (
        f'<fieldset class="languages"><legend>Language / 语言</legend>{"".join(buttons)}</fieldset>'
    )
