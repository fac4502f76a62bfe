"""A disk that runs full in the middle, and a folder that may not be written to."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from doctor import installer
from tests.doctor.command import answer, doctor
from tests.doctor.wheels import wheel
from tests.lab.kills import doctor as start
from tests.lab.kills import held, patient, version, wait_for

MB = 1 << 20


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    """An index whose new release needs more room than the old one."""
    folder = tmp_path_factory.mktemp("heavy")
    for release, count in (("1.0", 4), ("2.0", 8)):
        files = {f"alpha/part{n}.py": f"# {release} {n}\n" * (MB // 8) for n in range(count)}
        wheel(folder, "alpha", release, files=files)
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}


@pytest.fixture
def small_disk(tmp_path):
    """mount(size in MB) -> a folder on a tmpfs of that size."""
    mounted = []

    def mount(size: int) -> Path:
        place = tmp_path / f"disk{size}"
        place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(place)]
        if subprocess.run(words, capture_output=True).returncode:
            pytest.skip("a small disk can only be mounted by root")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], capture_output=True)


def test_too_small_a_disk_is_said_before_anything_is_fetched_or_changed(small_disk, heavy):
    here = patient(small_disk(72), heavy)
    before = held(here)
    words = ("fix", "core-requirement-version", "--comfyui", here, "--yes")
    code, said = answer(*words, **heavy)
    assert (code, said["receipts"]) == (1, [])
    (why,) = said["refused"].values()
    assert "MB free" in why
    assert "unpacked" in why
    assert held(here) == before


def fill(place: Path) -> Path:
    """Somebody else's file takes all that is left."""
    path = place / "somebody-elses"
    with path.open("wb", buffering=0) as file:
        for size in (MB, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return path


@pytest.mark.parametrize(("event", "instant"), [("begin", 0), ("step", 0), ("step", 0.6)])
def test_a_disk_that_runs_full_in_the_middle(small_disk, heavy, event, instant):
    """Rolled back at once or, where even that needs room, by the next command that has it."""
    place = small_disk(160)
    here = patient(place, heavy)
    before = held(here)
    run = start(here, heavy, "fix", "core-requirement-version")
    wait_for(event, here, run)
    time.sleep(instant)
    others = fill(place)
    out = run.communicate()[0].decode()
    assert run.returncode in (0, 1, 2), out
    assert "Traceback" not in out
    if run.returncode:
        assert "space" in out or "free" in out
    doctor("undo", "--comfyui", here)  # the disk is still full
    others.unlink()
    doctor("undo", "--comfyui", here)
    assert held(here) == before
    assert version(here) == "1.0"


@pytest.fixture
def read_only(small_disk, heavy):
    place = small_disk(160)
    here = patient(place, heavy)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    return here


def test_a_folder_that_cannot_be_written_to_is_judged_and_a_fix_says_so(read_only, heavy):
    before = held(read_only)
    code, said = answer("check", "--comfyui", read_only, "--level", "1")
    assert code == 1
    assert "core-requirement-version" in [f["id"] for f in said["findings"]]
    words = ("fix", "core-requirement-version", "--comfyui", read_only, "--yes")
    code, _, err = doctor(*words, **heavy)
    assert code in (1, 2)
    assert "Read-only file system" in err
    assert "Traceback" not in err
    assert held(read_only) == before


def test_an_index_that_dies_in_the_middle_changes_nothing(tmp_path, heavy):
    """The second wheel of a plan does not arrive: nothing of the first is installed either."""
    from tests import internet

    here = patient(tmp_path, heavy)
    root = tmp_path / "files"
    root.mkdir()
    source = Path(heavy["PIP_FIND_LINKS"]) / "alpha-2.0-py3-none-any.whl"
    (root / source.name).write_bytes(source.read_bytes())
    before = held(here)
    host = internet.Host(root, file=internet.cut(100_000))
    try:
        wheels = (installer.Wheel("alpha", "2.0", f"{host.url}/{source.name}", "0" * 64),)
        with pytest.raises(installer.CannotInstall, match=r"alpha-2\.0"):
            installer.change(str(here / ".venv/bin/python"), wheels, (), lambda what: None)
    finally:
        host.close()
    assert held(here) == before
