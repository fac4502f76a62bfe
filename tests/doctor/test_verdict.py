"""What the runner found wrong becomes findings, and what its experiments proved becomes flags."""

import json
import os
from dataclasses import replace

import pytest

from doctor import fixes, verdict  # noqa: F401 - importing the fixes registers them
from doctor.diagnose import diagnose
from doctor.examine import proof
from doctor.facts import Failed, Proof
from doctor.fix import FIXES
from tests.doctor.test_machines import read

GATES = [
    ("finite", "vae-float32", "black-nan-image"),
    ("picture in 16 bits", "attention-float32", "black-nan-image"),
    ("sdxl finite in 16 bits", "unet-float32", "black-nan-image"),
    ("finite", "", "numbers-wrong"),
    ("denoiser", "attention-math", "attention-wrong"),
    ("determinism", "attention-math", "attention-wrong"),
    ("determinism", "deterministic", "render-not-repeatable"),
    ("fresh process", "one-thread", "render-not-repeatable"),
    ("determinism", "", "device-computes-wrongly"),
    ("encode", "again", "device-computes-wrongly"),
    ("cpu against gpu", "cpu", "device-computes-wrongly"),
    ("memory", "", "device-computes-wrongly"),
    ("sampler heun", "", "numbers-wrong"),
    ("decode in 16 bits", "vae-float32", "numbers-wrong"),
]


@pytest.mark.parametrize(("gate", "cure", "id"), GATES)
def test_a_failed_gate_and_its_cure_are_one_finding(gate, cure, id):
    assert verdict.finding_of(Failed(gate, "because", cure)) == id


CURES = [
    ("finite", "vae-float32", "black-nan-image", "--fp32-vae"),
    ("finite", "attention-float32", "black-nan-image", "--force-upcast-attention"),
    ("finite", "unet-float32", "black-nan-image", "--fp32-unet"),
    ("text", "attention-math", "attention-wrong", "--use-split-cross-attention"),
    ("determinism", "deterministic", "render-not-repeatable", "--deterministic"),
    ("decode in 16 bits", "vae-float32", "numbers-wrong", "--fp32-vae"),
    ("fresh process", "one-thread", "render-not-repeatable", None),
    ("memory", "", "device-computes-wrongly", None),
    ("schedules", "", "numbers-wrong", None),
]


@pytest.mark.parametrize(("gate", "cure", "id", "flag"), CURES)
def test_the_flag_is_the_one_that_an_experiment_proved(gate, cure, id, flag):
    facts = replace(read("healthy-cuda"), proof=Proof((Failed(gate, "so", cure),), "2026-11-20"))
    (finding,) = diagnose(facts).findings
    assert finding.id == id
    assert f"gate {gate}: so" in finding.because[0]
    assert bool(finding.fix) == bool(flag)
    if flag:
        assert any(command.endswith(f"-- {flag}") for command in finding.commands)
        (step,) = FIXES[finding.fix](facts)
        assert list(step.keep) == [flag]
        assert step.keep[flag].why == id


REPORT = {
    "verify": {
        "gates": [
            {"name": "text", "figure": 1e-7, "bound": 1e-5, "verdict": "passed", "why": ""},
            {"name": "finite", "figure": 3, "bound": 0, "verdict": "failed", "why": "NaN"},
        ],
        "suspects": [{"gate": "finite", "cured_by": "vae-float32", "tried": []}],
        "passed": False,
    }
}


def test_the_newest_report_counts(tmp_path):
    for place, (name, report) in enumerate({"b": REPORT, "a": {"verify": None}}.items()):
        run = tmp_path / ".comfy-doctor" / "runs" / name
        run.mkdir(parents=True)
        (run / "report.json").write_text(json.dumps(report))
        os.utime(run / "report.json", (1e9 + place, 1e9 + place))
        told = proof(str(tmp_path)).failed
        assert told == ((Failed("finite", "NaN", "vae-float32"),) if name == "b" else ())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"verify": {"gates": [1]}}', '{"a": 1}'])
def test_a_damaged_report_says_nothing(text):
    assert verdict.read(text, "") == Proof()


def test_no_report_says_nothing(tmp_path):
    assert proof(str(tmp_path)) == proof(None) == Proof()


def test_every_experiment_that_a_flag_rests_on_is_one_of_the_runners():
    experiments = pytest.importorskip("runner.experiments", exc_type=ImportError)
    named = {name for row in read("healthy-cuda").world.flag_cures for name in row.experiments}
    assert named
    assert named <= {one.name for one in experiments.EXPERIMENTS}
