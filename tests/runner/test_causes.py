"""Why a card is slow, from measurements that were never made: each cause where it is due, alone."""

from dataclasses import asdict

import pytest

from runner.causes import LOOKS, causes, far

CARD = {
    "clock": 1900.0, "clock_most": 1980.0, "power": 300.0, "power_limit": 700.0, "slowed": [],
    "link_lanes": 16, "link_lanes_most": 16, "link_generation": 5, "link_generation_most": 5,
    "others": 0,
}  # fmt: skip
TRIED = {
    "link": 55e9, "half": 800e12, "attention": {"chosen": 1e-4, "plain": 1e-3}, "asking": 1e-3,
    "step": 5e-3, "elsewhere": 0, "memory": 80e9,
}  # fmt: skip
SLOW = {
    "machine": {"device": "cuda"},
    "share": 0.11, "flops": 1.6e12, "ceiling": {"flops": 800e12, "bytes": 3e12}, "memory": 4e9,
    "settings": {"dtype": "float16"}, "others": 0.0, "card": CARD, "slowness": TRIED,
}  # fmt: skip
CHANGES = [
    ("slow-link", "slowness", {"link": 3.1e9}, "3.1 GB/s"),
    ("slow-clock", "card", {"clock": 1200.0, "slowed": ["power cap"]}, "1200 of 1980 MHz (power"),
    ("slow-attention", "slowness", {"attention": {"chosen": 1e-3, "plain": 1e-3}}, "1.00 ms"),
    ("slow-launches", "slowness", {"asking": 4.9e-3}, "4.9 of 5.0 ms"),
    ("slow-offloading", "slowness", {"elsewhere": 2.5e9}, "2.5 GB of the weights"),
    ("slow-offloading", None, {"memory": 90e9}, "90.0 GB were in use"),
    ("slow-float32", None, {"settings": {"dtype": "float32"}, "ceiling": {"flops": 60e12}}, "13.3"),
    ("slow-company", "card", {"others": 2}, "2 other processes compute"),
    ("slow-company", None, {"others": 3.0}, "3.0 other processes wanted"),
]


def changed(part, change):
    return SLOW | ({part: SLOW[part] | change} if part else change)


@pytest.mark.parametrize(("id", "part", "change", "words"), CHANGES)
def test_each_cause_is_told_where_it_is_due_and_no_other(id, part, change, words):
    (cause,) = causes(changed(part, change))
    assert cause.id == id
    assert words in cause.because


def test_every_cause_is_tried_here():
    assert {id for id, *_ in CHANGES} == set(LOOKS)


def test_a_card_with_nothing_wrong_has_no_cause():
    assert far(SLOW)
    assert list(causes(SLOW)) == []


@pytest.mark.parametrize(
    "change", [{"share": 0.5}, {"share": None}, {"flops": 1e9}, {"machine": {"device": "cpu"}}]
)
def test_a_figure_that_is_as_it_should_be_is_not_explained(change):
    everything = SLOW | {"card": CARD | {"others": 9}} | change
    assert list(causes(everything)) == []


@pytest.mark.parametrize("part", ["card", "slowness"])
def test_what_was_not_measured_blames_nobody(part):
    for missing in (None, {}):
        assert list(causes(SLOW | {part: missing})) == []
    for name in SLOW[part]:
        rest = {key: value for key, value in SLOW[part].items() if key != name}
        assert list(causes(SLOW | {part: rest})) == []


@pytest.mark.parametrize("change", [{"clock": 1200.0}, {"slowed": ["power cap"]}])
def test_a_low_clock_needs_a_reason_and_a_reason_a_low_clock(change):
    assert list(causes(changed("card", change))) == []


def test_a_cause_is_an_object_of_two_words():
    (cause,) = causes(changed("card", {"others": 2}))
    assert set(asdict(cause)) == {"id", "because"}
