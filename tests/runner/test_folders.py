"""Names in a graph: found where they belong, and never outside."""

import pytest

from runner.folders import Folders, next_name
from runner.recipe import Refused


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "models/vae/sub").mkdir(parents=True)
    (tmp_path / "models/vae/sub/a.pt").write_bytes(b"")
    return Folders.of(tmp_path)


def test_a_model_is_found_by_either_slash_and_what_is_there_is_listed(folders):
    assert folders.model("vae", "sub/a.pt") == folders.model("vae", "sub\\a.pt")
    with pytest.raises(Refused, match=r"there: sub/a\.pt"):
        folders.model("vae", "b.pt")


def test_a_picture_may_be_asked_from_another_folder(folders, tmp_path):
    assert folders.picture("a.png") == tmp_path / "input/a.png"
    assert folders.picture("x/a.png [output]") == tmp_path / "output/x/a.png"
    assert folders.picture("a.png[temp]") == tmp_path / "temp/a.png"


@pytest.mark.parametrize(
    "name", ["../a", "/a", "a/../../b", "C:\\a", "C:a", "..\\a", "", ".", "a\0b"]
)
def test_no_name_leads_outside(folders, name):
    for find in (folders.picture, lambda name: folders.model("vae", name)):
        with pytest.raises(Refused) as caught:
            find(name)
        assert caught.value.id == "name-leads-outside"


def test_pictures_are_counted_on_from_the_largest_there(tmp_path):
    for name in ("a_00003_.png", "a_7x_.png", "ab_00009_.png", "a_2"):
        (tmp_path / name).write_bytes(b"")
    assert next_name(tmp_path, "a", 8, 8) == (tmp_path / "a", 4)
    assert next_name(tmp_path, "new/b", 8, 8) == (tmp_path / "new/b", 1)
    path, _ = next_name(tmp_path, "%width%x%height%-%year%", 8, 16)
    assert path.name.startswith("8x16-20")
