"""setup without GitHub: ComfyUI from an archive, a folder or an address of somebody's own."""

import json
import zipfile

import pytest

from tests.doctor.test_nodes import doctor, host, publish
from tests.doctor.test_verbs import comfyui, online, shop

__all__ = ["comfyui", "host", "online", "shop"]
CORE = {
    "main.py": "import sys\nsys.exit('--fail' in sys.argv)\n",
    "comfy/__init__.py": "",
    "comfyui_version.py": '__version__ = "0.4.0"\n',
    "requirements.txt": "alpha>=2\n",
}


@pytest.fixture
def core(tmp_path):
    here = tmp_path / "ComfyUI-master"
    for name, text in CORE.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    return here


def set_up(folder, source, *more, **online):
    code, out, _ = doctor(
        "setup", folder, "--source", source, "--dry-run", "--json", *more, **online
    )
    return code, json.loads(out)


def steps(said, fix="get-comfyui"):
    return next((row for row in said["plan"] if row["fix"] == fix), {})


@pytest.mark.parametrize("kind", ["folder", "zip", "nested zip", "address"])
def test_comfyui_comes_from_where_the_user_says(core, host, tmp_path, online, kind, monkeypatch):
    source, target = str(core), tmp_path / "new"
    if "zip" in kind:
        source = str(tmp_path / "core.zip")
        around = "ComfyUI-master/ComfyUI-master/" if kind == "nested zip" else "ComfyUI-master/"
        with zipfile.ZipFile(source, "w") as file:
            for name, text in CORE.items():
                file.writestr(around + name, text)
    if kind == "address":
        publish(host.root, "Core", CORE)
        source = f"{host.url}/o/Core"
    monkeypatch.chdir(tmp_path)
    code, said = set_up(target, source, **online)
    assert not target.exists(), "a dry run makes no folder"
    target.mkdir()
    (step,) = steps(said)["steps"]
    assert step.startswith(f"put {source}")
    words = ("fix", "comfyui-missing", "--comfyui", target, "--json")
    code, out, _ = fetched(target, source, online)
    assert (target / "main.py").read_text() == CORE["main.py"], (code, out, words)
    assert not (target / "ComfyUI-master").exists()


def fetched(target, source, online):
    """The first treatment of a set-up alone: the rest would bring a real torch."""
    from doctor import options
    from doctor.screen import Screen
    from doctor.verbs import treatment

    args = options.parser().parse_args(["setup", str(target), "--source", source, "--yes"])
    args.comfyui, args.ids = str(target), ["comfyui-missing"]
    return treatment.fix(args, Screen("en", True)), "", ""


def test_what_is_no_comfyui_is_taken_back(host, tmp_path, online):
    source, target = tmp_path / "other.zip", tmp_path / "new"
    with zipfile.ZipFile(source, "w") as file:
        file.writestr("readme.txt", "nothing")
    target.mkdir()
    code, _, _ = fetched(target, str(source), online)
    assert (code, sorted(p.name for p in target.iterdir())) == (1, [".comfy-doctor"])


def test_a_source_that_is_none(tmp_path):
    code, said = set_up(tmp_path / "new", "nothing-there.zip")
    assert (code, "nothing-there.zip" in str(said["error"])) == (2, True)


@pytest.mark.parametrize("name", ["", " "])
def test_no_name_is_not_the_folder_one_stands_in(name):
    code, said = set_up(name, "https://example.org/comfyui.zip")
    assert (code, "the name of a folder" in str(said["error"])) == (2, True)


def test_a_file_is_no_folder_to_set_up(tmp_path):
    (tmp_path / "file").write_text("mine")
    code, said = set_up(tmp_path / "file", "https://example.org/comfyui.zip")
    assert (code, (tmp_path / "file").read_text()) == (2, "mine")
    assert "name a new or an empty one: comfy-doctor setup" in str(said["error"])


@pytest.mark.parametrize("fault", ["", "raise SystemExit('no such module')"])
def test_what_was_set_up_is_started_once_and_its_log_kept(comfyui, fault, monkeypatch):
    """The treatment itself would bring a real torch: its answer stands in for it."""
    done = (
        {"left": ["port-in-use"], "rolled_back": {}} if fault else {"left": [], "rolled_back": {}}
    )
    monkeypatch.setattr("doctor.verbs.treatment.fixed", lambda args, screen: dict(done))
    (comfyui / "main.py").write_text(
        "import sys\n"
        f"{fault}\n"
        "assert '--quick-test-for-ci' in sys.argv and '--cpu' in sys.argv\n"
        "print('Import times for custom nodes:\\n   0.2 seconds: /x/custom_nodes/Pack')\n"
    )
    pack = comfyui / "custom_nodes" / "Pack"
    pack.mkdir()
    (pack / "__init__.py").touch()
    code, out, err = doctor("setup", comfyui, "--yes", "--json", "--offline")
    start = json.loads(out)["start"]
    assert (start["tried"], start["error"]) == (True, "no such module" if fault else ""), err
    assert code == (1 if fault else 0)
    if not fault:
        _, out, _ = doctor("node", "list", "--comfyui", comfyui, "--json")
        assert json.loads(out)["packs"][0]["last_start"]["seconds"] == 0.2


@pytest.mark.parametrize("more", [("--no-start",), ()])
def test_no_start_where_it_is_not_wanted_or_would_only_fail(tmp_path, more):
    code, out, _ = doctor("setup", tmp_path / "empty", "--json", "--offline", *more)
    said = json.loads(out)
    assert (code, said["start"]["tried"]) == (1, False)
    assert ("comfyui-missing" in said["start"]["why"]) != bool(more)
