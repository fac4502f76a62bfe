"""The pages of a run and of a fleet in a real Chromium: three widths, light and dark, both
languages, without a script; axe-core.

axe-core comes from the default npm registry: npm install --prefix build axe-core
"""

import pytest

from doctor.finding import Finding, Severity
from doctor.fleet import sheet
from doctor.fleet.places import DEAD, Lost, Reply
from doctor.page import whole
from tests import browser
from tests.doctor.command import ROOT
from tests.doctor.test_fleet import finding, judged, part, timing
from tests.doctor.test_page import EVIL, PROOF, SHOWN, evil, read, told

AXE = ROOT / "build" / "node_modules" / "axe-core" / "axe.min.js"
LANGUAGES = {"en": "en", "zh": "zh-Hans"}  # ours -> the page's
KINDS = ("run", "fleet")
TIMED = PROOF["bench"] | {  # with all that can be drawn of a timing
    "seconds": [0.8 + n % 7 / 50 for n in range(40)],
    "stages": {"encode": 0.4, "decode": 1.3, "text": 0.02},
    "sizes": [{"size": n, "steps_per_second": 4e5 / n**2} for n in (256, 512, 768, 1024)],
    "flops": 8.1e11, "weights": 3.4e9, "ceiling": {"flops": 1.2e12, "bytes": 3e10},
    "card": {"clock": 1980, "clock_most": 1980, "power": 350.2, "temperature_most": 71},
}  # fmt: skip
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


def run_page(lang):
    long = Finding(Severity.WARNING, ("x" * 300, EVIL), {}, ("pip install " + "y" * 300,))
    findings = [
        evil(),
        *(Finding(**{**vars(long), "id": "torch-companion-mismatch"}) for _ in "ab"),
    ]
    run = told(findings=findings, proof=PROOF | {"bench": TIMED})
    return whole.html(run, SHOWN, [told()], lang)


def fleet_page(lang):
    """Sixty nodes: one sick, one slow, one dead, one late, and names that are too long."""
    replies = {f"gpu-{n:02}.rack.example": part(0, bench=timing(10 + n / 99)) for n in range(54)}
    facts = {"driver": "580.65.06", "torch": "2.9.0+cu130", "comfyui": "0.3.64"}
    replies |= {f"n{n}": part(0, facts=facts, bench=timing(10.0)) for n in range(3)}
    replies["slow"] = part(0, facts={**facts, "driver": "570.1"}, bench=timing(8.0))
    replies["sick" + "k" * 200] = part(
        1, findings=[finding("torch-missing"), finding("disk-full", "warning")]
    )
    replies["gone"] = Lost(DEAD, "the node died")
    replies[EVIL[:60]] = Reply(-15, "", "", 9.0, late=True)
    return sheet.html(judged(replies), lang)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for kind, write in zip(KINDS, (run_page, fleet_page), strict=True):
        for lang in LANGUAGES:
            path = folder / f"{kind}.{lang}.html"
            path.write_text(write(lang), encoding="utf-8")
            read(path.read_text(encoding="utf-8"))
    return folder


@NEED
@pytest.mark.parametrize("kind", KINDS)
def test_it_fits_at_every_width_in_light_and_dark_in_both_languages(tab, pages, kind):
    papers = set()
    for lang in LANGUAGES:
        for width in browser.WIDTHS:
            for scheme in browser.SCHEMES:
                tab.open(pages / f"{kind}.{lang}.html", width, scheme)
                seen = tab.script(SEEN)
                papers.add((scheme, seen.pop("paper")))
                shown = [LANGUAGES[lang]]
                assert seen == {"wide": 0, "broken": 0, "small": 0, "shown": shown}, (lang, width)
    assert len(papers) == 2
    assert tab.console() == []
    assert tab.pdf().startswith(b"%PDF")


@NEED
@pytest.mark.parametrize("kind", KINDS)
def test_the_language_is_changed_by_keyboard_where_scripts_are_off(tab, pages, kind):
    tab.scripts(False)
    try:
        tab.open(pages / f"{kind}.en.html", 800, "light")
        tab.press("Tab", "Tab", "ArrowRight")
    finally:
        tab.scripts(True)
    assert tab.script(SEEN)["shown"] == ["zh-Hans"]


@NEED
@pytest.mark.skipif(not AXE.exists(), reason="no axe-core: npm install --prefix build axe-core")
@pytest.mark.parametrize("scheme", browser.SCHEMES)
@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing(tab, pages, kind, lang, scheme):
    tab.open(pages / f"{kind}.{lang}.html", 800, scheme)
    tab.script("document.querySelectorAll('details').forEach(one => one.open = true)")
    tab.script(AXE.read_text(encoding="utf-8"))
    assert tab.later(JUDGED) == []
