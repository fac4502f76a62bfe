"""docs/findings is what manifests/pages say."""

import importlib.util
from pathlib import Path

from doctor.signatures import book
from doctor.words import LAYOUTS, pages

DOCS = Path(__file__).parents[2] / "docs"


def test_docs_are_up_to_date():
    spec = importlib.util.spec_from_file_location("write_findings", DOCS / "write_findings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    there = {p.name: p.read_text(encoding="utf-8") for p in (DOCS / "findings").glob("*.md")}
    assert there == module.files(), "run: python docs/write_findings.py"


def test_pages_tell_what_to_do_on_each_layout_and_what_not_to_do():
    for lang in ("en", "zh"):
        for id in book().rank:
            page = pages(lang)[id]
            assert page.meaning, id
            assert page.avoid, id
            assert {layout for layout, _ in page.cures} == set(LAYOUTS), id
            assert "{" not in (page.short or page.title), id


def test_chinese_pages_are_chinese():
    for id, page in pages("zh").items():
        for text in (page.title, page.advice, page.meaning):
            assert sum("\u4e00" <= letter <= "\u9fff" for letter in text) >= 3, id
