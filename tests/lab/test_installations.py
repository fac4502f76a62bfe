"""Installations of the lab, judged by the installed command from outside, at level 1."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

from tests.lab.installations import BREAKS, healthy_installation

if os.name == "nt":
    pytest.skip("the builders make Unix environments", allow_module_level=True)


def check(root):
    command = [sys.executable, "-m", "doctor", "check", "--level", "1", "--json"]
    run = subprocess.run(
        [*command, "--comfyui", str(root)], capture_output=True, text=True, timeout=60
    )
    return run.returncode, json.loads(run.stdout)


@pytest.mark.parametrize("situation", BREAKS)
def test_each_is_named_and_nothing_else_is_an_error(situation, tmp_path):
    root = tmp_path / "ComfyUI"
    healthy_installation(root)
    owed, build = BREAKS[situation]
    build(root)
    code, said = check(root)
    found = [finding["id"] for finding in said["findings"]]
    errors = [f["id"] for f in said["findings"] if f["severity"] == "error"]
    assert owed in found if owed else errors == []
    assert set(errors) <= {owed}
    assert code == (1 if errors else 0)
    assert said["target"]["python"] == str(root / ".venv/bin/python")
