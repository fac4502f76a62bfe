"""The page in a real Chromium: three widths, light and dark, both languages, no script; axe-core.

axe-core comes from the default npm registry: npm install --prefix build axe-core
"""

import pytest

from doctor.finding import Finding, Severity
from doctor.page.whole import html
from tests import browser
from tests.doctor.command import ROOT
from tests.doctor.test_page import EVIL, SHOWN, evil, read, told

AXE = ROOT / "build" / "node_modules" / "axe-core" / "axe.min.js"
LANGUAGES = {"en": "zh-Hans", "zh": "en"}  # shown -> not shown
NEED = pytest.mark.skipif(bool(browser.missing()), reason=f"no {browser.missing()} on this machine")
SEEN = """
const root = document.documentElement, shown = e => e.getClientRects().length > 0;
const all = (query) => [...document.querySelectorAll(query)];
return {
  wide: root.scrollWidth - root.clientWidth,
  broken: all('img').filter(one => !one.complete || !one.naturalWidth).length,
  paper: getComputedStyle(document.body).backgroundColor,
  shown: ['en', 'zh-Hans'].filter(code => all(`span[lang="${code}"]`).some(shown)),
  small: all('main p, main dd, main td').filter(e => parseFloat(getComputedStyle(e).fontSize) < 11)
    .length
}
"""
JUDGED = """
const done = arguments[arguments.length - 1];
axe.run({resultTypes: ['violations']}).then(
  found => done(found.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 120))])),
  error => done([['axe-failed', [String(error)]]]));
"""


@pytest.fixture(scope="module")
def tab():
    with browser.browser() as one:
        yield one


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    long = Finding(Severity.WARNING, ("x" * 300, EVIL), {}, ("pip install " + "y" * 300,))
    findings = [
        evil(),
        *(Finding(**{**vars(long), "id": "torch-companion-mismatch"}) for _ in "ab"),
    ]
    run = told(findings=findings)
    for lang in LANGUAGES:
        path = folder / f"{lang}.html"
        path.write_text(html(run, SHOWN, [told()], lang), encoding="utf-8")
        read(path.read_text(encoding="utf-8"))
    return folder


@NEED
def test_it_fits_at_every_width_in_light_and_dark_in_both_languages(tab, pages):
    papers = set()
    for lang in LANGUAGES:
        for width in browser.WIDTHS:
            for scheme in browser.SCHEMES:
                tab.open(pages / f"{lang}.html", width, scheme)
                seen = tab.script(SEEN)
                papers.add((scheme, seen.pop("paper")))
                one = {"en": "en", "zh": "zh-Hans"}[lang]
                assert seen == {"wide": 0, "broken": 0, "small": 0, "shown": [one]}, (lang, width)
    assert len(papers) == 2
    assert tab.console() == []
    assert tab.pdf().startswith(b"%PDF")


@NEED
def test_the_language_is_changed_by_keyboard_where_scripts_are_off(tab, pages):
    tab.scripts(False)
    try:
        tab.open(pages / "en.html", 800, "light")
        tab.press("Tab", "Tab", "ArrowRight")
    finally:
        tab.scripts(True)
    assert tab.script(SEEN)["shown"] == ["zh-Hans"]


@NEED
@pytest.mark.skipif(not AXE.exists(), reason="no axe-core: npm install --prefix build axe-core")
@pytest.mark.parametrize("scheme", browser.SCHEMES)
@pytest.mark.parametrize("lang", LANGUAGES)
def test_axe_finds_nothing(tab, pages, lang, scheme):
    tab.open(pages / f"{lang}.html", 800, scheme)
    tab.script("document.querySelectorAll('details').forEach(one => one.open = true)")
    tab.script(AXE.read_text(encoding="utf-8"))
    assert tab.later(JUDGED) == []
