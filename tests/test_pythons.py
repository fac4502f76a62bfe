"""The doctor on every Python of the machine: installed as people do, judging another one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def pythons():
    """Interpreters from 3.10 on, besides the one that runs the tests."""
    found = {}
    managed = Path.home().glob(".pyenv/versions/3.*/bin/python")
    places = [*managed, *Path("/usr/bin").glob("python3.*")]
    for path in places:
        asked = [str(path), "-c", "import sys, venv; print(*sys.version_info[:2])"]
        run = subprocess.run(asked, capture_output=True, text=True)
        version = tuple(map(int, run.stdout.split())) if run.returncode == 0 else ()
        if version >= (3, 10) and version != sys.version_info[:2]:
            found.setdefault(version, path)
    return [found[version] for version in sorted(found)]


@pytest.mark.parametrize("python", pythons(), ids=str)
def test_the_doctor_runs_on_this_python(python, tmp_path):
    subprocess.run([str(python), "-m", "venv", str(tmp_path / "v")], check=True)
    own = tmp_path / "v" / "bin"
    subprocess.run([str(own / "pip"), "install", "--quiet", str(ROOT)], check=True)
    words = [str(own / "comfy-doctor"), "check", "--python", sys.executable, "--json"]
    run = subprocess.run([*words, "--level", "1"], capture_output=True, text=True, cwd=tmp_path)
    said = json.loads(run.stdout)
    assert said["target"]["python"] == sys.executable
    assert [f["id"] for f in said["findings"] if f["severity"] == "error"] == []
    assert run.returncode == 0, said
