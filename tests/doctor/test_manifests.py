import re
import subprocess
import sys
from dataclasses import fields

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from doctor.choice import cuda_version
from doctor.facts import numbers
from doctor.manifest import TABLES, World, read, world
from manifests import FOLDER

WORLD = world()
ROWS = [(name, row) for name in TABLES for row in getattr(WORLD, name)]
KINDS = {"clone", "archive", "raw", "wheels", "find-links", "index", "models"}
HALVES = (("py", "pi.org"), ("python", "hosted"), ("deb.", "debian"), ("npm", "js"))
REGISTRIES = tuple("".join(halves) for halves in HALVES)  # so that they have no name here either


def test_every_table_is_loaded():
    assert TABLES.keys() == {field.name for field in fields(World)}
    assert all(getattr(WORLD, name) for name in TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_a_reason_a_source_and_a_day(name):
    for row in getattr(WORLD, name):
        assert row.why
        assert all(row.source)
        assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", row.checked)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.toml")), ids=lambda path: path.stem)
def test_no_registry_is_named(path):
    text = path.read_text(encoding="utf-8")
    assert not [host for host in REGISTRIES if host in text]


@pytest.mark.parametrize("file", sorted({file for file, _, _ in TABLES.values()}))
def test_no_source_is_listed_that_nothing_rests_on(file):
    tables = [table for name, table, _ in TABLES.values() if name == file]
    said = read(FOLDER / f"{file}.toml")
    rows = [
        row for table in tables for row in (*said[table], said.get("defaults", {}).get(table, {}))
    ]
    assert {name for row in rows for name in row.get("source", "").split()} == said[
        "sources"
    ].keys()


def test_mirrors():
    assert len({mirror.name for mirror in WORLD.mirrors}) == len(WORLD.mirrors)
    for mirror in WORLD.mirrors:
        assert mirror.kind in KINDS
        assert mirror.at.startswith("https://")
        if mirror.kind == "index":
            assert mirror.of == ""
            assert "{" not in mirror.at
        else:
            assert mirror.of.startswith("https://")
            assert mirror.of.endswith("/"), "else paths run together"
            assert ("{path}" in mirror.at) != ("{url}" in mirror.at)


def test_routes_start_with_the_original():
    url = "https://github.com/a/b.git"
    first, *rest = WORLD.routes(url, "clone")
    assert first == url
    assert "https://ghfast.top/https://github.com/a/b.git" in rest
    assert "https://gitclone.com/github.com/a/b.git" in rest
    assert WORLD.routes("https://elsewhere.example/x", "clone") == ("https://elsewhere.example/x",)


def test_releases_are_newest_first_and_complete():
    versions = [numbers(release.torch) for release in WORLD.releases]
    assert versions == sorted(versions, reverse=True)
    assert len(set(versions)) == len(versions)
    known = {family.build for family in WORLD.families}
    for release in WORLD.releases:
        assert set(release.cuda) <= known
        assert release.default in known
        assert bool(release.cuda) == release.confirmed
        assert all(re.fullmatch(r"3\.\d+t?", python) for python in release.python)
        Version(release.torchvision)
        Version(release.torchaudio)


def test_every_build_of_a_release_is_known_to_hold_code_for_some_card():
    for release in WORLD.releases:
        minor = ".".join(release.torch.split(".")[:2])
        for build in release.cuda:
            rows = [a for a in WORLD.arches if a.cuda == build and minor in a.torch]
            assert any(a.os == "linux" for a in rows), f"{release.torch} {build}"


def test_one_list_of_cards_for_each_wheel():
    keys = [(a.cuda, a.os, a.machine, minor) for a in WORLD.arches for minor in a.torch]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"\d{2,3}", code) for a in WORLD.arches for code in (*a.sm, *a.ptx))


def test_what_a_companion_asks_for_holds_for_its_release():
    rules = {(c.package, c.version): SpecifierSet(c.torch) for c in WORLD.companions}
    for release in WORLD.releases:
        for name in ("torchvision", "torchaudio"):
            rule = rules.get((name, getattr(release, name)))
            assert rule is None or release.torch in rule


def test_the_pinned_torch_is_a_confirmed_release():
    (pin,) = (pin for pin in WORLD.pins if pin.name == "runner")
    assert pin.torch == "2.13.0"
    assert any(r.torch == pin.torch and r.confirmed for r in WORLD.releases)


def test_families():
    cudas = [numbers(family.cuda) for family in WORLD.families]
    assert cudas == sorted(cudas, reverse=True)
    for family in WORLD.families:
        assert family.cuda == cuda_version(family.build)
        assert family.index == f"https://download.pytorch.org/whl/{family.build}"
        assert family.windows == "-" or numbers(family.windows)


def test_driver_floors_fall_with_cuda():
    for system in ("linux", "windows"):
        floors = [numbers(getattr(row, system)) for row in WORLD.driver_floors]
        assert floors == sorted(floors, reverse=True)


def test_every_rocm_build_has_its_cards():
    held = {backend.build for backend in WORLD.backends}
    recent = [r for r in WORLD.releases if numbers(r.torch) >= (2, 6)]
    assert {build for r in recent for build in r.rocm} <= held


def test_cards():
    names = [name for card in WORLD.cards for name in card.names]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"\d+\.\d", card.capability) for card in WORLD.cards)
    for rule in WORLD.cuda_malloc:
        assert "GeForce GTX 1650" in rule.names
        assert not any(re.search(f, "Device: cuda:0 X : cudaMallocAsync") for f in rule.faults)
        assert any(re.search(f, "CUDA error: operation not supported") for f in rule.faults)


def test_numpy():
    assert {row.built for row in WORLD.numpy_abi} == {"1", "2", "other"}
    for row in WORLD.numpy_removed:
        re.compile(row.text)
    assert any(
        re.search(r.text, "module 'numpy' has no attribute 'bool'") for r in WORLD.numpy_removed
    )
    assert len({row.module for row in WORLD.numpy_builds}) == len(WORLD.numpy_builds)


def test_floors_of_comfyui_rise():
    for what in ("python", "numpy", "torch"):
        rows = [row for row in WORLD.floors if row.what == what]
        assert rows == sorted(rows, key=lambda row: numbers(row.since))
        assert rows == sorted(rows, key=lambda row: numbers(row.least))


def test_limits_and_months():
    known = "installation temp cache models output entries paging memory spare unpacked slower"
    assert {limit.what for limit in WORLD.limits} == set(known.split())
    assert all(limit.error < limit.warning for limit in WORLD.limits)
    assert all(re.fullmatch(r"20\d\d-[01]\d", python.ends) for python in WORLD.pythons)


def test_loading_everything_is_cheap():
    """Level 1 promises a second in all. A child, so that nothing is cached; the best of five."""
    code = (
        "import time; from doctor.manifest import world; s = time.process_time(); world(); "
        "print(time.process_time() - s)"
    )
    asked = [sys.executable, "-c", code]
    root = FOLDER.parent
    times = [float(subprocess.check_output(asked, cwd=root)) for _ in range(5)]
    assert min(times) < 0.03
