"""Ray for real, on this machine: a share of tests/lab/fleet.py, asked for by FLEET_LAB=1: it takes
two minutes, most of them spent on waiting for the node that hangs."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.lab import fleet

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif("FLEET_LAB" not in os.environ, reason="FLEET_LAB=1 asks for it")


@pytest.fixture
def short():
    """A folder of few letters: Ray's sockets lie in it, and their names may have 107."""
    with tempfile.TemporaryDirectory(prefix="cd-ray-", dir="/tmp") as folder:
        yield Path(folder)


def test_the_report_is_right_about_one_killed_one_broken_and_one_that_hangs(short):
    with fleet.raylets(short) as lab:
        fleet.judge(*fleet.checked(lab), lab)
        fleet.until(lambda: not fleet.at_work(short))  # nothing that was started there is left
