"""log, explain and their pages, from outside."""

import json

import pytest

from tests.doctor.command import answer, doctor

FULL = "Collecting torch\nERROR: Could not install packages due to an OSError: [Errno 28] x\n"


@pytest.fixture
def log(tmp_path):
    def write(text):
        path = tmp_path / "comfyui.log"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_errors_exit_with_1_and_name_the_line(log):
    code, said = answer("log", log(FULL))
    (finding,) = said["findings"]
    assert (code, said["schema"], said["healthy"]) == (1, "comfy-doctor.log/1", False)
    assert (finding["id"], finding["severity"], finding["line"]) == ("disk-full", "error", 2)
    assert finding["confidence"] > 0.9
    assert finding.keys() >= {"title", "because", "advice", "commands", "fix"}


def test_nothing_to_do_is_an_answer(log):
    code, out, _ = doctor("log", log("got prompt\nPrompt executed in 3.30 seconds\n"))
    assert code == 0
    assert "nothing to do" in out
    code, said = answer("log", log(""))
    assert (code, said["findings"], said["not_known"]) == (0, [], [])


def test_noise_is_named_as_such(log):
    code, said = answer("log", log("[notice] A new release of pip is available: 25.0 -> 25.3\n"))
    assert code == 0
    assert [(f["id"], f["severity"]) for f in said["findings"]] == [
        ("pip-warning-harmless", "info")
    ]


def test_what_is_not_known_is_said_with_the_nearest_pages(log):
    code, said = answer("log", log("x\nRuntimeError: the tokenizer of frobs and certificates\n"))
    assert code == 4
    (line,) = said["not_known"]
    assert line["line"] == 2
    assert line["nearest"]


def test_a_log_is_read_from_a_pipe(log):
    import subprocess
    import sys

    from tests.doctor.command import ROOT

    run = subprocess.run(
        [sys.executable, "-m", "doctor", "log", "-", "--json"],
        input=FULL.encode(),
        capture_output=True,
        cwd=ROOT,
    )
    assert json.loads(run.stdout)["findings"][0]["id"] == "disk-full"


def test_facts_that_go_with_a_log(log, tmp_path):
    facts = tmp_path / "facts.json"
    facts.write_text('{"facts": {"host": {"os": "linux", "container": "docker", "wsl": false}}}')
    text = log("RuntimeError: Found no NVIDIA driver on your system.\n")
    assert answer("log", text)[1]["findings"][0]["id"] == "nvidia-driver-missing"
    said = answer("log", text, "--facts", facts)[1]
    assert said["findings"][0]["id"] == "docker-no-gpu"


def test_a_log_that_is_not_there(tmp_path):
    code, said = answer("log", tmp_path / "none.log")
    assert (code, said["schema"]) == (2, "comfy-doctor.error/1")


def test_both_languages(log):
    code, out, _ = doctor("log", log(FULL), "--lang", "zh")
    assert code == 1
    assert "磁盘" in out


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_explain_shows_the_whole_page(lang):
    code, out, _ = doctor("explain", "torch-cpu-build", "--lang", lang)
    assert code == 0
    assert "AssertionError: Torch not compiled with CUDA enabled" in out
    assert "python_embeded" in out
    assert "pip install -U torch" in out
