"""docs/servers.md: each example run as it stands there, on a stand-in for ComfyUI, with /comfyui
and the port replaced, and the names of the programs that are not here left out."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.doctor.command import ROOT
from tests.doctor.double import serving
from tests.lab.mains import free_port, main_py

PAGE = (ROOT / "docs/servers.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def blocks(kind):
    return [text for name, text in BLOCKS if name == kind]


@pytest.fixture
def place(tmp_path):
    main_py(tmp_path / "comfyui")
    return tmp_path


def run(line, place, url="http://127.0.0.1:8188", port=8188):
    """A command of the page in a shell; its exit code and output."""
    doctor = f"{shlex.quote(sys.executable)} -m doctor"
    who = f"--comfyui {place / 'comfyui'} --python {shlex.quote(sys.executable)}"
    for old, new in {
        "comfy-doctor ": f"{doctor} ",
        "--comfyui /comfyui": who,
        "http://127.0.0.1:8188": url,
        "--port 8188": f"--port {port}",
        "~/.config/systemd/user": str(place),
        "/var/lib/node_exporter/comfy_doctor": f"{place}/metrics",
        "/var/log/comfy-doctor": f"{place}/log",
    }.items():
        line = line.replace(old, new)
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(place)}
    run = subprocess.run(["sh", "-c", line], cwd=place, env=env, capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


def test_start_status_stop(place):
    port = free_port()
    lines = blocks("sh")[0].splitlines()
    assert [run(line, place, port=port)[0] for line in lines] == [0, 0, 0]


def test_the_unit_and_the_compose_file(place):
    code, said = run(blocks("sh")[1].splitlines()[0], place)
    assert (code, (place / "comfyui.service").is_file()) == (0, True), said
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", place / "comfyui.service"], capture_output=True, text=True
        )
        assert "comfyui.service" not in done.stderr
    code, said = run(blocks("sh")[2].splitlines()[0], place)
    assert code == 0, said
    assert yaml.safe_load((place / "compose.yaml").read_text())["services"]["comfyui"][
        "healthcheck"
    ]


def test_the_line_for_cron_writes_metrics_and_a_log(place):
    line = blocks("cron")[0].split(maxsplit=5)[5]
    with serving() as (_, url):
        code, said = run(line, place, url)
    assert code == 0, said
    assert 'comfy_doctor_healthy{command="smoke"} 1' in (place / "metrics.prom").read_text()
    assert "smoke/1" in (place / "log.json").read_text()


def test_the_steps_of_the_action(place):
    made = yaml.safe_load(blocks("yaml")[0])
    steps = [step["run"] for step in made["jobs"]["health"]["steps"] if "run" in step]
    with serving() as (_, url):
        codes = [
            run(step.replace("check ", "check --level 1 ", 1), place, url)[0] for step in steps
        ]
    assert codes[1] == 0
    assert codes[0] in (0, 1), "a stand-in for ComfyUI has no requirements to meet"
    assert (place / "check.xml").is_file()
    assert (place / "smoke.xml").is_file()


def test_the_probes_of_the_pod(place):
    pod = yaml.safe_load(blocks("yaml")[1])
    (container,) = pod["spec"]["containers"]
    probes = [
        shlex.join(container[name]["exec"]["command"])
        for name in ("readinessProbe", "livenessProbe")
    ]
    assert [run(probe, place)[0] for probe in probes] == [1, 1], "nothing runs yet"
    start = shlex.join(container["command"]).replace("launch", "launch --detach", 1)
    port = free_port()
    assert run(f"{start} --port 8188", place, port=port)[0] == 0
    assert [run(probe, place)[0] for probe in probes] == [0, 0]
    assert run("comfy-doctor stop --comfyui /comfyui", place)[0] == 0


def test_the_chinese_page_knows_the_same_commands():
    theirs = (ROOT / "docs/servers.zh.md").read_text(encoding="utf-8")
    for text in blocks("sh"):
        assert text in theirs
