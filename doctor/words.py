"""Words in English and Chinese: the pages of findings, and what stands on the screen.

Both languages stand side by side in manifests/pages/*.toml and manifests/words.toml; there is
no other place with words for people, and none with one language only.
"""

import locale
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

from doctor.facts import Refusal
from doctor.finding import Finding
from doctor.manifest import read
from manifests import FOLDER

LANGUAGES = ("en", "zh")


LAYOUTS = ("venv", "conda", "portable", "container")


@dataclass(frozen=True)
class Page:
    """What a finding means, in one language. `title` and `advice` may have {blanks}."""

    title: str
    advice: str
    meaning: str = ""
    short: str = ""  # the title without blanks, for a log, which does not know what fills them
    avoid: str = ""  # what makes it worse
    shows: tuple[str, ...] = ()  # what programs print, the same in every language
    cures: tuple[tuple[str, str], ...] = ()  # (layout, what to do there)


@cache
def pages(lang: str) -> Mapping[str, Page]:
    """Every page by the id of its finding."""
    files = sorted((FOLDER / "pages").glob("*.toml"))
    printed = examples()
    return {
        id: Page(
            **both[lang],
            shows=printed.get(id, ()),
            cures=tuple(cures(both.get("cure", ()), lang)),
        )
        for file in files
        for id, both in read(file).items()
    }


def examples() -> Mapping[str, tuple[str, ...]]:
    """The last line of each example that manifests/symptoms gives for an id, three at most."""
    files = sorted((FOLDER / "symptoms").glob("*.toml"))
    signatures = [row for file in files for row in read(file).get("signatures", ())]
    found: dict[str, list[str]] = {}
    for row in sorted(signatures, key=lambda row: row.get("rest", False)):  # what is sure first
        lines = (text.splitlines()[-1].strip() for text in row.get("examples", ()))
        found.setdefault(row["id"], []).extend(lines)
    return {id: tuple(dict.fromkeys(lines))[:3] for id, lines in found.items()}


def cures(ways: Sequence[Mapping[str, str]], lang: str) -> Iterator[tuple[str, str]]:
    """One line for each layout: the same cure is typed differently in each."""
    for way in ways:
        for layout in LAYOUTS:
            key = f"cure-{way['kind']}-{layout}"
            yield layout, say(key, lang, do=way.get(lang, way.get("do", "")))


def told(finding: Finding, lang: str) -> Page:
    """The page of a finding with its blanks filled in; the short title where nothing fills them."""
    page = pages(lang)[finding.id]
    try:
        title, advice = (text.format(**finding.values) for text in (page.title, page.advice))
    except KeyError:
        title, advice = page.short or page.title, page.advice
    return replace(page, title=title, advice=advice)


def say(key: str, lang: str, **values: object) -> str:
    """One line of the screen, from manifests/words.toml."""
    line: str = read(FOLDER / "words.toml")[key][lang]
    return line.format(**values)


R = TypeVar("R", bound=Refusal)


def refused(kind: type[R], key: str, **values: object) -> R:
    """A refusal whose sentence stands in manifests/words.toml; by itself it speaks English."""
    refusal = kind(say(key, "en", **values))
    refusal.words = (key, values)
    return refusal


def sentence(error: BaseException, lang: str) -> str:
    """What an exception says, in a language; English where it knows no other."""
    key, values = error.words if isinstance(error, Refusal) else ("", {})
    if not key:
        return phrase(str(error), lang)
    return say(key, lang, **{name: filling(value, lang) for name, value in values.items()})


def filling(value: object, lang: str) -> object:
    """What fills a blank of a sentence, in the same language."""
    if isinstance(value, Exception):
        return sentence(value, lang)
    return phrase(value, lang) if isinstance(value, str) else value


@cache
def phrases(lang: str, of: str = "phrases") -> Sequence[tuple[re.Pattern[str], str]]:
    """English sentences with their blanks, and what they are in a language; those that say most
    of themselves first."""
    table = read(FOLDER / "phrases.toml")[of]
    told = [(row["en"], row[lang]) for row in table]
    told += refusals(lang) if of == "phrases" else ()
    both = sorted(told, key=lambda one: -said(one[0]))
    return [(re.compile(blanks(english), re.DOTALL), other) for english, other in both]


def refusals(lang: str) -> Iterator[tuple[str, str]]:
    """What stands in manifests/words.toml of a download that failed: a plan keeps it as text."""
    for key, row in read(FOLDER / "words.toml").items():
        if key.startswith("fetch-"):
            blanks = re.findall(r"{(\w+)}", row["en"])
            numbered = {name: f"{{{number}}}" for number, name in enumerate(blanks)}
            yield re.sub(r"{\w+}", "{}", row["en"]), row[lang].format(**numbered)


def said(english: str) -> int:
    return len(english.replace("{}", ""))


def blanks(english: str) -> str:
    return "(.+?)".join(map(re.escape, english.split("{}")))


def phrase(text: str, lang: str, of: str = "phrases") -> str:
    """What a check or a refusal (of="steps": a step of a plan) wrote in English, in a language;
    as it is where none is known."""
    if lang == "en":
        return text
    place, _, why = text.partition(": ")
    if why and (set("/\\=") & set(place) or place.startswith("--")) and " " not in place:
        told = phrase(why, lang, of)  # what is with an address, a path or a flag
        if told != why:
            return f"{place}: {told}"
    for pattern, other in phrases(lang, of):
        found = pattern.fullmatch(text)
        if found:
            return other.format(*(phrase(part, lang, of) for part in found.groups()))
    for between in (" | ", "; "):  # one route, or one change, after another
        if between in text:
            return between.join(phrase(part, lang, of) for part in text.split(between))
    return text


def reasoned(told: str, why: str, lang: str) -> str:
    """A line, with the reason for it where there is one."""
    return say("labelled", lang, label=told, text=phrase(why, lang)) if why else told


def printable(line: str) -> str:
    """Without control characters: what a log or a file name says must not steer what shows it."""
    return "".join(sign if sign.isprintable() or sign in "\t\n" else "�" for sign in line)


def language() -> str:
    """zh where the locale is Chinese, else en."""
    names = (os.environ.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    name = next((name for name in names if name), "") or (locale.getlocale()[0] or "")
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"
