"""Service files: read by the programs that they are for, where those are here."""

import json
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from doctor import unit
from tests.doctor.command import doctor
from tests.lab.mains import main_py

HARD = ["/a b/py", "-m", "doctor", "100%", "$HOME", 'quo"te', "back\\slash"]


def test_a_unit_is_one_that_systemd_accepts(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    file = tmp_path / "comfyui.service"
    file.write_text(unit.systemd([sys.executable, *HARD[1:]], str(tmp_path)))
    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True
    )
    said = [line for line in run.stderr.splitlines() if "comfyui.service" in line]
    assert (run.returncode, said) == (0, [])


def test_words_keep_what_they_are_in_a_unit():
    line = next(ln for ln in unit.systemd(HARD, "/x").splitlines() if ln.startswith("ExecStart="))
    plain = line.removeprefix("ExecStart=").replace("%%", "%").replace("$$", "$")
    assert shlex.split(plain) == HARD


def test_a_compose_file_publishes_to_this_machine_alone():
    made = yaml.safe_load(unit.compose(["--lowvram", "--tls-keyfile", "a b"], 9000, True))
    service = made["services"]["comfyui"]
    assert service["ports"] == ["127.0.0.1:9000:9000"]
    script = service["command"][2]
    assert script.endswith("-- --lowvram --tls-keyfile 'a b' --listen 0.0.0.0 --port 9000")
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    assert "deploy" not in yaml.safe_load(unit.compose([], 8188, False))["services"]["comfyui"]


def test_the_owners_port_and_address_are_taken_out():
    words = ["--listen", "1.2.3.4", "--lowvram", "--port=9", "--listen", "--cpu"]
    assert unit.without(words, "--listen", "--port") == ["--lowvram", "--cpu"]


def test_both_are_written_and_nothing_is_started(tmp_path):
    main_py(tmp_path, "raise SystemExit('started')")
    who = ["--comfyui", tmp_path, "--python", sys.executable]
    files = ["--systemd", tmp_path / "s.service", "--compose", tmp_path / "c.yaml"]
    code, out, _ = doctor("launch", *who, *files, "--json", "--", "--port", "9001")
    assert code == 0
    assert json.loads(out)["files"] == [str(tmp_path / "s.service"), str(tmp_path / "c.yaml")]
    assert "-- --port 9001" in (tmp_path / "s.service").read_text()
    assert not (tmp_path / ".comfy-doctor").exists()
