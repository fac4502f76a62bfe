"""Which packages a fix asks for."""

import pytest

from doctor import fixes  # noqa: F401  (registers them)
from doctor.diagnose import diagnose
from doctor.fix import FIXES
from tests.doctor.test_machines import read


def test_the_numpy_installed_is_one_that_comfyui_accepts():
    (step,) = FIXES["install-numpy"](read("core-asks-for-a-newer-numpy"))
    assert step.wants[0].startswith("numpy")
    assert ">=2.4" in step.wants[0].split("numpy")[1].split(",")


def test_damaged_packages_come_again_in_their_versions_and_bring_nothing():
    (step,) = FIXES["install-again"](read("a-file-of-an-unused-package-is-gone"))
    assert (step.wants, step.anew) == (("black==25.1.0",), True)


@pytest.mark.parametrize(
    ("machine", "fix"),
    [
        ("a-file-of-an-unused-package-is-gone", "install-again"),
        ("record-of-a-package-lost", ""),  # what is not listed can be neither taken out nor kept
    ],
)
def test_they_come_again_where_that_can_be_undone(machine, fix):
    told = [one for one in diagnose(read(machine)).findings if one.id == "package-files-corrupt"]
    assert [one.fix for one in told] == [fix]
