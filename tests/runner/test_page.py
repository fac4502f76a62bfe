"""The page of a render: true to the run, whole without script or network, in both languages."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from string import Formatter

import pytest

torch = pytest.importorskip("torch")

from runner import checkpoint, devices, drawing, listening, page, page_stages, pipeline  # noqa: E402
from runner.pixels import gradient  # noqa: E402
from runner.recipe import Recipe, Refused  # noqa: E402
from runner.trace import gap, render  # noqa: E402
from tests import browser  # noqa: E402

RECIPE = Recipe("a (red:1.3) <hat> & 红色", "a dog", steps=4, cfg=5.0, denoise=0.6, seed=2)


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def models(small):
    return pipeline.load(checkpoint.read(small), devices.choose("cpu"), 2, quiet)


def told(models, recipe, size=(72, 64)):
    listened, heard = listening.overheard(models)
    done, trace = render(listened, recipe, gradient(*size), quiet)
    return page_stages.Told(models, recipe, done, trace, heard, "en")


@pytest.fixture(scope="module")
def one(models):
    return told(models, RECIPE)


@pytest.fixture(scope="module")
def pages(one, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "new"
    args = one.models, one.recipe, one.render, one.trace, one.heard
    return {path.name: path for path in page.write(folder, *args, quiet)}


class Seen(HTMLParser):
    """Every tag with its attributes, and that they close in order."""

    VOID = frozenset({"meta", "img", "line", "polyline", "circle"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_listening_changes_no_number(models, one):
    plain, trace = render(models, RECIPE, gradient(72, 64), quiet)
    assert plain.sha256 == one.render.sha256
    assert trace.tensors.keys() == one.trace.tensors.keys()


def test_what_was_overheard_is_what_the_sampler_did(one):
    """Euler, worked out again from the guesses, ends every step where the trace says."""
    walked = list(listening.steps(one.trace, one.heard))
    assert [step.number for step in walked] == [1, 2, 3, 4]
    for step in walked:
        call = step.call
        slope = (call.x - call.guided(RECIPE.cfg)) / call.sigma
        assert gap(call.x + slope * (step.target - call.sigma), step.after) < 1e-5
        assert call.timestep == int(one.models.denoiser.table.timestep(torch.tensor([call.sigma])))


@pytest.mark.parametrize(
    ("name", "calls"), [("heun", 7), ("dpmpp_2m", 4), ("dpm_2", 7), ("euler_cfg_pp", 4)]
)
def test_calls_are_given_to_their_steps(models, name, calls):
    heard = told(models, Recipe("a", "b", steps=4, sampler_name=name, cfg=2, seed=1))
    walked = list(listening.steps(heard.trace, heard.heard))
    assert len(heard.heard) == calls == sum(step.calls for step in walked)
    sigmas = heard.trace.tensors["sigmas"]
    assert [step.call.sigma for step in walked] == pytest.approx(sigmas[:-1].tolist())


@pytest.mark.parametrize("lang", page.LANGUAGES)
def test_a_page_is_whole_by_itself(pages, lang):
    text = pages[f"render.{lang}.html"].read_text("utf-8")
    seen = Seen(text)
    names = [tag for tag, _ in seen.tags]
    assert not {"script", "link", "iframe", "object"} & set(names)
    links = [v for _, attrs in seen.tags for k, v in attrs.items() if k in ("src", "href")]
    assert all(link.startswith(("data:image/png;base64,", "#", "render.")) for link in links)
    assert "url(" not in text
    assert "@import" not in text
    ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


@pytest.mark.parametrize("lang", page.LANGUAGES)
def test_a_page_can_be_read_without_seeing_it(pages, lang):
    seen = Seen(pages[f"render.{lang}.html"].read_text("utf-8"))
    assert dict(seen.tags)["html"]["lang"].startswith(lang)
    assert all(attrs.get("alt") for tag, attrs in seen.tags if tag == "img")
    plots = [attrs for tag, attrs in seen.tags if tag == "svg"]
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in plots)
    levels = [int(tag[1]) for tag, _ in seen.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all(attrs.get("scope") for tag, attrs in seen.tags if tag == "th")


def test_the_page_tells_this_run(pages, one):
    text = "".join(Seen(pages["render.en.html"].read_text("utf-8")).text)
    sigmas = one["sigmas"]
    for number in (float(sigmas[0]), float(sigmas[1]), page_stages.size(one["noise"]) and 5.0):
        assert page_stages.short(number) in text
    assert one.render.sha256["output"] in text
    assert "a (red:1.3) <hat> & 红色" in text  # as text, and not as HTML
    assert "weight 1.3" in text
    assert "72 × 64" in text


def test_what_articles_mix_up_is_set_right(pages):
    english = pages["render.en.html"].read_text("utf-8")
    chinese = pages["render.zh.html"].read_text("utf-8")
    for term in ("Temperature", "Langevin", "contrastive loss belongs to CLIP"):
        assert term in english
    for term in ("温度", "朗之万", "对比损失属于 CLIP 的训练"):
        assert term in chinese


def test_every_sentence_is_there_in_both_languages_with_the_same_blanks():
    def blanks(text):
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    for key, both in page_stages.sentences().items():
        assert both.keys() == set(page.LANGUAGES), key
        assert blanks(both["en"]) == blanks(both["zh"]), key


def test_every_sentence_is_used():
    code = Path(page.__file__).read_text("utf-8") + Path(page_stages.__file__).read_text("utf-8")
    made = {f"{kind}-{n}" for kind in ("term", "meaning") for n in range(1, page_stages.TERMS + 1)}
    made |= {f"col-{name}" for name in page_stages.COLUMNS} | page.SECTIONS.keys()
    unused = [k for k in page_stages.sentences() if not re.search(f"[\"']{k}[\"']", code)]
    unused = [key for key in unused if key not in made]
    assert unused == []


@pytest.mark.parametrize(
    "change",
    [
        {"denoise": 0.0},
        {"cfg": 1.0},
        {"negative": ""},
        {"positive": "", "negative": ""},
        {"sampler_name": "dpmpp_2s_ancestral"},
        {"denoise": 1.0, "steps": 1},
        {"steps": 4, "start_at_step": 1, "end_at_step": 3, "return_with_leftover_noise": True},
        {"positive": "word " * 100},
    ],
    ids=str,
)
def test_odd_runs_have_a_page_too(models, change):
    recipe = Recipe(**{**RECIPE.to_json(), **change})
    whole = told(models, recipe)
    text = page.html(whole)
    Seen(text)
    assert "nan" not in "".join(Seen(text).text).lower().replace("resonan", "")


def test_a_picture_of_nan_has_a_page_too(models):
    whole = told(models, RECIPE)
    for name in ("image/output", "latent/output"):
        whole.trace.tensors[name] = torch.full_like(whole.trace.tensors[name], float("nan"))
    Seen(page.html(whole))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot be made"):
        page.can_write(tmp_path / "file" / "page")


def test_ticks_are_round_and_hold_the_line():
    assert drawing.decades(0.03, 14.6) == [0.01, 0.1, 1.0, 10.0, 100.0]
    for low, high in ((0.0, 0.7), (0.0, 123.0), (-2.0, 3.0), (0.0, 0.0)):
        ticks = drawing.evenly(low, high)
        assert ticks[0] <= low
        assert ticks[-1] >= high
        assert 2 <= len(ticks) <= 8


def luminance(colour):
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_every_colour_stands_out_from_its_ground():
    """WCAG 2.2, 1.4.3: text at least 4.5 : 1, in the light, the dark and the printed page."""
    found = re.findall(r":root \{([^}]*)\}", page.STYLE.read_text("utf-8"))
    assert len(found) == 3
    for block in found:
        colours = {k: (v * 2)[:6] if len(v) == 3 else v for k, v in
                   re.findall(r"--(\w+): #([0-9a-f]{3,6})", block)}  # fmt: skip
        for ink in ("ink", "faint", "accent", "second", "third"):
            for ground in ("paper", "panel"):
                a, b = (luminance("#" + "".join(colours[c])) for c in (ink, ground))
                ratio = (max(a, b) + 0.05) / (min(a, b) + 0.05)
                assert ratio >= 4.5, (ink, ground, ratio)


LOOK = """
const root = document.documentElement, images = [...document.images];
return {
  wide: root.scrollWidth - root.clientWidth,
  broken: images.filter(image => !image.complete || !image.naturalWidth).length,
  images: images.length,
  paper: getComputedStyle(document.body).backgroundColor,
  tall: [...document.querySelectorAll('section')].map(s => s.getBoundingClientRect().height)
}
"""


@pytest.mark.skipif(bool(browser.missing()), reason=f"no {browser.missing()} on this machine")
def test_a_real_browser_shows_it_at_every_width_in_light_and_dark(pages):
    papers = set()
    with browser.browser() as tab:
        for path in pages.values():
            for width in browser.WIDTHS:
                for scheme in browser.SCHEMES:
                    tab.open(path, width, scheme)
                    seen = tab.script(LOOK)
                    assert seen["wide"] <= 0, (path.name, width)
                    assert seen["broken"] == 0
                    assert seen["images"] > 20
                    assert min(seen["tall"]) > 100
                    papers.add((scheme, seen["paper"]))
        assert len(papers) == len(browser.SCHEMES)
        assert tab.pdf().startswith(b"%PDF")
