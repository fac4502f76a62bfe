"""What a treatment is settled for: an interpreter that is there, or that is still to be made."""

import sys

import pytest

from doctor.finding import Diagnosis, Finding, Severity
from doctor.plan import Treatment
from doctor.step import MakeVenv, Move, Packages
from doctor.treat import is_to_be_made, worsened


def test_an_interpreter_that_a_step_makes_anew_is_never_asked(tmp_path):
    """It may be there, and answer nothing: that is why it is replaced."""
    venv = tmp_path / ".venv"
    python = venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    packages = Packages(str(python), wants=("torch",))
    steps = (Move(str(venv), str(tmp_path / "aside")), MakeVenv(str(venv)), packages)
    assert is_to_be_made(packages, steps)
    assert not is_to_be_made(steps[1], steps)


def test_one_that_is_there_is_asked_and_one_that_is_not_there_cannot_be(tmp_path):
    there, absent = Packages(sys.executable), Packages(str(tmp_path / "python"))
    assert not is_to_be_made(there, (MakeVenv(str(tmp_path / ".venv")), there))
    assert is_to_be_made(absent, (absent,))


def diagnosis(*because):
    return Diagnosis((Finding(Severity.WARNING, id="package-files-corrupt", because=because),), ())


@pytest.mark.parametrize(
    ("left", "taken_back"),
    [(("b",), False), (("a", "b"), True), (("b", "c"), True)],
)
def test_a_cure_of_a_part_stays_and_one_that_brings_new_evidence_does_not(left, taken_back):
    treatment = Treatment("install-again", ("package-files-corrupt",), ())
    assert bool(worsened(treatment, diagnosis("a", "b"), diagnosis(*left))) is taken_back
