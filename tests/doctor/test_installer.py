"""pip at work in another interpreter: what it may touch."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from doctor import installer
from tests.doctor.wheels import wheel


@pytest.fixture
def whole(tmp_path):
    """A Python that is no venv: this one's program and library, with site-packages of its own."""
    library = Path(sysconfig.get_path("stdlib"))
    place = tmp_path / "whole" / library.relative_to(sys.base_prefix)
    place.mkdir(parents=True)
    for entry in library.iterdir():
        if entry.name not in ("site-packages", "dist-packages", "EXTERNALLY-MANAGED"):
            (place / entry.name).symlink_to(entry)
    (place / "site-packages").mkdir()
    python = tmp_path / "whole" / "bin" / library.name
    python.parent.mkdir()
    shutil.copy2(os.path.realpath(sys.executable), python)
    asked = subprocess.run(
        [str(python), "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True
    )
    if asked.stdout.strip() != str(tmp_path / "whole"):
        pytest.skip(f"this Python does not run from another place: {asked.stdout}{asked.stderr}")
    return python


def test_the_site_folder_of_the_user_is_left_alone(whole, tmp_path, monkeypatch):
    """It is in no snapshot: what pip took out of it could not be brought back."""
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "user"))
    old, new = (wheel(tmp_path, "alpha", version) for version in ("1.0", "2.0"))
    words = [*installer.pip(str(whole)), "install", "--quiet", "--user", "--no-index", str(old)]
    subprocess.run(words, check=True, capture_output=True)
    assert len(list((tmp_path / "user").rglob("alpha-1.0.dist-info"))) == 1
    coming = installer.Wheel("alpha", "2.0", new.as_uri())
    installer.change(str(whole), [coming], [], lambda _: None)
    installer.change(str(whole), [], ["alpha"], lambda _: None)
    assert len(list((tmp_path / "user").rglob("alpha-1.0.dist-info"))) == 1
    assert not list((tmp_path / "whole").rglob("alpha-*.dist-info"))
