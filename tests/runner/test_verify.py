"""The ladder's first rung, and what it says of a broken runner. Full size: test_full_size.py."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from runner import devices, gate, verify  # noqa: E402
from runner.recipe import Refused  # noqa: E402
from runner.samplers import SAMPLERS  # noqa: E402


def first():
    loads = {"sd15": lambda: pytest.fail("no model")}
    return verify.verify(1, devices.choose("cpu"), loads, lambda *_: None)


def test_the_first_rung_passes_and_needs_no_model():
    verdict = first()
    assert verdict.passed, [one for one in verdict.gates if one.verdict != "passed"]
    told = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert told["schema"] == "runner.verify/1"
    rungs = [
        "tokens",
        "schedules",
        "noise",
        "arithmetic",
        *(f"sampler {name}" for name in SAMPLERS),
    ]
    assert [one["name"] for one in told["gates"]] == rungs
    assert len(SAMPLERS) == 42


def test_a_gate_that_crashes_has_failed():
    answer = gate.judged("odd", lambda: 1 / 0)
    assert (answer.verdict, answer.name) == ("failed", "odd")
    assert "ZeroDivisionError" in answer.why


def test_a_sampler_whose_package_is_absent_is_not_judged_and_nothing_else_is_excused():
    def lacks(id):
        def ask():
            raise Refused(id, "it is not here")

        return ask

    assert gate.judged("sampler x", lacks("torchsde-missing")).verdict == "not judged"
    assert gate.judged("sampler x", lacks("sampler-unknown")).verdict == "failed"


def test_a_figure_that_is_not_finite_goes_to_json():
    answer = gate.held(float("inf"), 1e-5)
    verdict = gate.Verdict((answer,), {}, 1)
    assert answer.verdict == "failed"
    assert verdict.to_json()["gates"][0]["figure"] == "inf"


def test_no_failure_is_not_enough_to_pass():
    answer = gate.Gate("a", None, None, gate.NOT_JUDGED)
    assert not gate.Verdict((answer,), {}, 1).passed


CORRUPTIONS = [
    ("tokenizer.py", "weight * 1.1", "weight * 1.2", "tokens"),
    ("tokenizer.py", "MERGES = 48_894", "MERGES = 40_000", "tokens"),
    ("schedules.py", "0.012", "0.0120001", "schedules"),
    ("schedules.py", "int(steps / denoise)", "round(steps / denoise)", "schedules"),
    ("samplers_karras.py", "(here + slope(", "(here - slope(", "sampler heun"),
    (
        "samplers_karras.py",
        "+ noise() * up\n",
        "+ noise() * up * 1.01\n",
        "sampler euler_ancestral",
    ),
    (
        "samplers_karras.py",
        "* (target - sigma)\n",
        "* (target - sigma) * 1.0001\n",
        "sampler euler",
    ),
    ("samplers_exponential.py", "1 + 1 / (2 * r)", "1 + 1 / (2.1 * r)", "sampler dpmpp_2m"),
    ("samplers_exponential.py", "* 1.5 * (h", "* 1.4999 * (h", "sampler dpm_adaptive"),
    ("samplers_exponential.py", "LAST_SIGMA = 0.001", "LAST_SIGMA = 0.002", "sampler uni_pc_bh2"),
    ("samplers_adams.py", "0.5 * (taus", "0.5001 * (taus", "sampler deis"),
    ("samplers_adams.py", "* 999.0", "* 900.0", "sampler sa_solver_pece"),
    ("samplers_stochastic.py", "+ 10.0)", "+ 9.9)", "sampler er_sde"),
    ("samplers_stochastic.py", "change**2 / 2", "change**2 / 2.1", "sampler er_sde"),
    ("samplers_guided.py", "later, plain = ", "later, _ = ", "sampler dpmpp_2s_ancestral_cfg_pp"),
    ("noise.py", "entropy=self.seed", "entropy=self.seed + 1", "sampler dpmpp_3m_sde_gpu"),
    ("noise.py", "manual_seed(seed)", "manual_seed(seed + 1)", "noise"),
    ("pipeline.py", "noise * sigma + latent", "noise * sigma", "sampler euler"),
]


@pytest.mark.parametrize(("file", "line", "wrong", "named"), CORRUPTIONS)
def test_one_wrong_line_fails_the_gate_it_belongs_to(tmp_path, file, line, wrong, named):
    copy = tmp_path / "runner"
    shutil.copytree("runner", copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text("utf-8")
    assert line in text
    (copy / file).write_text(text.replace(line, wrong), "utf-8")
    (tmp_path / "__main__.py").write_text("from runner.cli import main\nraise SystemExit(main())\n")
    command = [sys.executable, "-I", str(tmp_path), "verify", "--depth", "1", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(tmp_path).anchor)
    assert run.returncode == 1, run.stderr
    failed = [g["name"] for g in json.loads(run.stdout)["gates"] if g["verdict"] == "failed"]
    assert named in failed
