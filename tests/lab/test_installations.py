"""A share of the lab, judged by the installed command from outside: python -m tests.lab has all."""

import os

import pytest

pytest.importorskip("torch")

if os.name == "nt":
    pytest.skip("the builders make Unix environments", allow_module_level=True)

from tests.lab.installation import CASES, make_base
from tests.lab.judge import one


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("lab") / "base")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.quick])
def test_it_is_named_and_nothing_else_is_an_error(name, base):
    verdict = one(name, base.parent, base, fixes=False)
    if verdict.skipped:
        pytest.skip(verdict.skipped)
    assert verdict.wrong == (), verdict


def test_the_lab_is_large_enough_and_no_case_is_lost():
    broken = [case for case in CASES.values() if case.owed]
    assert len(broken) >= 60
    assert len(CASES) - len(broken) >= 10
    assert len({case.owed for case in broken}) >= 50
