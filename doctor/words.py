"""Words in English and Chinese: the pages of findings, and what stands on the screen.

Both languages stand side by side in manifests/pages/*.toml and manifests/words.toml; there is
no other place with words for people, and none with one language only.
"""

import locale
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from doctor.finding import Finding
from doctor.manifest import read
from manifests import FOLDER

LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Page:
    """What a finding means, in one language. `title` and `advice` may have {blanks}."""

    title: str
    advice: str
    meaning: str = ""


@cache
def pages(lang: str) -> Mapping[str, Page]:
    """Every page by the id of its finding."""
    files = sorted((FOLDER / "pages").glob("*.toml"))
    return {id: Page(**both[lang]) for file in files for id, both in read(file).items()}


def told(finding: Finding, lang: str) -> Page:
    """The page of a finding with its blanks filled in."""
    page = pages(lang)[finding.id]
    title, advice = (text.format(**finding.values) for text in (page.title, page.advice))
    return Page(title, advice, page.meaning)


def say(key: str, lang: str, **values: object) -> str:
    """One line of the screen, from manifests/words.toml."""
    line: str = read(FOLDER / "words.toml")[key][lang]
    return line.format(**values)


def language() -> str:
    """zh where the locale is Chinese, else en."""
    names = (os.environ.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    name = next((name for name in names if name), "") or (locale.getlocale()[0] or "")
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"
