"""What a server may say of a prompt, in every shape that nobody would send."""

import pytest

from doctor import prompt, smoke
from doctor.events import Event
from doctor.prompt import Executed, Followed, ended, refusal
from doctor.verbs.told import of_stats

ODD = [None, 5, "x", [], {}, [1], [["a"]], [["execution_error", 5]], {"a": {"errors": 5}}]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_no_shape_of_an_answer_is_a_bug_of_ours(odd):
    for entry in ({"outputs": odd}, {"status": odd}, {"status": {"messages": odd}}):
        assert isinstance(ended(Followed("one"), entry, 1.0, 0), Executed)
    assert refusal({"error": odd, "node_errors": odd}).nodes in ({}, {"a": ()})
    for outputs in ({"picture": odd}, {"picture": {"images": odd}}):
        assert smoke.first_file(Executed("one", 1.0, outputs, {}), "picture", "images") == {}
    for stats in (odd, {"system": odd, "devices": odd}):
        assert all(sample.name in ("info", "memory_bytes") for sample in of_stats(stats))


def test_times_are_those_between_the_nodes():
    followed = Followed("one")
    for node in ("encode", "sample", "encode", None):
        followed.see(Event("executing", {"node": node, "prompt_id": "one"}), lambda *_: None)
    followed.see(Event("executing", {"node": "other", "prompt_id": "another"}), lambda *_: None)
    assert set(followed.times) == {"encode", "sample"}
    assert followed.over
    assert prompt.number(float("nan")) == prompt.number("x") == 0
