"""Writes docs/findings/: the page of every finding in both languages, from manifests/pages.

PYTHON docs/write_findings.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from doctor.words import LANGUAGES, Page, pages, say  # noqa: E402

FOLDER = ROOT / "docs" / "findings"


def files() -> dict[str, str]:
    """File name -> text."""
    both = {lang: pages(lang) for lang in LANGUAGES}
    made = {
        f"{id}.md": "\n".join(
            [f"# {id}", *(line for lang in LANGUAGES for line in section(both[lang][id], lang))]
        )
        + "\n"
        for id in both["en"]
    }
    rows = (
        f"| [{id}]({id}.md) | {heading(page)} | {heading(both['zh'][id])} |"
        for id, page in sorted(both["en"].items())
    )
    head = "Written by docs/write_findings.py from manifests/pages; do not edit here."
    return made | {
        "README.md": "\n".join(
            ["# Findings", "", head, "", "| id | | |", "| --- | --- | --- |", *rows, ""]
        )
    }


def heading(page: Page) -> str:
    return (page.short or page.title).replace("|", "\\|")


def section(page: Page, lang: str) -> Iterator[str]:
    yield from ("", f"## {heading(page)}", "", page.meaning)
    if page.shows:
        yield from ("", f"**{say('page-shows', lang)}**", "", "```", *page.shows, "```")
    yield from ("", f"**{say('page-cure', lang)}**", "", page.advice)
    if page.cures:
        yield ""
        yield from (f"* {row(layout, cure, lang)}" for layout, cure in page.cures)
    if page.avoid:
        yield from ("", f"**{say('page-avoid', lang)}**", "", page.avoid)


def row(layout: str, cure: str, lang: str) -> str:
    return say("labelled", lang, label=say("layout-" + layout, lang), text=f"``{cure}``")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    wanted = files()
    for path in FOLDER.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
