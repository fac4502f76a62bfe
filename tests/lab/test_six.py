"""Six environments, really broken, and a healthy one, judged by the command from outside."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")

from tests.doctor.command import answer, doctor
from tests.doctor.test_snapshot import tree
from tests.lab.environments import make

OWED = {  # situation -> the finding it must get first, and what its evidence must name
    "numpy-removed": ("numpy-missing", "numpy"),
    "torchvision-for-another-torch": ("torch-companion-mismatch", "0.20.1"),
    "torchvision-of-another-build": ("torch-companion-mismatch", "cu130"),
    "torch-dies-on-import": ("torch-crashes", "SIGSEGV"),
    "opencv-for-numpy-1": ("numpy2-abi", "cv2"),
    "torch-library-deleted": ("torch-broken", "libtorch_cpu.so"),
}


def check(python, *options):
    """Exit code and answer of the installed command, in a process without torch."""
    command = [sys.executable, "-X", "importtime", "-m", "doctor", "check", "--json"]
    run = subprocess.run(
        [*command, "--python", str(python), *options], capture_output=True, text=True
    )
    loaded = [line.rpartition("|")[2].strip() for line in run.stderr.splitlines()]
    return run.returncode, json.loads(run.stdout), loaded


@pytest.mark.parametrize("situation", OWED)
def test_each_breakage_is_named_with_its_evidence_and_nothing_else_is_an_error(situation, tmp_path):
    python = make(situation, tmp_path / "env")
    code, said, loaded = check(python)
    errors = [finding for finding in said["findings"] if finding["severity"] == "error"]
    owed, evidence = OWED[situation]
    assert [finding["id"] for finding in said["findings"]][:1] == [owed]
    assert [finding["id"] for finding in errors] == [owed]
    assert evidence in " ".join(errors[0]["because"])
    assert (code, said["healthy"]) == (1, False)
    assert said["target"]["python"] == str(python)
    assert not {"torch", "numpy", "cv2"} & set(loaded), "the doctor imported what it judges"


def test_a_healthy_environment_is_called_healthy(tmp_path):
    code, said, _ = check(make("healthy", tmp_path / "env"))
    assert [f for f in said["findings"] if f["severity"] == "error"] == []
    assert (code, said["healthy"]) == (0, True)


def test_a_companion_of_another_build_is_taken_out_and_undo_brings_it_back(tmp_path):
    """No index here holds a torchvision of this build: it is left out and said; torch stays."""
    python = make("torchvision-of-another-build", tmp_path / "env")
    before = tree(tmp_path / "env")
    words = ("torch-companion-mismatch", "--python", python, "--yes")
    code, said = answer("fix", *words, "--offline")
    assert (code, said["cured"]) == (0, ["torch-companion-mismatch"]), said
    assert check(python)[0] == 0
    doctor("undo", "--python", python, "--offline")
    after = {k: v for k, v in tree(tmp_path / "env").items() if not k.startswith(".comfy-doctor")}
    assert after == before


def test_numpy_and_opencv_are_aligned_and_undone(tmp_path):
    """The cure of a module made for numpy 1 is a newer build of it, not an older numpy."""
    python = make("opencv-for-numpy-1", tmp_path / "env")
    before = tree(tmp_path / "env")
    code, said = answer("fix", "--python", python, "--yes")
    assert (code, said["cured"]) == (0, ["numpy2-abi"]), said
    assert "opencv-python-headless" in str(said["plan"])
    assert "numpy 2" not in str(said["plan"])
    doctor("undo", "--python", python, "--offline")
    after = {k: v for k, v in tree(tmp_path / "env").items() if not k.startswith(".comfy-doctor")}
    assert after == before


def test_a_removed_numpy_comes_back(tmp_path):
    python = make("numpy-removed", tmp_path / "env")
    code, said = answer("fix", "--python", python, "--yes")
    assert (code, said["cured"], said["left"]) == (0, ["numpy-missing"], [])
    assert check(python)[0] == 0


def test_a_torch_with_a_library_deleted_is_made_whole(tmp_path):
    python = make("torch-library-deleted", tmp_path / "env")
    code, said = answer("fix", "--python", python, "--yes")
    assert (code, said["cured"]) == (0, ["torch-broken"]), said
    assert check(python)[0] == 0
