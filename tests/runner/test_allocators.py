"""Two allocators under the same bench: what is made of their answers, and of none."""

import json

import pytest

from runner import allocators, cli
from runner.allocators import ASYNC, NATIVE
from runner.recipe import Refused
from runner.report import bench_lines

BENCH = {"median": 0.010, "spread": 0.0001, "steps_per_second": 100.0, "seconds": [0.01]}


def compared(native, other, words=("bench",)):
    asked = []

    def ask(name, own):
        asked.append((name, own))
        return {NATIVE: native, ASYNC: other}[name]

    return allocators.compared(words, ask), asked


@pytest.mark.parametrize(
    ("other", "disable", "because"),
    [
        (BENCH, False, "works"),
        (BENCH | {"median": 0.0102}, False, "works, -2.0%"),
        (BENCH | {"median": 0.0125}, True, "20% slower"),
        (BENCH | {"median": 0.0125, "spread": 0.004}, False, "works"),  # lost in the noise
        (BENCH | {"median": 0.008}, False, "+25.0%"),
        ({"error": "CUDA error: operation not supported"}, True, "operation not supported"),
    ],
    ids=str,
)
def test_a_failure_or_a_loss_asks_for_the_flag(other, disable, because):
    told = compared(BENCH, other)[0]["allocators"]
    assert told["disable_cuda_malloc"] is disable
    assert because in told["because"]


def test_where_the_native_one_fails_there_is_nothing_to_compare():
    with pytest.raises(Refused, match="out of memory"):
        compared({"error": "out of memory"}, BENCH)


def test_both_are_asked_for_the_same_and_keep_no_history():
    words = ["bench", "--allocators", "--size", "512", "--history", "H", "--compare=C", "--json"]
    _, asked = compared(BENCH, BENCH, words)
    own = ["bench", "--size", "512", "--json", "--progress=none"]
    assert asked == [(NATIVE, own), (ASYNC, own)]


def test_each_has_a_process_of_its_own_and_its_word_in_the_environment(monkeypatch):
    said = "import json, os; print(json.dumps({{'it': os.environ['PYTORCH_CUDA_ALLOC_CONF']}}))"
    monkeypatch.setattr(allocators, "CODE", said + "  # {!r}")
    assert allocators.child(ASYNC, []) == {"it": "backend:cudaMallocAsync"}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import sys; sys.exit('no such card')", "ended with 1: no such card"),
        ("import os; os.abort()", "ended with -6: nothing was said"),
        ('print(\'{"error": {"message": "no memory"}}\')', "no memory"),
    ],
)
def test_a_process_that_fails_is_an_answer(code, error, monkeypatch):
    monkeypatch.setattr(allocators, "CODE", code.replace("{", "{{").replace("}", "}}") + "  # {!r}")
    assert allocators.child(NATIVE, []) == {"error": error}


def test_without_a_card_it_is_refused(capsys):
    pytest.importorskip("torch")
    assert cli.main(["bench", "--allocators", "--device", "cpu", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["id"] == "no-cuda-device"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_person_is_told_the_flag(lang):
    told, _ = compared(BENCH | {"share": None, "doubts": []}, {"error": "hung"})
    assert any(
        "--disable-cuda-malloc" in line and "hung" in line for line in bench_lines(told, lang)
    )
