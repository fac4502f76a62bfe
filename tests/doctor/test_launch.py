"""ComfyUI started for real, a stand-in for main.py in its place: up, watched, ended, no orphan."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from doctor.facts import Facts, Target
from doctor.screen import Screen
from doctor.verbs import levels
from tests.doctor.command import ROOT, answer, doctor
from tests.lab.mains import free_port, main_py

SLEEPER = """
import subprocess
deaf = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; time.sleep(60)"
subprocess.Popen([sys.executable, "-c", deaf + "  # left behind"])
time.sleep(0.5)
"""


@pytest.fixture
def there(tmp_path):
    """--comfyui and --python, and a port of its own; nothing of it may run afterwards."""
    port = free_port()
    yield ["--comfyui", tmp_path, "--python", sys.executable], port
    left = list(running(tmp_path))
    for process in left:
        process.kill()
    assert not left, "an orphan"


def running(folder):
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(folder) in words or "# left behind" in words:
            yield process


def begun(who, port, *more):
    """`launch` in the foreground, when it says that it is ready."""
    words = [sys.executable, "-m", "doctor", "launch", *map(str, who), *more, "--", "--port", port]
    process = subprocess.Popen(
        list(map(str, words)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"LANG": "C.UTF-8"},
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("✓ Ready"):
            break
    return process, lines


def test_a_start_is_told_in_phases(there, tmp_path):
    who, port = there
    main_py(tmp_path)
    process, lines = begun(who, port)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=20)[0]
    assert process.returncode == 130
    assert "To see the GUI" in "".join(lines), "its output goes on"
    assert any(line.startswith("· Start: imports") for line in lines)
    assert any("slow_pack takes 1.4 s" in line for line in lines)
    assert "Stopped server" in rest, "Ctrl-C reached it, once"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGKILL"])
def test_nothing_is_left_however_the_watcher_ends(there, tmp_path, name):
    who, port = there
    main_py(tmp_path, SLEEPER if name != "SIGKILL" else "")
    process, _ = begun(who, port)
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=20)
    until = time.monotonic() + 10
    while list(running(tmp_path)) and time.monotonic() < until:
        time.sleep(0.1)  # the kernel ends it for a watcher that was killed


def test_in_the_background_then_status_then_stop(there, tmp_path):
    who, port = there
    main_py(tmp_path)
    code, said = answer("launch", *who, "--detach", "--", "--port", port)
    assert (code, said["ready"], said["detached"]) == (0, True, True)
    assert answer("status", *who)[1]["ready"]
    code, _, err = doctor("launch", *who, "--", "--port", port)
    assert code == 2
    assert "runs already" in err
    assert answer("stop", *who)[0] == 0
    code, said = answer("status", *who)
    assert (code, said["running"], said["state"]) == (1, False, "ended")


def test_a_start_in_the_background_that_fails_says_so(there, tmp_path):
    who, port = there
    main_py(tmp_path, "import no_such_module")
    code, out, _ = doctor("launch", *who, "--detach", "--", "--port", port)
    assert code == 1
    assert "No module named 'no_such_module'" in out


def test_an_environment_without_comfyui_is_told_how_to_get_it(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    code, said = answer("launch", "--comfyui", tmp_path)
    assert code == 2
    assert f"comfy-doctor setup {tmp_path}" in str(said["error"])


def test_a_taken_port_is_told_before_anything_starts(there, tmp_path):
    who, port = there
    main_py(tmp_path)
    process, _ = begun(who, port)
    other = tmp_path / "other"
    main_py(other)
    code, said = answer(
        "launch", "--comfyui", other, "--python", sys.executable, "--", "--port", port
    )
    assert (code, said["findings"][0]["id"]) == (1, "port-in-use")
    assert str(process.pid) not in json.dumps(said), "the stand-in has it, not its watcher"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)


def test_the_output_of_the_last_starts_is_kept(there, tmp_path):
    who, port = there
    for number in range(3):
        main_py(tmp_path, f"raise SystemExit('start {number}')")
        assert doctor("launch", *who, "--", "--port", port)[0] == 1
    logs = sorted((tmp_path / ".comfy-doctor").glob("launch.log*"))
    assert [log.read_text().splitlines()[-1] for log in logs] == ["start 2", "start 1", "start 0"]


def test_listening_for_others_is_answered_with_what_it_means(there, tmp_path):
    who, port = there
    main_py(tmp_path)
    _, out, _ = doctor("launch", *who, "--dry-run", "--", "--port", port, "--listen")
    assert "0.0.0.0, ::" in out
    assert f"ssh -L {port}:127.0.0.1:{port}" in out
    _, out, _ = doctor("launch", *who, "--dry-run", "--", "--port", port)
    assert "ssh" not in out


def test_an_interpreter_that_is_gone_is_one_clear_sentence(there, tmp_path):
    main_py(tmp_path)
    gone = tmp_path / "python"
    gone.symlink_to("/nowhere/python")
    code, out, err = doctor("launch", "--comfyui", tmp_path, "--python", gone)
    assert (code, out) == (2, "")
    assert "leads to a Python that is gone" in err


def test_level_3_tries_the_start_and_the_small_render(there, tmp_path):
    """The patient's torch has no card here, so that the allocators are not judged."""
    main_py(tmp_path / "comfyui")
    who = ["--comfyui", tmp_path / "comfyui", "--python", sys.executable]
    code, said = answer("check", "--level", "3", *who)
    assert code in (0, 4), said["findings"]
    rows = {row["name"]: row for row in said["tried"]}
    assert rows["start"]["verdict"] == "passed"
    for name in ("gates", "render"):
        late = "did not end within" in rows[name]["why"]  # a promise of time, on any machine
        assert rows[name]["verdict"] == ("not judged" if late else "passed"), rows[name]
    assert "cuda-malloc-unsupported" in {one["id"] for one in said["not_judged"]}


def test_a_start_that_fails_at_level_3_is_told_by_its_findings(there, tmp_path):
    main_py(tmp_path / "comfyui", "raise OSError(28, 'No space left on device')")
    target = Target(str(tmp_path / "comfyui"), sys.executable)
    found = levels.Tried()
    levels.start(Facts(target=target), Screen("en", as_json=True), found)
    assert [finding.id for finding in found.findings] == ["disk-full"]
    assert [(row["name"], row["verdict"]) for row in found.rows] == [("start", "failed")]


def test_what_is_wrong_with_an_answer_of_the_runner_is_told():
    good = {
        "finite": True,
        "not_finite": [],
        "measures": {"positive": {"input": 0.1, "output": 0.6}},
    }
    assert list(levels.faults(good)) == []
    assert list(levels.faults(good | {"not_finite": ["latent/output"]})) == ["latent/output"]
    flat = {"measures": {"positive": {"input": 0.1, "output": 0.1}}}
    assert list(levels.faults(flat)) == ["shows the prompt 0.10, began with 0.10"]
    gates = {"gates": [{"name": "tokens", "verdict": "failed"}, {"name": "x", "verdict": "passed"}]}
    assert list(levels.faults(gates)) == ["tokens"]
    assert list(levels.faults({"verify": gates, "render": {}})) == ["tokens"]
