"""Packs with clashing wishes: forty made-up ones on an index of wheels made here, and the two
cases that break real installations, on the default index."""

import json

import pytest

from doctor import sync
from tests.doctor.command import answer
from tests.doctor.test_verbs import comfyui, everything_else, online, shop, versions  # noqa: F401
from tests.doctor.wheels import wheel
from tests.lab.environments import healthy_environment

CLASHES = {  # library -> the two wishes that cannot be met together
    "einops": ("einops<0.7", "einops>=0.8"),
    "kornia": ("kornia==0.6", "kornia>=0.7"),
}


def pack(folder, name, *lines):
    place = folder / "custom_nodes" / name
    place.mkdir(parents=True)
    (place / "requirements.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def index(shop, online, monkeypatch):  # noqa: F811
    for name, value in online.items():
        monkeypatch.setenv(name, value)
    for library, releases in (("einops", ("0.6", "0.7", "0.8")), ("kornia", ("0.6", "0.7"))):
        for release in releases:
            wheel(shop, library, release)
    for number in range(20):
        wheel(shop, f"lib{number}", "1.0", *([f"lib{number - 1}"] if number else []))
        wheel(shop, f"lib{number}", "2.0")


def forty(comfyui, *more):  # noqa: F811
    for number in range(40 - len(more)):
        pack(comfyui, f"pack-{number:02}", f"lib{number % 20}", "torch", "alpha")
    for number, wish in enumerate(more):
        pack(comfyui, f"clash-{number}", wish)


def test_forty_packs_of_one_mind_are_met_with_torch_where_it_is(comfyui, index):  # noqa: F811
    forty(comfyui)
    words = ("node", "sync", "--comfyui", comfyui, "--yes")
    code, said = answer(*words)
    assert code == 0
    assert len([m for m in said["moves"] if m["name"].startswith("lib")]) == 20
    assert "torch-2.13.0+cpu" in versions(comfyui)
    code, again = answer(*words)
    assert (code, again["moves"]) == (0, [])


@pytest.mark.parametrize("library", CLASHES)
def test_each_clash_among_forty_is_named_rightly(comfyui, index, library):  # noqa: F811
    forty(comfyui, *CLASHES[library])
    before = everything_else(comfyui)
    code, said = answer("node", "sync", "--comfyui", comfyui, "--yes")
    assert code == 1
    assert {w["text"] for w in said["conflict"]["wishes"]} == set(CLASHES[library])
    assert set(said["conflict"]["yielding"]) == {"clash-0", "clash-1"}
    assert everything_else(comfyui) == before


@pytest.fixture
def real(tmp_path):
    """A checkout that is none of ComfyUI's, beside a real torch."""
    here = tmp_path / "ComfyUI"
    (here / "comfy").mkdir(parents=True)
    (here / "main.py").touch()
    healthy_environment(here / ".venv")
    return here


def test_a_pack_that_wants_accelerate_does_not_bring_another_torch(real):
    pack(real, "accelerated", "accelerate")
    code, said = answer("node", "sync", "--comfyui", real, "--dry-run")
    assert code == 0
    names = [move["name"] for move in said["moves"]]
    assert "accelerate" in names
    assert not [n for n in names if n == "torch" or n.startswith(("nvidia-", "triton"))]


def test_numpy_below_2_and_numpy_from_2_3_on_are_told_before_anything_changes(real):
    pack(real, "old", "numpy<2")
    pack(real, "new", "numpy>=2.3")
    code, said = answer("node", "sync", "--comfyui", real, "--yes")
    assert code == 1
    assert {w["text"] for w in said["conflict"]["wishes"]} == {"numpy<2", "numpy>=2.3"}
    assert "old" in said["conflict"]["yielding"], json.dumps(said)


def test_packs_are_listed_as_comfyui_would_import_them(tmp_path):
    for name in ("b", "a", "off.disabled", ".hidden", "__pycache__"):
        (tmp_path / "custom_nodes" / name).mkdir(parents=True)
    assert [p.name for p in sorted(sync.packs(tmp_path))] == ["a", "b"]
