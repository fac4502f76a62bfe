"""Markup: strings of HTML in two languages, where what comes from outside can do nothing."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from doctor.words import LANGUAGES, phrase, printable, say

CODES = {"en": "en", "zh": "zh-Hans"}
Words = Mapping[str, str]  # language -> sentence


def safe(text: object) -> str:
    """Text for an element or a quoted attribute: no tags, no control or direction characters."""
    return escape(printable(str(text)))


def said(words: Words) -> str:
    """A sentence in every language, once where they agree; the style sheet shows the chosen one."""
    if len(set(words.values())) == 1:
        return safe(next(iter(words.values())))
    return "".join(f'<span lang="{CODES[lang]}">{safe(words[lang])}</span>' for lang in LANGUAGES)


def both(key: str, **values: object) -> str:
    """A sentence of manifests/words.toml in every language."""
    return said({lang: say(key, lang, **values) for lang in LANGUAGES})


def plainly(key: str, **values: object) -> str:
    """The same for an attribute, where only one text can stand: English / 中文."""
    return safe(" / ".join(dict.fromkeys(say(key, lang, **values) for lang in LANGUAGES)))


def phrased(text: str) -> str:
    """What a check or the runner wrote, in every language that knows it."""
    return said({lang: phrase(text, lang) for lang in LANGUAGES})


def tag(name: str, inside: str, kind: str = "") -> str:
    return f'<{name} class="{kind}">{inside}</{name}>' if kind else f"<{name}>{inside}</{name}>"


def code(text: object) -> str:
    """What a machine said or a person types: the same in every language."""
    return f'<code translate="no">{safe(text)}</code>'


def items(rows: Iterable[str], kind: str = "") -> str:
    found = "".join(tag("li", row) for row in rows if row)
    return tag("ul", found, kind) if found else ""


def terms(rows: Iterable[tuple[str, str]]) -> str:
    """Labels and values, both already HTML."""
    return tag("dl", "".join(f"<div><dt>{a}</dt><dd>{b}</dd></div>" for a, b in rows), "rows")


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], label: str) -> str:
    """A table that scrolls by itself on a narrow screen, by keyboard, too. Cells are HTML; the
    first of each row is its head. `label` is for an attribute."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(tag("td", cell) for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{label}">'
        f"<table><caption>{caption}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def section(id: str, inside: str) -> str:
    """A part of the page below its heading; none where there is nothing to tell."""
    if not inside:
        return ""
    title = f'<h2 id="{id}-title">{both(f"html-{id}")}</h2>'
    return f'<section id="{id}" aria-labelledby="{id}-title">{title}{inside}</section>\n'


def folded(summary: str, inside: str) -> str:
    return f"<details><summary>{summary}</summary>{inside}</details>"
