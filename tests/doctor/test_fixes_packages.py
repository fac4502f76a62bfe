"""Which packages a fix asks for."""

from dataclasses import replace

import pytest

from doctor import fixes  # noqa: F401  (registers them)
from doctor.checks.packages import within
from doctor.diagnose import diagnose
from doctor.facts import Package
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
    assert [one.fix for one in damaged(read(machine))] == [fix]


@pytest.mark.parametrize(
    "other",
    [
        {"version": "25.1.0+cu128torch2.7"},  # a build that the default index does not hold
        {"source": "git+https://example.org/black@c0"},  # whatever else bears the name and version
        {"location": "/home/me/.local/lib/python3.12/site-packages"},  # no snapshot holds it
        {"again": ("24.0 in /srv",)},  # which of the two would go?
        {"version": ""},
    ],
)
def test_another_of_that_name_never_takes_the_place_of_a_damaged_one(other):
    facts = read("a-file-of-an-unused-package-is-gone")
    black = replace(facts.packages["black"], **other)
    (told,) = damaged(replace(facts, packages={**facts.packages, "black": black}))
    assert told.fix == ""
    assert "comfy-doctor fix" not in " ".join(told.commands)


def test_a_companion_of_torch_does_not_keep_others_from_coming_again():
    facts = read("a-file-of-an-unused-package-is-gone")
    companion = Package("0.20.1", missing=("torchvision/__init__.py",))
    facts = replace(facts, packages={**facts.packages, "torchvision": companion})
    assert [told.fix for told in damaged(facts)] == ["install-again"]
    (step,) = FIXES["install-again"](facts)
    assert step.wants == ("black==25.1.0",)


def test_what_came_from_elsewhere_is_had_from_there_again():
    facts = read("a-file-of-an-unused-package-is-gone")
    black = replace(facts.packages["black"], source="-e file:///src/my%20black")
    (told,) = damaged(replace(facts, packages={**facts.packages, "black": black}))
    assert told.commands[0].endswith("--no-deps -e file:///src/my%20black")


def damaged(facts):
    return [one for one in diagnose(facts).findings if one.id == "package-files-corrupt"]


@pytest.mark.parametrize(
    ("folder", "path", "below"),
    [
        ("/srv/.venv", "/srv/.venv/lib", True),
        ("/srv/.venv", "/srv/.venv2/lib", False),
        ("C:\\Python", "C:\\Python\\Lib", True),
        ("/", "/lib", True),
    ],
)
def test_a_folder_beside_is_not_within(folder, path, below):
    assert within(folder, path) is below
