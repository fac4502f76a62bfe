"""Plots for a terminal: lengths that are the numbers'."""

import pytest

from runner import plots

BENCH = {
    "seconds": [1.0, 1.0, 1.1, 1.0, 1.5, 1.0],
    "median": 1.0,
    "stages": {"text": 0.25, "first step": 2.0, "encode": 0.5, "decode": 1.0},
    "flops": 4e11,
    "weights": 2e9,
    "ceiling": {"flops": 1e12, "bytes": 1e10},
}


def test_a_bar_is_as_long_as_its_number():
    drawn = list(plots.bars([("a", 4.0, " s"), ("bb", 1.0, " s"), ("c", 0.0, " s")]))
    assert [line.count("█") for line in drawn] == [plots.WIDE, plots.WIDE // 4, 0]
    assert drawn[0].startswith("   a ")
    assert drawn[1].endswith(" 1 s")


def test_an_eighth_is_seen():
    assert plots.bar(1 / plots.WIDE / 8) == "▏"
    assert plots.bar(1.0) == "█" * plots.WIDE


def test_the_steady_step_stands_beside_the_first():
    names = [name for name, *_ in plots.stages(BENCH)]
    assert names == ["text", "first step", "step", "encode", "decode"]


def test_every_step_is_in_one_bin():
    found = plots.bins(BENCH["seconds"])
    assert [count for _, count, _ in found] == [5, 0, 1]
    assert found[0][0].startswith("1000–")
    assert [count for _, count, _ in plots.bins([2.0, 2.0, 2.0])] == [3, 0]


def test_the_roof_is_the_lower_of_two():
    low = plots.roof(BENCH)
    assert low == pytest.approx({"intensity": 200, "allowed": 1.0, "rate": 0.4})
    assert plots.roof(BENCH | {"weights": 8e10})["allowed"] == pytest.approx(0.05)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_only_what_there_is_is_drawn(lang):
    whole = BENCH | {"sizes": [{"size": s, "steps_per_second": 64 / s} for s in (64, 128)]}
    assert sum("128²" in line for line in plots.lines(whole, lang)) == 1
    bare = BENCH | {"seconds": [1.0], "weights": None}
    assert len(list(plots.lines(bare, lang))) == 6
