"""The experiment, in a child of an interpreter whose torch is a stand-in, for want of a card: it
has as much of torch's interface as the probe uses, and fails as it is told to."""

import json
import sys
from dataclasses import replace

import pytest

from doctor import allocators
from doctor.checks.launch import cuda_malloc_unsupported, unneeded
from doctor.diagnose import diagnose
from doctor.facts import Flag, Import, Target, Unknown
from doctor.finding import Severity
from tests.doctor.command import ROOT, answer
from tests.doctor.test_machines import read
from tests.lab.mains import free_port, main_py

TORCH = '''
"""A stand-in for torch with a card, made for a test. WAYS says how its allocators behave."""
import os, time
WAYS = {ways!r}
backend = os.environ["PYTORCH_CUDA_ALLOC_CONF"].partition(":")[2]
way = WAYS.get(backend, "works")
uint8 = "uint8"

class Tensor:
    def fill_(self, value): pass
    def half(self): return self
    def __getitem__(self, place): return 36.0 if way != "wrong" else 35.0

def made(*words, **more):
    if way == "raises":
        raise RuntimeError("CUDA error: operation not supported")
    if way == "dies":
        os.kill(os.getpid(), 11)
    if way == "hangs":
        time.sleep(60)
    return Tensor()

empty = full = ones = made

class cuda:
    is_available = staticmethod(lambda: way != "no card")
    mem_get_info = staticmethod(lambda: (8 << 30, 8 << 30))
    synchronize = empty_cache = staticmethod(lambda: None)
    get_allocator_backend = staticmethod(lambda: backend)
    get_device_name = staticmethod(lambda: "a card that is not there")

class nn:
    class functional:
        conv2d = staticmethod(made)
'''


@pytest.fixture
def tried(tmp_path, monkeypatch):
    def run(patience=20.0, **ways):
        (tmp_path / "torch.py").write_text(TORCH.format(ways=ways))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return allocators.tried(Target(python=sys.executable), patience)

    return run


def test_both_work(tried):
    found = tried()
    assert {name: row.ok for name, row in found.items()} == {
        "native": True,
        "cudaMallocAsync": True,
    }
    assert found["cudaMallocAsync"].detail["backend"] == "cudaMallocAsync", "each its own"


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("raises", "operation not supported"),
        ("dies", "died of SIGSEGV"),
        ("wrong", "35.0 instead of 36"),
        ("hangs", "hung"),
    ],
)
def test_one_that_fails_says_how(tried, way, told):
    found = tried(3.0 if way == "hangs" else 20.0, cudaMallocAsync=way)
    assert found["native"].ok
    assert told in found["cudaMallocAsync"].error


def test_without_a_card_nothing_is_judged(tried):
    found = tried(native="no card")
    assert isinstance(found, Unknown)
    assert not found.skipped


GOOD, BAD = Import(True), Import(False, "RuntimeError: CUDA error: operation not supported")


@pytest.fixture
def listed():
    """A card that is on ComfyUI's list."""
    facts = read("cuda-malloc-forced-on-a-listed-card")
    return replace(facts, comfyui=replace(facts.comfyui, flags={}, faults=()))


def ids(facts):
    return [finding.severity for finding in cuda_malloc_unsupported(facts)]


def test_a_trial_outweighs_the_list_and_the_list_is_the_fallback(listed):
    assert ids(listed) == [Severity.INFO], "not tried: the list"
    unknown = replace(listed, allocators=Unknown("no time"))
    assert ids(unknown) == [Severity.INFO], "could not be tried: the list"
    works = replace(listed, allocators={"native": GOOD, "cudaMallocAsync": GOOD})
    assert ids(works) == []
    fails = replace(listed, allocators={"native": GOOD, "cudaMallocAsync": BAD})
    assert ids(fails) == [Severity.ERROR]
    both = replace(listed, allocators={"native": BAD, "cudaMallocAsync": BAD})
    assert ids(both) == [Severity.INFO], "where both fail it is not the allocator"


def test_what_could_not_be_tried_is_not_judged():
    facts = replace(read("healthy-cuda"), allocators=Unknown("torch finds no CUDA device"))
    said = [n for n in diagnose(facts).not_judged if n.id == "cuda-malloc-unsupported"]
    assert [one.why for one in said] == ["torch finds no CUDA device"]


def test_a_kept_flag_is_withdrawn_by_a_trial_that_goes_well(listed):
    kept = {"--disable-cuda-malloc": Flag("cuda-malloc-unsupported", where={"gpu": "x"})}
    facts = replace(listed, comfyui=replace(listed.comfyui, flags=kept, faults=()))
    good = replace(facts, allocators={"native": GOOD, "cudaMallocAsync": GOOD})
    assert "works" in unneeded(good)["--disable-cuda-malloc"]
    bad = replace(facts, allocators={"native": GOOD, "cudaMallocAsync": BAD})
    assert unneeded(bad) == {}


@pytest.mark.parametrize(("way", "stays"), [("works", False), ("raises", True)])
def test_launch_withdraws_a_flag_that_the_trial_acquits(tmp_path, way, stays):
    """On another torch than the flag was kept for; the trial is that of the stand-in."""
    main_py(tmp_path / "comfyui", "raise SystemExit(3)")
    (tmp_path / "torch.py").write_text(TORCH.format(ways={"cudaMallocAsync": way}))
    row = {"why": "cuda-malloc-unsupported", "where": {"torch": "1.0"}}
    kept = tmp_path / "comfyui/.comfy-doctor/flags.json"
    kept.parent.mkdir()
    kept.write_text(json.dumps({"flags": {"--disable-cuda-malloc": row}, "scripts": {}}))
    path = f"{ROOT}:{tmp_path}"
    who = ["--comfyui", tmp_path / "comfyui", "--python", sys.executable]
    code, said = answer("launch", *who, "--", "--port", free_port(), PYTHONPATH=path)
    assert code == 1
    assert ("--disable-cuda-malloc" in said["command"]) == stays
    assert ("--disable-cuda-malloc" in kept.read_text()) == stays
