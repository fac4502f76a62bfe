"""An environment written down, and made again elsewhere by its hashes."""

import json
import os
import shutil

import pytest

from doctor import lock
from doctor.facts import Facts, Package, Python, Target
from doctor.lock import BadLock
from tests.doctor.command import answer, doctor
from tests.doctor.test_verbs import comfyui, online, shop, versions  # noqa: F401
from tests.doctor.wheels import wheel


def written(comfyui):  # noqa: F811
    return comfyui / ".comfy-doctor" / lock.NAME


def treated(comfyui, online):  # noqa: F811
    assert (
        answer("fix", "core-requirement-version", "--comfyui", comfyui, "--yes", **online)[0] == 0
    )
    return json.loads(written(comfyui).read_text())


def test_a_success_is_written_down_with_the_hash_of_everything(comfyui, online):  # noqa: F811
    index = {"PIP_INDEX_URL": "https://me:secret@mirror.example/simple"}
    said = treated(comfyui, online | index)
    assert said["index"] == "https://mirror.example/simple", "and no password"
    assert [(p["name"], p["version"]) for p in said["packages"]] == [
        ("alpha", "2.0"),
        ("torch", "2.13.0+cpu"),
    ]
    assert all(len(p["sha256"]) == 64 for p in said["packages"])
    assert (said["torch"], said["build"]) == ("2.13.0+cpu", "cpu")


def test_the_same_environment_is_made_elsewhere(comfyui, tmp_path, online):  # noqa: F811
    treated(comfyui, online)
    other = tmp_path / "other"
    other.mkdir()
    words = ("fix", "--from-lock", written(comfyui), "--comfyui", other, "--yes")
    code, said = answer(*words, **online)
    assert (code, len(said["receipts"])) == (0, 1), said
    there = [v for v in versions(other) if not v.startswith(("pip-", "setuptools-"))]
    assert there == versions(comfyui)
    code, again = answer(*words, **online)
    assert (code, again["receipts"]) == (0, [])


def test_bytes_with_another_hash_are_refused(comfyui, tmp_path, online):  # noqa: F811
    treated(comfyui, online)
    evil = tmp_path / "evil"
    wheel(evil, "alpha", "2.0", files={"alpha/evil.py": "1"})
    shutil.copy(next(iter_torch(online)), evil)
    other = tmp_path / "other"
    other.mkdir()
    words = ("fix", "--from-lock", written(comfyui), "--comfyui", other, "--yes")
    code, said = answer(*words, **(online | {"PIP_FIND_LINKS": str(evil)}))
    assert code == 1
    assert "alpha" in str(said["refused"]) + str(said["rolled_back"])
    assert not (other / ".venv").exists()


def iter_torch(online):  # noqa: F811
    folder = online["PIP_FIND_LINKS"]
    yield from (os.path.join(folder, n) for n in os.listdir(folder) if n.startswith("torch-2.13"))


def test_what_is_no_lock_or_not_for_this_python_is_refused(tmp_path):
    for text in ("", "[]", "{}", '{"schema": "comfy-doctor.lock/1", "python": 3}'):
        (tmp_path / "l").write_text(text)
        with pytest.raises(BadLock):
            lock.read(tmp_path / "l")
    here = Facts(target=Target(python="py"), python=Python(version="3.11.7"), packages={})
    of_312 = lock.Lock("", "3.12.1", "", "", "", {}, ())
    with pytest.raises(BadLock, match=r"3\.12\.1; this is 3\.11\.7"):
        lock.missing(of_312, here)
    bare = lock.Lock("", "3.11.2", "", "", "", {}, (lock.Locked("a", "1"),))
    with pytest.raises(BadLock, match="no hash for a"):
        lock.missing(bare, here)
    assert (
        lock.missing(bare, Facts(here.target, python=here.python, packages={"a": Package("1")}))
        == ()
    )


def test_a_missing_lock_file_is_one_sentence(comfyui):  # noqa: F811
    code, _, err = doctor("fix", "--from-lock", "nowhere", "--comfyui", comfyui, "--yes")
    assert (code, "nowhere" in err) == (2, True)
