"""Ray for real, on this machine: a share of tests/lab/fleet.py, asked for by FLEET_LAB=1.

Not in every run: which comes first, the word of a raylet's death or the end of its time, hangs on
how busy the machine is, and the judge wants the first.
"""

import os
import tempfile
from pathlib import Path

import pytest

from doctor.fleet.cluster import NoCluster
from tests.lab import fleet

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif("FLEET_LAB" not in os.environ, reason="FLEET_LAB=1 asks for it")


@pytest.fixture
def short():
    """A folder of few letters: Ray's sockets lie in it, and their names may have 107."""
    with tempfile.TemporaryDirectory(prefix="cd-ray-", dir="/tmp") as folder:
        yield Path(folder)


def test_the_report_is_right_about_one_killed_one_broken_and_one_that_hangs(short):
    try:
        with fleet.raylets(short) as (address, nodes):
            who = fleet.names(address)
            code, answer, told = fleet.checked(address, nodes, limit=15)
    except NoCluster as busy:
        pytest.skip(f"four raylets did not start: {busy}")
    fleet.judge(code, answer, who)
    assert told.index("✗") < told.index("dead"), "each is told as it comes"
    assert fleet.at_work(str(short)) == [], "nothing that was started there is left"
