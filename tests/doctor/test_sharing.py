"""What run leaves for others: redacted, counted, and the next patient."""

import argparse
import json

from doctor import handoff
from doctor.facts import Facts, Host, Target
from doctor.finding import Diagnosis
from doctor.screen import Screen
from doctor.verbs import run
from tests.doctor.command import doctor
from tests.doctor.test_page import PROOF

PROVED = {**PROOF, "verify": {"passed": True, "gates": []}}
WHERE = "/home/carol/ComfyUI"
FACTS = Facts(
    target=Target(WHERE, f"{WHERE}/.venv/bin/python", "asked for"),
    host=Host(os="linux", memory_free=10**12),
)


def test_the_report_of_a_run_is_redacted_counted_and_replayable(tmp_path, monkeypatch):
    monkeypatch.setattr(handoff, "ask_runner", lambda *_: PROVED)
    monkeypatch.setattr(run, "proved", lambda *_: None)
    wishes = {name.replace("-", "_"): None for name in run.options.RECIPE}
    args = argparse.Namespace(out=str(tmp_path), html=None, checkpoint=None, image=None, **wishes)
    assert run.prove(args, Screen("en", as_json=True), FACTS, Diagnosis((), ()), {}) == 0
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert "carol" not in text
    assert "carol" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert json.loads(text)["redacted"]["home"] >= 2
    code, out, _ = doctor("check", "--facts", tmp_path / "report.json", "--json")
    assert json.loads(out)["schema"] == "comfy-doctor.check/1", out
    assert code in (0, 1, 4)
