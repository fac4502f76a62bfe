"""A real ComfyUI on the CPU: named, started, cured, asked, held against the runner, ended.

Skipped aloud where COMFYUI_DIR and COMFYUI_PYTHON name none. torchvision and torchaudio are
stand-ins (tests/lab/comfyui.py). SYNTHETIC_SD15 may name the full-size checkpoint that
`python -m runner synthetic sd15 --out F` writes; else it is made (2 GB, 4 GB of memory).
"""

import os
import signal

import pytest

from tests.doctor.command import answer
from tests.doctor.test_launch import begun, running
from tests.lab import comfyui
from tests.lab.mains import free_port

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    place, python = comfyui.patient(tmp_path_factory.mktemp("real"))
    yield ["--comfyui", place, "--python", python], place
    assert not list(running(place)), "an orphan"


def test_check_says_what_the_stand_ins_are_no_substitute_for(patient):
    code, said = answer("check", "--level", "1", *patient[0])
    assert code == 1
    assert "torch-companion-missing" in {finding["id"] for finding in said["findings"]}


def test_it_comes_up_by_itself_on_a_cpu_torch(patient):
    """Without --cpu it dies of `Torch not compiled with CUDA enabled`; the second start has it."""
    process, lines = begun(patient[0], free_port())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    text = "".join(lines)
    assert "AssertionError: Torch not compiled with CUDA enabled" in text
    assert "! Starting once more with --cpu, because of torch-cpu-build" in text
    assert "! The node pack nodes_canny.py did not load: No module named 'kornia'" in text


def test_server_and_runner_make_the_same_picture(patient, tmp_path):
    given = os.environ.get("SYNTHETIC_SD15")
    own = ["--checkpoint", given] if given else []
    before = sorted(path for path in patient[1].rglob("*") if "__pycache__" not in path.parts)
    code, said = answer("smoke", *patient[0], *own, "--out", tmp_path / "out")
    assert code == 0, said["gates"]
    figures = {gate["name"]: gate["figure"] for gate in said["gates"]}
    assert figures["encode"] <= 1e-5
    assert figures["sample"] <= 1e-4
    assert figures["picture"] == "inf" or figures["picture"] >= 60
    assert (tmp_path / "out/side-by-side.png").stat().st_size > 1000
    after = sorted(path for path in patient[1].rglob("*") if "__pycache__" not in path.parts)
    assert after == before, "its folders are as they were"
