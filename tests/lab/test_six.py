"""Six environments, really broken, and a healthy one, judged by the command from outside."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")

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
