"""Nothing that PYTHONPATH names gets into the doctor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from doctor.start import own
from tests.doctor.command import ROOT


@pytest.mark.parametrize("name", ["rich", "psutil", "packaging", "argparse", "json"])
def test_junk_of_another_tool_does_not_keep_the_doctor_from_starting(name, tmp_path):
    """Libraries of the doctor's, and modules of Python itself, by their names."""
    (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    words = [sys.executable, "-m", "doctor", "check", "--level", "1", "--json"]
    run = subprocess.run(
        [*words, "--only", "two-pythons-mixed", "--python", sys.executable],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert run.returncode in (0, 1), run.stderr
    (finding,) = json.loads(run.stdout)["findings"]
    assert finding["because"][0] == f"PYTHONPATH={tmp_path}"
    severe = name == "json"  # which the patient's own Python needs to answer, and argparse is not
    assert finding["severity"] == ("error" if severe else "warning")


def test_the_folder_that_holds_the_doctor_stays():
    here, junk = str(ROOT), str(Path("/opt/tool"))
    path = [here, junk, "/usr/lib/python3"]
    foreign = os.pathsep.join((junk, here))
    assert own(path, foreign) == [here, "/usr/lib/python3"]
    assert own(path, "") == path
