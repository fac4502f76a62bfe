"""Which interpreter is judged, and why that one."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from doctor import advise, locate
from doctor.facts import Facts, Host
from doctor.locate import BadTarget

LINUX = Host(os="linux")


@pytest.fixture
def comfyui(tmp_path):
    here = tmp_path / "ComfyUI"
    (here / "comfy").mkdir(parents=True)
    (here / "main.py").write_text("import time; time.sleep(60)")
    return here


def environment(folder):
    venv.create(folder, with_pip=False, symlinks=True)
    return str(folder / "bin" / "python")


def test_a_venv_beside_main_py_is_its_interpreter(comfyui):
    python = environment(comfyui / "venv")
    found = locate.target(comfyui, None)
    assert (found.python, found.layout, found.why) == (python, "venv", "venv beside main.py")


def test_the_others_that_were_found_are_named(comfyui):
    dotted, plain = environment(comfyui / ".venv"), environment(comfyui / "venv")
    found = locate.target(comfyui, None)
    assert (found.python, found.others) == (dotted, (plain,))


def test_the_portable_layout_starts_python_with_its_flag(comfyui):
    embedded = comfyui.parent / "python_embeded" / "python.exe"
    embedded.parent.mkdir()
    embedded.touch()
    found = locate.target(comfyui, None)
    assert (found.python, found.layout, found.flags) == (str(embedded), "portable", ("-s",))


def test_the_process_that_runs_it_now_is_the_strongest_evidence(comfyui):
    environment(comfyui / ".venv")
    other = environment(comfyui.parent / "elsewhere")
    process = subprocess.Popen([other, "main.py"], cwd=comfyui)
    try:
        found = locate.target(comfyui, None)
    finally:
        process.kill()
        process.wait()
    assert found.python == other
    assert f"pid {process.pid}" in found.why


def test_the_doctors_own_interpreter_is_never_the_patient(comfyui, monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    assert locate.target(comfyui, None).python is None


def test_an_active_environment_is_asked_before_one_beside_the_folder(comfyui, monkeypatch):
    active = environment(comfyui.parent / "active")
    environment(comfyui.parent / ".venv")
    monkeypatch.setenv("VIRTUAL_ENV", str(comfyui.parent / "active"))
    assert locate.target(comfyui, None).python == active


def test_a_venv_whose_python_is_gone_is_still_the_patient(comfyui):
    environment(comfyui / ".venv")
    python = comfyui / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.9")
    assert locate.target(comfyui, None).python == str(python)


def test_a_workspace_with_the_checkout_inside_is_understood(comfyui):
    assert locate.folder(str(comfyui.parent), Path.cwd()) == comfyui
    assert locate.folder(None, comfyui.parent) == comfyui
    assert locate.folder(None, comfyui) == comfyui


def test_an_empty_folder_is_a_patient_too(tmp_path):
    (tmp_path / "new").mkdir()
    assert locate.folder(str(tmp_path / "new"), Path.cwd()) == tmp_path / "new"
    assert locate.target(tmp_path / "new", None).python is None


@pytest.mark.parametrize(
    ("name", "said"),
    [("nowhere", "no folder"), ("file", "is a file"), ("other", "not a ComfyUI")],
)
def test_what_cannot_be_a_patient_is_refused_with_the_reason(tmp_path, name, said):
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with pytest.raises(BadTarget, match=said):
        locate.folder(str(tmp_path / name), Path.cwd())


def test_a_named_environment_means_the_python_in_it(tmp_path):
    python = environment(tmp_path / "env")
    assert locate.target(None, str(tmp_path / "env")).python == python
    assert locate.target(None, python).layout == "venv"
    with pytest.raises(BadTarget, match="without a Python"):
        locate.target(None, str(tmp_path))
    with pytest.raises(BadTarget, match="no interpreter"):
        locate.target(None, str(tmp_path / "nope"))


def test_conda_is_told_by_its_folder(tmp_path):
    (tmp_path / "conda-meta").mkdir()
    assert locate.layout(tmp_path / "bin" / "python") == "conda"
    assert locate.layout(Path(os.path.realpath(sys.executable))) in ("system", "conda")


def test_an_interpreter_elsewhere_is_named_again_in_what_the_doctor_advises(comfyui, tmp_path):
    """A command that is copied from a report finds the same patient."""
    inside, elsewhere = environment(comfyui / "venv"), environment(tmp_path / "other")

    def advised(python):
        return advise.doctor(Facts(target=locate.target(comfyui, python), host=LINUX), "fix")

    assert advised(elsewhere).endswith(f"--comfyui {comfyui} --python {elsewhere}")
    assert advised(inside) == advised(None) == f"comfy-doctor fix --comfyui {comfyui}"
