"""A real ComfyUI started as a test: which pack breaks it, and what `node list` tells afterwards."""

import shutil

import pytest

from doctor import options, trial
from doctor.examine import examine
from doctor.locate import target
from doctor.screen import Screen
from doctor.verbs import treatment
from tests import comfyui as real
from tests.doctor.command import answer

pytestmark = real.needed


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory):
    return real.copy(tmp_path_factory.mktemp("real"))


def packs(comfyui, **codes):
    """These packs and no others."""
    shutil.rmtree(comfyui / "custom_nodes")
    for name, code in codes.items():
        pack = comfyui / "custom_nodes" / name
        pack.mkdir(parents=True)
        (pack / "__init__.py").write_text(f"{code}\nNODE_CLASS_MAPPINGS = {{}}\n")


def test_bisect_finds_who_ends_it_and_who_is_not_imported(comfyui):
    packs(comfyui, Good="", Ends="import os; os._exit(7)", Lacks="import not_there", Fine="")
    code, said = answer("node", "bisect", "--comfyui", comfyui)
    assert (code, said["core"]) == (1, "")
    assert [(one["name"], one["with"]) for one in said["culprits"]] == [("Ends", [])]
    assert "exit code 7" in said["culprits"][0]["error"]
    assert said["not_imported"] == {"Lacks": "No module named 'not_there'"}
    assert said["starts"] <= 6


def test_bisect_finds_a_crash_that_takes_two(comfyui):
    """Whichever is loaded second: ComfyUI goes by the order of the disk."""
    code = "import sys, ctypes\nif hasattr(sys, 'mark'): ctypes.string_at(0)\nsys.mark = True"
    packs(comfyui, A=code, B=code, C="")
    _, said = answer("node", "bisect", "--comfyui", comfyui)
    assert [(one["name"], one["with"]) for one in said["culprits"]] == [("B", ["A"])]
    assert "signal 11" in said["culprits"][0]["error"]


def test_bisect_finds_who_hangs(comfyui):
    packs(comfyui, Hangs="import time; time.sleep(600)")
    _, said = answer("node", "bisect", "--comfyui", comfyui, "--limit", "40")
    assert [one["name"] for one in said["culprits"]] == ["Hangs"]
    assert "no end after 40 s" in said["culprits"][0]["error"]


def test_after_the_start_of_setup_list_tells_how_each_pack_fared(comfyui):
    packs(comfyui, Good="", Slow="import time; time.sleep(0.3)", Lacks="import no_such")
    start = treatment.started(arguments(comfyui), Screen("en", True), [])
    assert (start["tried"], start["error"]) == (True, "")
    listed = answer("node", "list", "--comfyui", comfyui)[1]["packs"]
    rows = {row["name"]: row["last_start"] for row in listed}
    assert rows["Slow"]["seconds"] >= 0.3
    assert (rows["Lacks"]["failed"], rows["Lacks"]["error"]) == (True, "No module named 'no_such'")
    assert not rows["Good"]["failed"]


def arguments(comfyui):
    args = options.parser().parse_args(["setup", str(comfyui), "--yes"])
    args.comfyui = str(comfyui)
    return args


def test_the_flag_is_needed_that_a_trial_adds(comfyui, monkeypatch):
    """ComfyUI asks CUDA unless it is told that there is only a CPU."""
    packs(comfyui, Good="")
    facts = examine(target(comfyui, None), 1, lambda what: None)
    monkeypatch.setattr(trial, "on_cpu", lambda facts: False)
    assert "CUDA" in trial.start(facts).error
