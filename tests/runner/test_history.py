"""Results kept a line each; what is not equal is not held against each other."""

import json

import pytest

from runner import history
from runner.recipe import Refused

RESULT = {
    "schema": "runner.bench/1",
    "machine": {"cpu": "x", "threads": 2},
    "settings": {"size": 64, "steps": 5},
    "median": 1.0,
    "seconds": [1.0],
}


def other(part, **change):
    return RESULT | {part: RESULT[part] | change}


def test_only_equal_runs_compare():
    assert history.compare(RESULT, RESULT | {"median": 2.0}) == pytest.approx(2)
    for part, name in (("machine", "threads"), ("settings", "size"), ("machine", "torch")):
        with pytest.raises(Refused, match=f"{part}.{name}"):
            history.compare(RESULT, other(part, **{name: "other"}))
    for broken in ({}, {"schema": "runner.bench/1"}, RESULT | {"median": "fast"}):
        with pytest.raises(Refused):
            history.compare(RESULT, broken)


def test_the_newest_equal_one_is_taken(tmp_path):
    path = tmp_path / "below" / "history.jsonl"
    for one in (RESULT | {"median": 4.0}, RESULT | {"median": 3.0}, other("settings", size=512)):
        history.keep(path, one)
    assert history.newest(RESULT, history.read(path))["median"] == 3.0
    with pytest.raises(Refused, match=r"machine\.cpu"):
        history.newest(other("machine", cpu="y"), history.read(path))


def test_a_result_is_kept_beside_what_was_there(tmp_path):
    path = tmp_path / "h.jsonl"
    assert history.beside(path, [RESULT | {"median": 2.0}]) == {}
    assert history.beside(path, [RESULT, other("settings", size=128)]) == {"times_as_fast": 2.0}
    assert history.beside(path, [other("settings", size=32)]) == {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["settings"]["size"] for row in rows] == [64, 64, 128, 32]
    assert all(row["when"].endswith("Z") for row in rows)


def test_a_line_cut_short_costs_that_line_alone(tmp_path):
    path = tmp_path / "h.jsonl"
    history.keep(path, RESULT)
    with path.open("a") as file:
        file.write(json.dumps(RESULT)[:40])
    assert len(history.read(path)) == 1


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"schema": "other"}', "\x00"])
def test_a_file_without_results_is_refused(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(Refused, match="holds no result"):
        history.read(path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(Refused, match="cannot be written"):
        history.keep(tmp_path, RESULT)
    with pytest.raises(Refused, match="cannot be read"):
        history.read(tmp_path / "nowhere")
