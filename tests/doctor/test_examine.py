"""What the patient's interpreter says, however badly it is."""

import json
import platform
import re
import sys
from pathlib import Path

import pytest

from doctor import examine, probe
from doctor.examine import Heard, alone, gone_well, imports, interview
from doctor.facts import Flag, Target, Unknown
from doctor.locate import BadTarget


def patient(python=sys.executable, comfyui=None):
    return Target(comfyui, str(python))


def quiet(_):
    """Nobody watches."""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Modules that fare differently when they are imported."""
    bodies = {
        "fine": "__version__ = '1.2'",
        "fails": "raise ImportError('libnothing.so: cannot open')",
        "dies": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "hangs": "import time; time.sleep(60)",
        "leaves": "raise SystemExit(7)",
        "ends": "import os; os._exit(5)",
        "after": "import fine; answer = 42",
        "shouts": "import sys; sys.stdout.write('MARK{}MARK'); sys.stdout = None",
    }
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return patient()


def test_a_noisy_interpreter_is_still_heard(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text('print(\'hello {"not": "ours"}\')')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = examine.describe(patient())
    assert said["version"] == platform.python_version()
    assert "pytest" in said["packages"]


def test_no_module_of_the_doctor_stands_before_the_patients_own(monkeypatch):
    for variables in ({}, {"PYTHONSAFEPATH": "1"}):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        said = examine.describe(patient())
        own = str(Path(examine.__file__).parent)
        assert own not in said["path"]
        assert "numpy" in said["modules"] or "numpy" not in sys.modules


def test_each_module_gets_its_own_answer_whatever_the_others_do(modules):
    names = ["fine", "fails", "dies", "leaves", "ends", "shouts", "after"]
    found = imports(modules, names, quiet)
    assert list(found) == names
    assert [found[name].ok for name in names] == [True, False, False, False, False, True, True]
    assert found["fine"].detail == {"version": "1.2"}
    assert found["fails"].error == "ImportError: libnothing.so: cannot open"
    assert found["dies"].signal == "SIGSEGV"
    assert found["leaves"].error.startswith("SystemExit: 7")
    assert found["ends"].signal == "exit code 5"


def test_a_hang_is_an_answer(modules):
    found = imports(modules, ["hangs", "fine"], quiet, timeout=1.5)
    assert found["hangs"].timeout
    assert not found["hangs"].ok
    assert found["fine"].ok


def test_a_death_in_the_first_operation_is_told_from_one_while_importing():
    after_import = Heard(({"module": "torch", "imported": True, "seconds": 1},), -11, ())
    assert alone("torch", after_import).error == "torch died in its first operation: SIGSEGV"
    before = Heard((), -11, ())
    assert alone("torch", before).error == "torch died while being imported: SIGSEGV"


def test_only_what_went_well_counts_in_a_chain():
    answers = (
        {"module": "a", "imported": True, "seconds": 1},
        {"module": "a", "ok": True, "detail": {}, "seconds": 1},
        {"module": "b", "error": "x", "trace": [], "seconds": 1},
        {"module": "c", "ok": True, "detail": {}, "seconds": 1},
    )
    assert [name for name, _ in gone_well(Heard(answers, 0, ()))] == ["a"]


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_an_interpreter_that_dies_is_told_from_a_file_that_is_none(tmp_path):
    dead = program(tmp_path / "python", "echo 'Fatal Python error: boom' >&2; exit 1")
    said = examine.describe(patient(dead))
    assert isinstance(said, Unknown)
    assert "Fatal Python error: boom" in said.why
    with pytest.raises(BadTarget, match="not a Python"):
        examine.describe(patient(program(tmp_path / "ls", "echo 'ls (GNU coreutils) 9.1'")))
    with pytest.raises(BadTarget, match="not a Python"):
        examine.describe(patient("/bin/cat"))


def test_a_venv_whose_base_is_gone_is_broken_and_not_bad_input(tmp_path):
    (tmp_path / "python").symlink_to(tmp_path / "gone")
    said = examine.describe(patient(tmp_path / "python"))
    assert isinstance(said, Unknown)


PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.parts[-3])
def test_every_python_on_the_machine_describes_itself(python):
    heard = interview(patient(python), "describe", "json", timeout=20)
    assert heard.answers[0]["version"] == python.parts[-3]
    assert heard.answers[0]["modules"].keys() == {"json"}


def test_damage_is_read_off_the_record(tmp_path):
    info = tmp_path / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: Thing\nVersion: 1.0\nRequires-Dist: numpy<2\n\nWords")
    (info / "RECORD").write_text("thing/a.so,sha256=x,10\nthing/b.so,sha256=x,3\nthing/c.py,,\n")
    (info / "INSTALLER").write_text("pip\n")
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "a.so").write_text("cut")
    name, facts = probe.package(str(tmp_path), info.name)
    assert (name, facts["version"], facts["requires"]) == ("thing", "1.0", ["numpy<2"])
    assert facts["missing"] == ["thing/a.so (3 of 10 bytes)", "thing/b.so"]
    (info / "INSTALLER").write_text("debian\n")  # a distribution strips libraries it packs
    assert probe.package(str(tmp_path), info.name)[1]["missing"] == ["thing/b.so"]


@pytest.mark.parametrize("content", [b"", bytes(4000)])
def test_what_a_crash_emptied_is_as_good_as_gone(content, tmp_path):
    info = tmp_path / "thing-1.0.dist-info"
    info.mkdir()
    (info / "INSTALLER").write_text("pip\n")
    (info / "METADATA").write_bytes(content)
    (info / "RECORD").write_bytes(content)
    name, facts = probe.package(str(tmp_path), info.name)
    assert (name, facts["version"], facts["record"]) == ("thing", "1.0", False)
    assert facts["missing"] == ["thing-1.0.dist-info/METADATA"]
    (info / "INSTALLER").unlink()  # hollow, and nobody's: no list of its files all the same
    assert probe.package(str(tmp_path), info.name)[1]["record"] is False


@pytest.mark.parametrize(
    ("told", "source"),
    [
        ({"archive_info": {}, "url": "file:///w/a-1.whl"}, "file:///w/a-1.whl"),
        ({"dir_info": {"editable": True}, "url": "file:///src/a"}, "-e file:///src/a"),
        (
            {"vcs_info": {"vcs": "git", "commit_id": "c0"}, "url": "https://h/a"},
            "git+https://h/a@c0",
        ),
        ([], ""),
    ],
)
def test_what_pip_was_given_instead_of_a_name_is_remembered(told, source, tmp_path):
    (tmp_path / "direct_url.json").write_text(json.dumps(told))
    assert probe.source(str(tmp_path)) == source


def test_the_build_of_torch_is_read_and_not_imported(tmp_path, monkeypatch):
    import doctor.probe as probe

    (tmp_path / "torch").mkdir()
    version = tmp_path / "torch" / "version.py"
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for text, build in (
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", "cpu"),
        ("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip = None\n", "cu130"),
        ("__version__ = '2.13.0+rocm6.4'\ncuda = None\nhip: Optional[str] = '6.4.43'\n", "rocm6.4"),
        ("__version__ = '2.13.0+xpu'\ncuda = None\nxpu: Optional[str] = '20250'\n", "xpu"),
    ):
        version.write_text(text)
        assert probe.torch()["build"] == build


def checkout(folder):
    (folder / "comfy").mkdir()
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text('__version__ = "0.3.64"\n')
    (folder / "requirements.txt").write_text("torch\nnumpy>=1.25.0\n")
    (folder / "cuda_malloc.py").write_text('blacklist = {"GeForce GTX 970",\n "Tesla M4"}\n')
    (folder / ".git" / "refs" / "heads").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/master\n")
    (folder / ".git" / "refs" / "heads" / "master").write_text("a" * 40 + "\n")
    (folder / ".comfy-doctor").mkdir()
    (folder / ".comfy-doctor" / "flags.json").write_text('{"--cpu": "why"}')
    (folder / "user").mkdir()
    (folder / "user" / "comfyui.log").write_text("fine\nCUDA error: operation not supported\n")


def test_a_checkout_is_read_by_its_own_files(tmp_path):
    checkout(tmp_path)
    seen = examine.comfyui(str(tmp_path))
    assert (seen.version, seen.commit) == ("0.3.64", "a" * 40)
    assert seen.requirements == ("torch", "numpy>=1.25.0")
    assert seen.cuda_malloc == ("GeForce GTX 970", "Tesla M4")
    assert seen.flags == {"--cpu": Flag("why")}
    assert re.fullmatch(r"20..-..-..T..:..:..Z", seen.faults_at)
    assert seen.faults == ("CUDA error: operation not supported",)


def test_an_empty_folder_holds_no_comfyui(tmp_path):
    seen = examine.comfyui(str(tmp_path))
    assert (seen.present, seen.empty) == (False, True)
    assert examine.comfyui(None) is None
