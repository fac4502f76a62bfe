"""The command line from outside: exit codes, one clear sentence, one JSON object."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from doctor import cli
from tests.doctor.command import ROOT, answer, doctor
from tests.doctor.test_locate import environment

NOTHING = "/nowhere/at/all"

BAD = {  # words -> what the sentence must say
    "no such folder": (("check", "--comfyui", NOTHING), f"There is no folder {NOTHING}"),
    "a file as folder": (("check", "--comfyui", "README.md"), "README.md is a file"),
    "not a ComfyUI": (("check", "--comfyui", "doctor"), "doctor is not a ComfyUI"),
    "no such python": (("check", "--python", NOTHING), f"There is no interpreter {NOTHING}"),
    "a python that is none": (("check", "--python", "/bin/cat"), "/bin/cat is not a Python"),
    "a folder as python": (("check", "--python", "docs"), "docs is a folder without a Python"),
    "nobody named": (("check",), "comfy-doctor setup DIR"),
    "no such check": (("check", "--only", "torch-mising"), "There is no check torch-mising"),
    "no such finding": (("fix", "nonsense"), "There is no finding nonsense"),
    "no such level": (("check", "--level", "9"), "invalid choice: 9"),
    "no such verb": (("heal",), "invalid choice: 'heal'"),
    "no such option": (("check", "--hurry"), "--hurry"),
    "facts that are none": (("check", "--facts", "README.md"), "README.md is no file of saved"),
    "no facts file": (("check", "--facts", NOTHING), NOTHING),
    "no page": (("explain", "nonsense"), "There is no finding nonsense"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence_and_exit_2(case, tmp_path):
    words, said = BAD[case]
    code, out, err = doctor(*words, cwd=ROOT if case != "nobody named" else tmp_path)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) <= 2
    assert "Traceback" not in err


def test_with_json_the_refusal_is_an_object_too():
    code, said = answer("check", "--comfyui", NOTHING)
    assert (code, said["schema"], said["exit"]) == (2, "comfy-doctor.error/1", 2)
    assert NOTHING in said["error"]["message"]


def test_without_words_the_help_teaches():
    code, out, _ = doctor()
    assert code == 2
    assert "exit codes" in out
    assert "check" in out


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_finding_can_be_explained_in_both_languages(lang):
    code, said = answer("list", "--lang", lang)
    assert code == 0
    for finding in said["findings"][:3]:
        code, page = answer("explain", finding["id"], "--lang", lang)
        assert (code, page["title"]) == (0, finding["title"])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_list_has_no_blanks(lang):
    code, out, _ = doctor("list", "--lang", lang)
    assert code == 0
    assert "{" not in out


def test_the_language_follows_the_locale():
    _, out, _ = doctor("explain", "numpy-missing", LANG="zh_CN.UTF-8")
    assert "没有安装 numpy" in out
    _, out, _ = doctor("explain", "numpy-missing", LANG="de_DE.UTF-8")
    assert "numpy is not installed" in out


def test_an_empty_folder_is_diagnosed_and_not_refused(tmp_path):
    code, said = answer("check", "--comfyui", tmp_path)
    assert code == 1
    assert {f["id"] for f in said["findings"]} >= {"python-missing", "comfyui-missing"}
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"


def test_an_interpreter_patient_gets_no_findings_about_comfyui(tmp_path):
    code, said = answer("check", "--python", environment(tmp_path / "env"))
    assert [f["id"] for f in said["findings"] if f["severity"] == "error"] == ["torch-missing"]
    assert not [f["id"] for f in said["findings"] if "comfyui" in f["id"]]
    assert (code, said["target"]["comfyui"]) == (1, None)


def test_a_saved_file_is_judged_the_same_elsewhere(tmp_path):
    saved = tmp_path / "patient.json"
    words = ("check", "--python", environment(tmp_path / "env"))
    _, first = answer(*words, "--save", saved)
    code, again = answer("check", "--facts", saved)
    assert code == 1
    assert again == first
    assert json.loads(saved.read_text())["findings"][0] == "torch-missing"


def test_what_is_ignored_stays_visible_and_does_not_count(tmp_path):
    words = ("check", "--python", environment(tmp_path / "env"), "--ignore", "torch-missing")
    code, said = answer(*words)
    assert (code, said["healthy"]) == (0, True)
    assert "torch-missing" not in [f["id"] for f in said["findings"]]
    assert [f["id"] for f in said["ignored"]] == ["torch-missing"]
    _, out, _ = doctor(*words)
    assert "torch-missing" in out


def test_level_1_imports_nothing_and_what_was_not_asked_does_not_count(tmp_path):
    code, said = answer("check", "--python", sys.executable, "--level", "1")
    assert code == 0, said["findings"]
    assert all(entry["skipped"] for entry in said["not_judged"])


def test_a_plan_without_a_yes_changes_nothing(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    for more in ((), ("--dry-run",)):
        code, _, _ = doctor("fix", "--comfyui", folder, "--offline", *more)
        assert code == 1
        assert not (folder / ".venv").exists()


def test_four_rows_are_always_there(tmp_path):
    _, out, _ = doctor("check", "--comfyui", tmp_path)
    for label in ("Interpreter", "Python", "torch", "CUDA, driver", "numpy"):
        assert f"\n{label}" in f"\n{out}"


def test_colour_is_for_terminals_only():
    _, out, _ = doctor("explain", "numpy-missing", FORCE_COLOR="", TERM="xterm-256color")
    assert "\x1b" not in out


def test_a_reader_that_goes_away_is_no_bug():
    run = subprocess.run(
        f"{sys.executable} -m doctor list | head -1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert "Traceback" not in run.stderr
    assert "bug" not in run.stderr


def test_our_own_bug_is_exit_3_and_tells_where_the_details_are(monkeypatch, capsys):
    def boom(*_):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(cli, "obey", boom)
    assert cli.main(["check"]) == 3
    told = capsys.readouterr()
    assert "ZeroDivisionError: ours" in told.err
    path = (told.out + told.err).split("text in ")[1].split("report.txt")[0] + "report.txt"
    assert "boom" in Path(path.replace("\n", "")).read_text()


def test_an_interruption_is_exit_130(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "obey", interrupted)
    assert cli.main(["check"]) == 130
