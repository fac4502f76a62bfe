"""Requirements of a whole installation, met together, with torch where it is."""

import json
import subprocess
import sys
import venv
from dataclasses import replace

import pytest

from doctor import sync, uv
from doctor.facts import Facts, Package, Python
from doctor.manifest import world
from tests.doctor.command import answer, doctor
from tests.doctor.test_verbs import comfyui, everything_else, online, shop, versions  # noqa: F401
from tests.doctor.wheels import wheel


def pack(comfyui, name, text):  # noqa: F811
    folder = comfyui / "custom_nodes" / name
    folder.mkdir(parents=True)
    (folder / "requirements.txt").write_text(text)


@pytest.fixture
def index(shop, monkeypatch, online):  # noqa: F811
    """The folder of wheels as the whole index, for uv too."""
    for name, value in online.items():
        monkeypatch.setenv(name, value)
    wheel(shop, "numpy", "1.26.4")
    wheel(shop, "numpy", "2.4.0")
    wheel(shop, "wants_two", "1.0", "numpy>=2")
    wheel(shop, "opencv_python", "5.0")
    wheel(shop, "opencv_python_headless", "5.0")
    return online


def test_everybody_is_asked_core_first(comfyui):  # noqa: F811
    pack(comfyui, "b-pack", "alpha>=1\n")
    pack(comfyui, "a-pack.disabled", "nobody\n")
    (comfyui / "custom_nodes" / "c-pack").mkdir()
    (comfyui / "custom_nodes" / "c-pack" / "pyproject.toml").write_text(
        '[project]\nname = "c"\ndependencies = ["beta"]\n'
    )
    (comfyui / sync.OWN_FILE).write_text("alpha<9\n")
    found = [(w.pack, w.text) for w in sync.gather(comfyui) if w.kind == "requirement"]
    assert found == [
        ("", "torch"),
        ("", "alpha>=2"),
        ("", "alpha<9"),
        ("b-pack", "alpha>=1"),
        ("c-pack", "beta"),
    ]


def test_the_plan_says_from_to_and_by_whose_wish_and_is_carried_out(comfyui, index):  # noqa: F811
    pack(comfyui, "b-pack", "beta\n")
    words = ("node", "sync", "--comfyui", comfyui, "--yes")
    before = everything_else(comfyui)
    code, said = answer(*words)
    assert code == 0, json.dumps(said)
    assert said["moves"] == [
        {"name": "alpha", "from": "1.0", "to": "2.0", "wished": ["requirements.txt:2"]},
        {
            "name": "beta",
            "from": "",
            "to": "1.0",
            "wished": ["custom_nodes/b-pack/requirements.txt:1"],
        },
    ]
    assert versions(comfyui) == ["alpha-2.0", "beta-1.0", "torch-2.13.0+cpu"]
    code, again = answer(*words)
    assert (code, again["moves"], again["receipts"]) == (0, [], [])
    doctor("undo", "--comfyui", comfyui)
    assert everything_else(comfyui) == before


def test_a_conflict_names_both_wishes_and_who_could_give_way(comfyui, index):  # noqa: F811
    pack(comfyui, "old-pack", "numpy<2\n")
    pack(comfyui, "new-pack", "wants_two\nnumpy>=2.3\n")
    before = everything_else(comfyui)
    code, said = answer("node", "sync", "--comfyui", comfyui, "--yes")
    assert code == 1
    wished = {wish["where"] for wish in said["conflict"]["wishes"]}
    assert wished >= {
        "custom_nodes/old-pack/requirements.txt:1",
        "custom_nodes/new-pack/requirements.txt:2",
    }
    assert set(said["conflict"]["yielding"]) == {"old-pack", "new-pack"}
    assert everything_else(comfyui) == before


def test_a_pack_that_wants_another_torch_is_told_and_torch_stays(comfyui, index):  # noqa: F811
    pack(comfyui, "greedy-pack", "greedy\n")
    code, said = answer("node", "sync", "--comfyui", comfyui, "--yes")
    assert (code, said["conflict"]["yielding"]) == (1, ["greedy-pack"])
    assert "torch" in said["conflict"]["reasoning"]
    assert "torch-2.13.0+cpu" in versions(comfyui)


def test_one_opencv_serves_all_who_wish_for_any(comfyui, index):  # noqa: F811
    pack(comfyui, "a", "opencv-python-headless\n")
    pack(comfyui, "b", "opencv-python\n")
    code, said = answer("node", "sync", "--comfyui", comfyui, "--yes")
    assert code == 0
    assert [m["name"] for m in said["moves"] if "opencv" in m["name"]] == ["opencv-python"]


def test_numpy_stays_where_it_is_while_the_wishes_let_it(tmp_path, shop, index):  # noqa: F811
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = str(tmp_path / "env" / "bin" / "python")
    words = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "numpy==1.26.4"]
    subprocess.run(words, check=True)
    own = Python(site="site", version="3.11.7")
    facts = Facts(python=own, packages={"numpy": Package("1.26.4", "site")}, world=world())
    wish = tuple(sync.wishes.read("numpy\nalpha\n", "f"))
    assert [str(m.name) for m in sync.plan(python, facts, wish)] == ["alpha"]
    more = tuple(sync.wishes.read("wants_two\n", "f"))
    assert {m.name for m in sync.plan(python, facts, more)} == {"numpy", "wants-two"}


def test_uv_is_told_what_pip_is_configured_to_use(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    assert uv.handed_on()["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own.example/simple")
    assert "UV_DEFAULT_INDEX" not in uv.handed_on()


def test_what_uv_says_is_read():
    said = "Using Python 3.11\nWould install 1 package\n - numpy==1.26.4\n + numpy==2.4.6\n"
    outcome = uv.heard(said, 0)
    assert (outcome.come, outcome.go) == ({"numpy": "2.4.6"}, {"numpy": "1.26.4"})
    with pytest.raises(uv.Unsatisfiable, match="numpy<2 and numpy"):
        uv.heard(
            "error: No solution found\n  cause: Because you require numpy<2 and numpy>=2.3, we can"
            " conclude that your requirements are unsatisfiable.\n",
            1,
        )
    with pytest.raises(uv.ResolverFailed, match="on none of the indexes"):
        uv.heard("cause: Because xyz was not found in the package registry and you ...", 1)


def test_lines_that_are_not_followed_are_said(comfyui, index):  # noqa: F811
    pack(comfyui, "a", "git+https://github.com/o/r.git\n--index-url https://x.example\n")
    _, out, _ = doctor("node", "sync", "--comfyui", comfyui, "--yes")
    assert "custom_nodes/a/requirements.txt:1: git+https" in out
    assert "custom_nodes/a/requirements.txt:2: --index-url" in out


def test_included_files_are_wishes_and_bounds_with_their_own_place(comfyui, shop, index):  # noqa: F811
    """-r is followed, -c bounds, each with its own file and line; nothing outside is opened."""
    for release in ("1.0", "2.0"):
        wheel(shop, "gamma", release)
    pack(comfyui, "a", "-r more/extra.txt\n-c bounds.txt\n-r ../../../../etc/hosts\n")
    here = comfyui / "custom_nodes" / "a"
    (here / "more").mkdir()
    (here / "more" / "extra.txt").write_text("gamma\n-r ../requirements.txt\n")
    (here / "bounds.txt").write_text("gamma<2\n")
    found = {(w.where, w.kind, w.text) for w in sync.gather(comfyui) if w.pack == "a"}
    assert found == {
        ("custom_nodes/a/more/extra.txt:1", "requirement", "gamma"),
        ("custom_nodes/a/bounds.txt:1", "constraint", "gamma<2"),
        ("custom_nodes/a/requirements.txt:3", "option", "-r ../../../../etc/hosts"),
    }
    code, said = answer("node", "sync", "--comfyui", comfyui, "--yes")
    assert code == 0, json.dumps(said)
    assert {"name": "gamma", "from": "", "to": "1.0"}.items() <= said["moves"][1].items()
    pack(comfyui, "b", "gamma>=2\n")
    code, said = answer("node", "sync", "--comfyui", comfyui, "--yes")
    assert code == 1
    assert {w["where"] for w in said["conflict"]["wishes"]} >= {
        "custom_nodes/a/bounds.txt:1",
        "custom_nodes/b/requirements.txt:1",
    }


def test_a_dependency_brings_no_second_opencv(comfyui, shop, index):  # noqa: F811
    wheel(shop, "sees", "1.0", "opencv-python>=4")
    pack(comfyui, "a", "opencv-python-headless\n")
    pack(comfyui, "b", "sees\n")
    code, said = answer("node", "sync", "--comfyui", comfyui, "--yes")
    assert code == 0, json.dumps(said)
    names = [move["name"] for move in said["moves"]]
    assert [n for n in names if "opencv" in n] == ["opencv-python-headless"]
    assert "sees-1.0" in versions(comfyui)
    code, again = answer("node", "sync", "--comfyui", comfyui, "--yes")
    assert (code, again["moves"]) == (0, [])


def test_numpy_1_stays_for_a_module_that_was_built_for_it(tmp_path, shop, index):  # noqa: F811
    """Its metadata allows numpy 2; its machine code does not."""
    old = Package("4.8.0.76", "site")
    facts = Facts(
        python=Python(site="site", version="3.11.7"),
        packages={"opencv-python": old, "numpy": Package("1.26.4", "site")},
        world=world(),
    )
    assert list(sync.built_for_1(facts)) == ["opencv-python 4.8.0.76"]
    assert sync.below_2(facts) == ("numpy<2",)
    newer = replace(facts, python=replace(facts.python, version="3.13.1"))
    assert sync.below_2(newer) == (), "there is no numpy 1 for it"
    assert sync.below_2(replace(facts, packages={"opencv-python": Package("4.12.0.88")})) == ()


def test_an_address_is_met_or_told_with_its_command(comfyui, index):  # noqa: F811
    text = "git+https://github.com/o/alpha.git#egg=alpha\nnew @ git+https://github.com/o/new\n"
    pack(comfyui, "a", text)
    _, out, _ = doctor("node", "sync", "--comfyui", comfyui, "--dry-run")
    assert "egg=alpha: version 1.0 is there and stays" in out
    assert "pip install --no-deps 'new @ git+https://github.com/o/new'" in out


def test_the_lock_is_written_after_a_sync(comfyui, index):  # noqa: F811
    pack(comfyui, "b-pack", "beta\n")
    assert answer("node", "sync", "--comfyui", comfyui, "--yes")[0] == 0
    lock = json.loads((comfyui / ".comfy-doctor" / "comfy-doctor.lock").read_text())
    assert {"alpha", "beta"} <= {one["name"] for one in lock["packages"]}
