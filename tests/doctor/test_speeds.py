"""A timed figure beside published ones: the same card, and no other; as plots on the page."""

import json

import pytest

from doctor import speeds
from doctor.manifest import world
from doctor.page import plot, timing
from tests.doctor.test_page import EVIL, PROOF, read, told

H100 = {
    **PROOF["bench"],
    "machine": {"device": "cuda", "device_name": "NVIDIA H100 80GB HBM3"},
    "settings": {"model": "sd15", "size": 512, "dtype": "float16"},
    "seconds": [0.0101, 0.01, 0.0099, 0.01, 0.012],
    "median": 0.01,
    "steps_per_second": 100.0,
    "stages": {"text": 0.02, "first step": 0.4, "encode": 0.01, "decode": 0.02},
    "flops": 1.60654688256e12,
    "weights": 1.72e9,
    "ceiling": {"flops": 7.98e14, "bytes": 3e12},
    "card": {"clock": 1755.0, "power": 612.3, "slowed": [], "joules_a_step": 6.1},
    "sizes": [{"size": 512, "steps_per_second": 100.0}, {"size": 768, "steps_per_second": 40.0}],
}


def page(bench):
    return timing.bench(told(PROOF | {"bench": bench}))


@pytest.mark.parametrize(
    ("short", "whole", "same"),
    [
        ("H100", "NVIDIA H100 80GB HBM3", True),
        ("H100", "NVIDIA GH100", False),
        ("RTX 4090", "NVIDIA GeForce RTX 4090", True),
        ("RTX 4090", "NVIDIA GeForce RTX 4090D", False),
        ("A100", "NVIDIA A100-SXM4-80GB", True),
        ("A100", "", False),
    ],
)
def test_a_card_is_known_by_its_short_name_as_a_word(short, whole, same):
    assert speeds.named(short, whole) == same


def test_neighbours_are_of_the_same_card_and_say_which_are_the_same_question():
    found = list(speeds.neighbours(H100))
    assert {one.row.card for one in found} == {"H100"}
    assert len(found) == 6
    assert [one.model for one in found if one.same] == ["sd15"] * 3
    best = found[0]
    assert (best.row.stack, best.rate) == ("stable-fast", 104.6)
    assert best.tera == pytest.approx(168, abs=0.5)  # the source's own 21.1 % of 798
    assert speeds.tera(H100) == pytest.approx(160.65, abs=0.1)
    assert not list(speeds.neighbours(PROOF["bench"]))


def test_every_published_row_has_a_figure():
    for row in world().published:
        assert row.sd15_512 or row.sdxl_1024, row


def test_the_page_shows_them_beside_ours():
    text = page(H100)
    shown = "".join(read(text).text)
    for words in ("stable-fast", "104.6/s", "0.96 ×", "160.7", "2b9b84e", "612.3 W", "6.1 J"):
        assert words in shown, words
    assert text.count("<svg") == 5


def test_an_older_report_has_the_plots_it_can_have():
    text = page(PROOF["bench"])
    assert text.count("<svg") == 2
    assert "<table" not in text


def test_what_a_report_says_cannot_break_out():
    evil = {
        **H100,
        "stages": {EVIL: 1.0},
        "sizes": [{**one, "size": EVIL} for one in H100["sizes"]],
    }
    text = page(json.loads(json.dumps(evil)))
    read(text)
    assert "<script" not in text
    assert "onerror=alert" not in text.replace("&", "") or "<img" not in text


def test_a_bar_is_as_long_as_its_value():
    text = plot.bars("t", [("a", 4.0, "4"), ("b", 1.0, "1")])
    widths = [float(tag["width"]) for name, tag in read(text).tags if name == "rect"]
    assert widths[0] == pytest.approx(4 * widths[1])


def test_a_step_below_the_roof_is_drawn_below_it():
    text = plot.roof("t", 900.0, 1.6e14, 7.98e14, 3e12, "x")
    tags = read(text).tags
    dot = next(tag for name, tag in tags if name == "circle")
    points = next(tag for name, tag in tags if name == "polyline")["points"].split()
    knee = [float(number) for number in points[1].split(",")]
    assert float(dot["cx"]) > knee[0], "right of the knee: products are the bound"
    assert float(dot["cy"]) > knee[1], "below the roof"
    assert len(timing.binned([1.0, 1.0, 1.0])) == 2
