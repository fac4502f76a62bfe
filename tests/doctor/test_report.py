"""What a report counts without listing it."""

from doctor.finding import Diagnosis, NotJudged
from doctor.report import skipped


def lines(*ids):
    missing = tuple(NotJudged(id, "nobody asked", skipped=True) for id in ids)
    return list(skipped(Diagnosis((), missing), "en"))


def test_what_needs_a_level_and_what_asks_the_network_are_counted_apart():
    """A higher level never asks the network."""
    level, online = "torch-crashes", "github-unreachable"
    assert lines(level, online, online) == [
        "1 need a higher --level.",
        "2 ask the network, with --network.",
    ]
    assert lines(online) == ["1 ask the network, with --network."]
    assert lines() == []
