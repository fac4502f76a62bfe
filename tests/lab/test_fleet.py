"""Ray for real, on this machine: the share of tests/lab/fleet.py that a whole run has time for."""

import pytest

from doctor.fleet.cluster import NoCluster
from tests.lab import fleet

pytest.importorskip("ray")


def test_the_report_is_right_about_one_killed_one_broken_and_one_that_hangs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("f")
    try:
        with fleet.raylets(folder) as (address, nodes):
            who = fleet.names(address)
            code, answer, told = fleet.checked(address, nodes, limit=15)
    except NoCluster as busy:
        pytest.skip(f"four raylets did not start: {busy}")
    fleet.judge(code, answer, who)
    assert told.index("✗") < told.index("dead"), "each is told as it comes"
    assert fleet.at_work(str(folder)) == [], "nothing that was started there is left"
