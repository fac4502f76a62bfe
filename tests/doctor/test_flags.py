"""Launch flags: which is next, which is applied, which is withdrawn; and the file they stand in."""

import pytest

from doctor import flags
from doctor.checks.launch import unneeded
from doctor.diagnose import diagnose
from doctor.facts import Flag
from doctor.fix import FIXES, CannotFix
from doctor.flags import Kept, Script
from doctor.manifest import world
from doctor.plan import prescribe
from tests.doctor.test_machines import read


def planned(name):
    """What the flag fixes of a patient would keep and drop."""
    facts = read(name)
    steps = [s for t in prescribe(diagnose(facts).findings, facts).treatments for s in t.steps]
    (step,) = steps
    return flags.words(step.keep), list(step.drop)


@pytest.mark.parametrize(
    ("name", "keep", "drop"),
    [
        ("black-pictures", ["--fp32-vae"], []),
        ("black-pictures-in-spite-of-a-flag", ["--force-upcast-attention"], []),
        ("card-memory-full", ["--reserve-vram", "1.0"], []),
        ("port-range-of-hyper-v", ["--port", "8288"], []),
        ("listening-on-an-old-address", ["--listen", "127.0.0.1"], []),
        ("cpu-torch-beside-integrated-graphics", ["--cpu"], []),
        ("card-off-the-list-that-fails", ["--disable-cuda-malloc"], []),
        ("cuda-malloc-forced-on-a-listed-card", ["--disable-cuda-malloc"], ["--cuda-malloc"]),
        ("flags-of-another-card", [], ["--disable-cuda-malloc", "--port", "--cpu"]),
    ],
)
def test_each_cause_brings_its_flag_and_takes_its_rivals_out(name, keep, drop):
    assert planned(name) == (keep, drop)


def test_a_flag_is_kept_with_the_facts_and_circumstances_of_the_day():
    (step,) = FIXES["raise-precision"](read("black-pictures"))
    kept = step.keep["--fp32-vae"]
    assert kept.why == "black-nan-image"
    assert "invalid value encountered in cast" in kept.because[0]
    assert kept.where == {
        "gpu": "NVIDIA GeForce RTX 4090",
        "driver": "580.95.05",
        "torch": "2.14.0+cu130",
    }


def test_a_withdrawn_flag_says_what_changed_and_those_of_the_owner_stay():
    gone = unneeded(read("flags-of-another-card"))
    assert "GTX 1650" in gone["--disable-cuda-malloc"]
    assert gone["--port"] == "port 8188 is free"
    assert "RTX 4090" in gone["--cpu"]
    assert not gone.keys() & {"--fp32-vae", "--preview-method"}


def test_when_no_flag_is_left_there_is_no_fix():
    facts = read("port-range-of-hyper-v")
    facts.comfyui.flags["--port"] = Flag("port-forbidden", "8288")
    with pytest.raises(CannotFix, match="kept already"):
        list(FIXES["allowed-port"](facts))


KEPT = {
    "--cpu": Flag("cpu-flag-needed"),
    "--disable-cuda-malloc": Flag("x"),
    "--reserve-vram": Flag("x", "1.0"),
}


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ([], ["--cpu", "--disable-cuda-malloc", "--reserve-vram", "1.0"]),
        (["--reserve-vram", "3"], ["--cpu", "--disable-cuda-malloc"]),
        (["--reserve-vram=3"], ["--cpu", "--disable-cuda-malloc"]),
        (["--cuda-malloc", "--novram"], ["--reserve-vram", "1.0"]),
        (["--cuda-malloc-of-mine"], ["--cpu", "--disable-cuda-malloc", "--reserve-vram", "1.0"]),
    ],
)
def test_what_the_owner_gives_is_the_stronger_word(given, left):
    assert flags.words(flags.applied(KEPT, given, world())) == left


def test_the_file_survives_and_reads_what_people_write():
    kept = Kept(KEPT, {"start.sh": Script(("py", "main.py"), ("--listen", "0.0.0.0"))})
    assert flags.read(flags.written(kept)) == kept
    assert flags.read('{"--lowvram": "my card is small"}').flags == {
        "--lowvram": Flag("my card is small")
    }
    for damaged in ("", "{", "[]", '{"flags": 3}', '{"flags": {"--x": 3}}', '"x"'):
        assert flags.read(damaged) == Kept()
