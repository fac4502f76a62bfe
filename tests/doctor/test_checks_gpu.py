import pytest

from doctor.checks.gpu import hides_all, too_new
from doctor.checks.torch import made_for, major, vendor
from doctor.facts import Facts, Package
from doctor.manifest import world

WORLD = Facts(world=world())


@pytest.mark.parametrize(
    ("value", "cards", "hidden"),
    [
        ("", 1, True),
        ("-1", 1, True),
        ("all", 2, True),
        ("NoDevFiles", 1, True),
        ("0", 1, False),
        ("1", 1, True),
        ("1", 2, False),
        ("0,7", 1, False),
        ("-1,0", 1, True),
        ("GPU-8f2a", 1, False),
        ("MIG-1", 1, False),
    ],
)
def test_a_list_is_read_up_to_its_first_entry_that_names_no_card(value, cards, hidden):
    assert hides_all(value, cards) == hidden


@pytest.mark.parametrize(
    ("level", "codes", "new"),
    [
        ("12.0", ("sm_50", "sm_90"), True),
        ("6.1", ("sm_75", "sm_120"), False),
        ("10.0", ("sm_75", "sm_90", "sm_120"), True),
        ("3.7", ("sm_50",), False),
    ],
)
def test_older_than_all_code_of_a_wheel_is_too_old(level, codes, new):
    assert too_new(level, codes) == new


@pytest.mark.parametrize(
    ("name", "package", "torch"),
    [
        ("torchvision", Package("0.28.0+cpu"), "==2.13.0"),
        ("torchvision", Package("0.28.0", requires=("numpy", "torch==2.12.9")), "==2.12.9"),
        ("torchvision", Package("0.29.2"), ">=2.14.0"),
        ("torchaudio", Package("2.11.0"), ">=2.11"),
        ("torchaudio", Package("2.7.1"), "==2.7.1"),
        ("torchaudio", Package("2.8.0.dev20250601"), ""),
        ("torchvision", Package("0.28.0", requires=("not a requirement ???",)), "==2.13.0"),
    ],
)
def test_its_own_metadata_counts_before_the_table(name, package, torch):
    assert made_for(WORLD, name, package) == torch


def test_builds():
    assert [vendor(b) for b in ("cu130", "rocm6.4", "xpu", "cpu", "")] == [
        "nvidia",
        "amd",
        "intel",
        "",
        "",
    ]
    assert [major(b) for b in ("cu126", "cu130", "rocm6.2.4", "cpu")] == [
        "cu12",
        "cu13",
        "rocm6",
        "cpu",
    ]
