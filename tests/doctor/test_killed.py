"""A few rounds of tests/kill_node_install.py, which takes more of them on its own."""

import os

import pytest

from tests.kill_node_install import rounds


@pytest.mark.skipif(os.name == "nt", reason="process groups")
def test_killed_at_random_instants(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    found = [what for _, what in rounds(tmp_path, 2, seed=7)]
    assert len(found) == 2
