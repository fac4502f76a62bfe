"""The package as people install it: a wheel, in a neutral folder, with everything in it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the unpacked wheel alone."""
    place = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(place)]
    subprocess.run([*words, str(ROOT)], check=True)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def run(installed, *words):
    """A command of the wheel's own code, far from the checkout."""
    env = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        cwd=installed.parent,
        env=env,
    )


@pytest.mark.parametrize(
    "words",
    [("list",), ("explain", "numpy-missing"), ("history", "--python", sys.executable)],
    ids=lambda words: words[0],
)
def test_every_part_of_the_doctor_is_in_the_wheel(installed, words):
    said = run(installed, "doctor", *words)
    assert (said.returncode, said.stderr) == (0, "")


def test_the_runner_and_its_data_are_in_the_wheel(installed):
    pytest.importorskip("torch")
    said = run(installed, "runner", "verify", "--depth", "1")
    assert said.returncode == 0, said.stderr


def test_all_modules_and_manifests_are_there_and_nothing_else(installed):
    for package in ("doctor", "manifests", "runner"):
        own = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / package).rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }
        packed = {
            path.relative_to(installed).as_posix()
            for path in (installed / package).rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }
        assert packed == own
