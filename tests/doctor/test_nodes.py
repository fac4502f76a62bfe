"""Node packs in and out of small real installations: whole or not at all, and every way back."""

import hashlib
import io
import json
import os
import shutil
import time
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from doctor import fetch, installer, uv
from doctor.cli import main
from doctor.manifest import Mirror, world
from doctor.verbs.node import AT_ONCE
from tests import internet
from tests.doctor.test_snapshot import tree
from tests.doctor.test_verbs import comfyui, everything_else, online, shop, versions

__all__ = ["comfyui", "online", "shop"]


@pytest.fixture
def host(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "internet"
    root.mkdir()
    here = internet.Host(root)
    yield here
    here.close()


def publish(root: Path, name: str, files: dict[str, str], moved: bool = False) -> str:
    """Commit these files to o/NAME on the host; the commit."""
    work, bare = root / "work" / name, root / "o" / f"{name}.git"
    if not work.exists():
        work.mkdir(parents=True)
        internet.git("init", "-q", "-b", "main", cwd=work)
    for path, text in {"__init__.py": "NODE_CLASS_MAPPINGS = {}\n", **files}.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text)
    internet.git("add", "-A", cwd=work)
    internet.git("commit", "-qm", name, "--allow-empty", cwd=work)
    if not bare.exists():
        bare.parent.mkdir(exist_ok=True)
        internet.git("clone", "-q", "--bare", str(work), str(bare), cwd=root)
        internet.git("config", "uploadpack.allowFilter", "true", cwd=bare)
    else:
        internet.git("push", "-q", str(bare), "main", cwd=work)
    return internet.git("rev-parse", "HEAD", cwd=work)


def release(host: internet.Host, id: str, version: str, files: dict[str, str]) -> None:
    """A version of a pack in the registry of the host."""
    project = f'[project]\nname = "{id}"\nversion = "{version}"\n[tool.comfy]\nPublisherId = "p"\n'
    archive = host.root / "cdn" / f"{id}-{version}" / "node.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as file:
        for name, text in {"__init__.py": "", "pyproject.toml": project, **files}.items():
            file.writestr(name, text)
    told = {"id": id, "version": version, "downloadUrl": f"{host.url}/cdn/{id}-{version}/node.zip"}
    place = host.root / "nodes" / id
    place.mkdir(parents=True, exist_ok=True)
    (place / "install").write_text(json.dumps(told))


def doctor(*words, **variables):
    """Exit code, stdout, stderr of the command, in this process (a start takes half a second)."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, variables), redirect_stdout(out), redirect_stderr(err):
        code = main([*map(str, words)])
    return code, out.getvalue(), err.getvalue()


def answer(*words, **variables):
    code, out, _ = doctor(*words, "--json", **variables)
    return code, json.loads(out)


def node(act, comfyui, *words, **variables):
    return answer("node", act, "--comfyui", comfyui, *words, **variables)


def install(comfyui, *words, **variables):
    return node("install", comfyui, "--yes", *words, **variables)


def live(comfyui):
    return sorted(path.name for path in (comfyui / "custom_nodes").iterdir())


def rows(comfyui):
    return {row["name"]: row for row in node("list", comfyui)[1]["packs"]}


# In


def test_several_at_once_by_address_id_archive_and_folder(comfyui, host, tmp_path, online):
    before = everything_else(comfyui)
    commit = publish(host.root, "Alpha", {"requirements.txt": "beta\n"})
    release(host, "comfyui-two", "1.0.2", {"two.py": "2"})
    internet.git(
        "archive", "-o", str(tmp_path / "Three.zip"), "main", cwd=host.root / "o/Alpha.git"
    )
    shutil.copytree(host.root / "work" / "Alpha", tmp_path / "Four", ignore=lambda *_: [".git"])
    registry = online | {"COMFY_REGISTRY": host.url}
    sources = [f"{host.url}/o/Alpha", "comfyui-two", tmp_path / "Three.zip", tmp_path / "Four"]
    code, said = install(comfyui, *sources, **registry)
    assert (code, said["failed"]) == (0, {})
    assert live(comfyui) == ["Alpha", "Four", "Three", "comfyui-two"]
    assert versions(comfyui) == ["alpha-1.0", "beta-1.0", "torch-2.13.0+cpu"]
    there = rows(comfyui)
    assert [there[n]["kind"] for n in live(comfyui)] == ["git", "archive", "archive", "registry"]
    assert (there["Alpha"]["commit"], there["comfyui-two"]["version"]) == (commit, "1.0.2")
    tracked = (comfyui / "custom_nodes/comfyui-two/.tracking").read_text().split()
    assert tracked == ["__init__.py", "pyproject.toml", "two.py"]
    assert len(said["receipts"]) == 1
    assert doctor("undo", "--comfyui", comfyui, "--offline")[0] == 0
    assert everything_else(comfyui) == before


def test_one_that_cannot_be_had_does_not_keep_the_others(comfyui, host, online):
    publish(host.root, "Good", {})
    publish(host.root, "Greedy", {"requirements.txt": "greedy\n"})
    sources = [f"{host.url}/o/{name}" for name in ("Good", "Greedy", "Gone")]
    code, said = install(comfyui, *sources, **online)
    assert (code, live(comfyui)) == (1, ["Good"])
    assert "torch" in said["failed"]["Greedy"]
    assert "does not exist" in said["failed"][f"{host.url}/o/Gone"]
    assert list((comfyui / ".comfy-doctor" / "staging").iterdir()) == []


def test_requirements_do_not_break_what_another_pack_has(comfyui, host, online):
    publish(host.root, "First", {"requirements.txt": "alpha<2\n"})
    publish(host.root, "Second", {"requirements.txt": "alpha>=2\n"})
    (comfyui / "requirements.txt").write_text("")
    assert install(comfyui, f"{host.url}/o/First", **online)[0] == 0
    code, said = install(comfyui, f"{host.url}/o/Second", **online)
    assert (code, live(comfyui)) == (1, ["First"])
    assert "alpha" in said["failed"]["Second"]
    assert "alpha-1.0" in versions(comfyui)


def test_the_folder_is_called_as_the_registry_calls_it(comfyui, host, online):
    named = '[project]\nname = "my-pack"\nversion = "1"\n[tool.comfy]\nPublisherId = "me"\n'
    publish(host.root, "ComfyUI_MyPack", {"pyproject.toml": named})
    code, _ = install(comfyui, f"{host.url}/o/ComfyUI_MyPack", **online)
    assert (code, live(comfyui)) == (0, ["my-pack"])
    assert (comfyui / "custom_nodes/my-pack/.git/.cnr-id").read_text() == "my-pack"
    code, said = install(comfyui, f"{host.url}/o/ComfyUI_MyPack", **online)
    assert (code, "is there already" in str(said["failed"])) == (1, True)
    shutil.rmtree(comfyui / "custom_nodes" / "my-pack")
    assert install(comfyui, f"{host.url}/o/ComfyUI_MyPack", "--name", "Mine", **online)[0] == 0
    assert live(comfyui) == ["Mine"]


def test_an_id_that_nobody_has_and_a_registry_that_is_away(comfyui, host, online):
    registry = online | {"COMFY_REGISTRY": host.url}
    code, said = install(comfyui, "nobody-has-it", **registry)
    assert (code, "has no node pack nobody-has-it" in str(said["failed"])) == (1, True)
    away = online | {"COMFY_REGISTRY": internet.nobody()}
    code, said = install(comfyui, "some-pack", **away)
    assert (code, "github.com/OWNER/NAME" in str(said["failed"])) == (1, True)
    publish(host.root, "Some", {})
    rows = [{"id": "some-pack", "reference": f"{host.url}/o/Some", "files": []}]
    listed = comfyui / "custom_nodes/ComfyUI-Manager/custom-node-list.json"
    listed.parent.mkdir()
    listed.write_text(json.dumps({"custom_nodes": rows}))
    assert install(comfyui, "some-pack", **away)[0] == 0
    assert "some-pack" in live(comfyui)


def test_refusals_are_in_the_language_that_is_asked_for(comfyui, host, tmp_path, online):
    publish(host.root, "Pack", {})
    install(comfyui, f"{host.url}/o/Pack", **online)
    (tmp_path / "page.zip").write_text("<html>")
    for words, said in (
        (("install", f"{host.url}/o/Gone"), "不存在或是私有仓库"),
        (("install", tmp_path / "page.zip"), "请给出节点包目录的压缩包"),
        (("install", f"{host.url}/o/Pack"), "已存在"),
        (("install", "o/p"), "找不到"),
        (("remove", "Nobody"), "没有节点包 Nobody；现有：Pack"),
    ):
        _, out, err = doctor(
            "node", *words, "--comfyui", comfyui, "--yes", "--lang", "zh", **online
        )
        assert said in out + err


def test_an_archive_of_another_pack_is_not_proved(comfyui, host, online):
    release(host, "wanted", "1.0", {"pyproject.toml": '[project]\nname = "other"\n'})
    code, said = install(comfyui, "wanted", COMFY_REGISTRY=host.url, **online)
    assert (code, "calls itself other" in str(said["failed"]), live(comfyui)) == (1, True, [])


def test_install_scripts_are_named_and_run_only_when_asked_for(comfyui, host, online):
    script = "import pathlib\npathlib.Path('ran').write_text('x')\n"
    publish(host.root, "Scripted", {"install.py": script})
    code, out, _ = doctor(
        "node", "install", f"{host.url}/o/Scripted", "--comfyui", comfyui, "--yes", **online
    )
    pack = comfyui / "custom_nodes" / "Scripted"
    assert (code, "was not run" in out, (pack / "ran").exists()) == (0, True, False)
    doctor("undo", "--comfyui", comfyui)
    assert install(comfyui, f"{host.url}/o/Scripted", "--run-install-scripts", **online)[0] == 0
    assert (pack / "ran").exists()


def test_a_dry_run_leaves_nothing(comfyui, host, online):
    publish(host.root, "Pack", {})
    before = tree(comfyui)
    code, said = node("install", comfyui, f"{host.url}/o/Pack", "--dry-run", **online)
    assert (code, said["receipts"], said["failed"]) == (0, [], {})
    assert said["plan"]
    install(comfyui, f"{host.url}/o/Pack", **online)
    assert node("remove", comfyui, "Pack", "--dry-run")[0] == 0
    assert live(comfyui) == ["Pack"]
    doctor("undo", "--comfyui", comfyui)
    shutil.rmtree(comfyui / ".comfy-doctor")
    assert tree(comfyui) == before


def test_ten_at_once(comfyui, host, online):
    for number in range(10):
        publish(host.root, f"P{number}", {"a.py": f"a = {number}\n"})
    start = time.monotonic()
    code, _ = install(comfyui, *(f"{host.url}/o/P{number}" for number in range(10)), **online)
    assert (code, live(comfyui)) == (0, [f"P{number}" for number in range(10)])
    assert time.monotonic() - start < 30
    late = 2  # answers that the host still counts although the doctor has them already
    assert 1 < host.peak <= AT_ONCE + late, "side by side, and no storm"


def test_within_five_seconds_while_the_origin_is_silent(comfyui, host, online, monkeypatch):
    """The whole command with its own patience: the user's own endpoint hangs, a mirror has 5 MB."""
    commit = publish(host.root, "Pack", {"big.bin": os.urandom(2_500_000).hex()})
    silent = internet.Host(host.root, all=internet.hang)
    rules = (f"url.{silent.url}/.insteadOf", f"{host.url}/")
    config = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": rules[0], "GIT_CONFIG_VALUE_0": rules[1]}
    try:
        start = time.monotonic()
        code, said = install(comfyui, f"{host.url}/o/Pack@{commit}", **config, **online)
        spent = time.monotonic() - start
    finally:
        silent.close()
    assert (code, said["route"], said["proven"]) == (0, "origin", True)
    assert spent < 8, "of which the start of the command, twice looking, and a busy machine"


def shelf(root: Path, wheels: Path) -> None:
    """A package index (PEP 503) of these wheels below ROOT/simple."""
    for path in wheels.glob("*.whl"):
        place = root / "simple" / path.name.partition("-")[0]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / path.name)
        with (place / "index.html").open("a") as page:
            page.write(f'<a href="{path.name}">{path.name}</a>\n')


def test_an_index_that_lags_behind_is_noticed_and_a_mirror_asked(
    comfyui, host, shop, tmp_path, monkeypatch
):
    """Only where the unproven is allowed: a mirror's page is no proof of a wheel."""
    publish(host.root, "Pack", {"requirements.txt": "beta==1.0\n"})
    shelf(host.root, shop)
    lagging, gone = internet.Host(tmp_path), internet.nobody()
    about = {"of": "", "kind": "index", "why": "a test", "source": ("here",), "checked": "now"}
    ats = (f"{gone}/simple", f"{host.url}/simple")
    mirrors = tuple(Mirror(name=at, at=at, region="", **about) for at in ats)
    monkeypatch.setattr("doctor.examine.world", lambda: replace(world(), mirrors=mirrors))
    index = {"PIP_INDEX_URL": f"{lagging.url}/simple", "PIP_CONFIG_FILE": os.devnull}
    code, said = install(comfyui, f"{host.url}/o/Pack", **index)
    assert (code, live(comfyui)) == (1, [])
    assert "beta==1.0" in said["failed"]["Pack"]
    code, said = install(comfyui, f"{host.url}/o/Pack", "--allow-unproven", **index)
    lagging.close()
    assert (code, live(comfyui)) == (0, ["Pack"]), said["failed"]
    assert "beta-1.0" in versions(comfyui)
    (written,) = comfyui.rglob("comfy-doctor.lock")
    kept = json.loads(written.read_text())
    assert ("beta", "1.0") in [(one["name"], one["version"]) for one in kept["packages"]]
    assert set(kept["nodes"]) == {"Pack"}


def test_an_index_that_only_uv_was_told_of_is_asked_too(comfyui, host, shop, monkeypatch):
    """Its file page names no host: without the variable this machine's own index would be asked."""
    shelf(host.root, shop)
    for name in ("PIP_INDEX_URL", "PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_INDEX_URL", f"named={host.url}/simple")
    python = str(comfyui / ".venv/bin/python")
    (wheel, *_) = installer.resolve(python, ["beta==1.0"], holds=["torch==2.13.0+cpu"])
    assert wheel.url.startswith(host.url)
    monkeypatch.setenv("PIP_INDEX_URL", f"{internet.nobody()}/simple")
    assert uv.default_index() == ""


# Aside, back, out


@pytest.mark.parametrize(
    ("kind", "expected"), [("git", "Pack"), ("published", "my-pack@nightly"), ("cnr", "reg@1_0")]
)
def test_disabled_as_manager_does_it_enabled_as_it_was(comfyui, host, online, kind, expected):
    named = '[project]\nname = "my-pack"\nversion = "1"\n[tool.comfy]\nPublisherId = "me"\n'
    publish(host.root, "Pack", {"pyproject.toml": named} if kind == "published" else {})
    release(host, "reg", "1.0", {})
    source = "reg" if kind == "cnr" else f"{host.url}/o/Pack"
    install(comfyui, source, "--name", "Mine", COMFY_REGISTRY=host.url, **online)
    before = everything_else(comfyui)
    assert node("disable", comfyui, "Mine", "--yes")[0] == 0
    name = "Mine" if kind == "git" else expected
    assert [p.name for p in (comfyui / "custom_nodes/.disabled").iterdir()] == [name]
    assert rows(comfyui)["Mine"]["state"] == "disabled"
    assert node("enable", comfyui, "Mine", "--yes")[0] == 0
    shutil.rmtree(comfyui / "custom_nodes/.disabled")
    assert everything_else(comfyui) == before


def test_what_manager_disabled_can_be_enabled(comfyui):
    nodes = comfyui / "custom_nodes"
    for place in (".disabled/some-pack@1_2", "old-way.disabled"):
        (nodes / place).mkdir(parents=True)
        (nodes / place / "__init__.py").touch()
    assert {n: r["state"] for n, r in rows(comfyui).items()} == {
        "old-way": "disabled",
        "some-pack": "disabled",
    }
    code, _ = node("enable", comfyui, "old-way", "some-pack", "--yes")
    assert (code, sorted(set(live(comfyui)) - {".disabled"})) == (0, ["old-way", "some-pack"])


def test_removed_and_brought_back(comfyui, host, online):
    publish(host.root, "Pack", {})
    install(comfyui, f"{host.url}/o/Pack", **online)
    before = everything_else(comfyui)
    assert node("remove", comfyui, f"{host.url}/o/Pack", "--yes")[0] == 0
    assert live(comfyui) == []
    doctor("undo", "--comfyui", comfyui)
    assert everything_else(comfyui) == before
    code, said = node("remove", comfyui, "Nobody", "--yes")
    assert (code, "there are: Pack" in str(said["error"])) == (2, True)


# Newer


def test_update_keeps_what_the_user_made_and_goes_back(comfyui, host, online):
    publish(host.root, "Pack", {"a.py": "a = 1\n", "old.py": ""})
    install(comfyui, f"{host.url}/o/Pack", **online)
    pack = comfyui / "custom_nodes" / "Pack"
    (pack / "config.json").write_text("mine")
    before = everything_else(comfyui)
    code, said = node("update", comfyui, "--yes", **online)
    assert (code, said["receipts"]) == (0, [])
    (host.root / "work/Pack/old.py").unlink()
    commit = publish(host.root, "Pack", {"a.py": "a = 2\n", "requirements.txt": "beta\n"})
    code, said = node("update", comfyui, "--yes", **online)
    assert (code, said["commit"]) == (0, commit)
    assert (pack / "a.py").read_text() == "a = 2\n"
    assert (pack / "config.json").read_text() == "mine"
    assert not (pack / "old.py").exists()
    assert "beta-1.0" in versions(comfyui)
    assert node("verify", comfyui)[1]["packs"][0]["state"] == "intact"
    doctor("undo", "--comfyui", comfyui)
    assert everything_else(comfyui) == before


def test_edits_are_not_replaced_unasked(comfyui, host, online):
    publish(host.root, "Pack", {"a.py": "a = 1\n"})
    install(comfyui, f"{host.url}/o/Pack", **online)
    (comfyui / "custom_nodes/Pack/a.py").write_text("mine")
    publish(host.root, "Pack", {"a.py": "a = 2\n"})
    code, said = node("update", comfyui, "--yes", **online)
    assert (code, "edits of yours (a.py)" in said["failed"]["Pack"]) == (1, True)
    assert (comfyui / "custom_nodes/Pack/a.py").read_text() == "mine"
    assert node("update", comfyui, "--yes", "--discard-edits", **online)[0] == 0
    assert (comfyui / "custom_nodes/Pack/a.py").read_text() == "a = 2\n"


def test_a_pack_cloned_over_ssh_is_updated_over_https_and_goes_on_naming_ssh(
    comfyui, host, online, monkeypatch
):
    """Its origin answers over http here: what stands for https://HOST is this host."""
    parse = fetch.Source.parse

    def parsed(text):
        return parse(text.replace("git@git.example:", f"{host.url}/"))

    monkeypatch.setattr("doctor.fetch.Source.parse", parsed)
    publish(host.root, "Pack", {"a.py": "1"})
    install(comfyui, f"{host.url}/o/Pack", **online)
    pack = comfyui / "custom_nodes" / "Pack"
    internet.git("remote", "set-url", "origin", "git@git.example:o/Pack", cwd=pack)
    commit = publish(host.root, "Pack", {"a.py": "2"})
    code, said = node("update", comfyui, "--yes", **online)
    assert (code, said["commit"], said["failed"]) == (0, commit, {})
    assert internet.git("remote", "get-url", "origin", cwd=pack) == "git@git.example:o/Pack"


def test_what_stands_on_a_tag_moves_only_when_it_is_named(comfyui, host, online):
    first = publish(host.root, "Pack", {"a.py": "1"})
    install(comfyui, f"{host.url}/o/Pack@{first}", **online)
    second = publish(host.root, "Pack", {"a.py": "2"})
    code, said = node("update", comfyui, "--yes", **online)
    assert (code, said["receipts"], rows(comfyui)["Pack"]["commit"]) == (0, [], first)
    code, said = node("update", comfyui, "Pack", "--yes", **online)
    assert (code, rows(comfyui)["Pack"]["commit"]) == (0, second)


def test_a_pack_of_pointers_is_told_and_one_with_content_can_be_updated(comfyui, host, online):
    heavy = b"weights"
    oid = hashlib.sha256(heavy).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(heavy)}\n"
    publish(host.root, "Pack", {"m.bin": pointer})
    code, said = install(comfyui, f"{host.url}/o/Pack", **online)
    assert (code, said["pointers"], said["proven"]) == (0, ["m.bin"], True)
    pack = comfyui / "custom_nodes" / "Pack"
    (host.root / "lfs").mkdir()
    (host.root / "lfs" / oid).write_bytes(heavy)
    publish(host.root, "Pack", {"a.py": "2"})
    code, said = node("update", comfyui, "--yes", **online)
    assert (code, said["pointers"], (pack / "m.bin").read_bytes()) == (0, [], heavy)
    assert node("verify", comfyui)[1]["packs"][0]["state"] == "intact"
    publish(host.root, "Pack", {"a.py": "3"})
    assert node("update", comfyui, "--yes", **online)[0] == 0
    assert (pack / "a.py").read_text() == "3"


def test_the_registry_has_a_newer_version(comfyui, host, online):
    release(host, "reg", "1.0", {"gone.py": ""})
    registry = online | {"COMFY_REGISTRY": host.url}
    install(comfyui, "reg", **registry)
    release(host, "reg", "1.1", {})
    code, _ = node("update", comfyui, "reg", "--yes", **registry)
    assert (code, rows(comfyui)["reg"]["version"]) == (0, "1.1")
    assert not (comfyui / "custom_nodes/reg/gone.py").exists()


# As it came


def test_verify_tells_edited_missing_and_added(comfyui, host, tmp_path, online):
    publish(host.root, "Pack", {"a.py": "1", "b.py": "2"})
    internet.git("archive", "-o", str(tmp_path / "Zip.zip"), "main", cwd=host.root / "o/Pack.git")
    install(comfyui, f"{host.url}/o/Pack", tmp_path / "Zip.zip", **online)
    (comfyui / "custom_nodes" / "Stranger").mkdir()
    assert node("verify", comfyui, "Pack", "Zip")[0] == 0
    for name in ("Pack", "Zip"):
        pack = comfyui / "custom_nodes" / name
        (pack / "a.py").write_text("other")
        (pack / "b.py").unlink()
        (pack / "mine.txt").touch()
        (pack / "__pycache__").mkdir()
        (pack / "__pycache__" / "a.pyc").touch()
    code, said = node("verify", comfyui)
    assert code == 1
    for row in said["packs"]:
        if row["name"] == "Stranger":
            assert row["state"] == "not judged"
        else:
            assert (row["edited"], row["missing"], row["extra"]) == (
                ["a.py"],
                ["b.py"],
                ["mine.txt"],
            )


def test_list_tells_the_last_start(comfyui, host, online):
    for name in ("Good", "Bad"):
        publish(host.root, name, {})
    install(comfyui, f"{host.url}/o/Good", f"{host.url}/o/Bad", **online)
    nodes = comfyui / "custom_nodes"
    (comfyui / ".comfy-doctor" / "launch.log").write_text(
        f"Cannot import {nodes}/Bad module for custom nodes: No module named 'cv2'\n\n"
        "Import times for custom nodes:\n"
        f"   0.1 seconds: {nodes}/Good\n   2.5 seconds (IMPORT FAILED): {nodes}/Bad\n"
    )
    there = rows(comfyui)
    assert there["Good"]["last_start"] == {"seconds": 0.1, "failed": False, "error": ""}
    assert there["Bad"]["last_start"]["failed"]
    assert there["Bad"]["last_start"]["error"] == "No module named 'cv2'"


# Snapshots


def test_a_snapshot_brings_everything_back(comfyui, host, tmp_path, online):
    registry = online | {"COMFY_REGISTRY": host.url}
    old = publish(host.root, "Pack", {"a.py": "1"})
    publish(host.root, "Other", {})
    release(host, "reg", "1.0", {})
    nodes, file = comfyui / "custom_nodes", tmp_path / "snapshot.json"
    install(comfyui, f"{host.url}/o/Pack", f"{host.url}/o/Other", "reg", **registry)
    node("disable", comfyui, "Other", "--yes")
    (nodes / "Stranger").mkdir()
    (nodes / "Stranger" / "__init__.py").write_text("x = 1\n")
    (nodes / "single.py").touch()
    code, said = node("snapshot", comfyui, "save", file)
    kept = json.loads(file.read_text())
    assert (code, kept) == (0, said["snapshot"])
    assert kept["git_custom_nodes"] == {
        f"{host.url}/o/Other": {"hash": rows(comfyui)["Other"]["commit"], "disabled": True},
        f"{host.url}/o/Pack": {"hash": old, "disabled": False},
    }
    assert kept["cnr_custom_nodes"] == {"reg": "1.0"}
    assert kept["file_custom_nodes"] == [{"filename": "single.py", "disabled": False}]
    assert kept["pips"].keys() >= {"torch==2.13.0+cpu", "alpha==1.0"}
    own = kept["comfy-doctor"]
    assert own["torch"] == "2.13.0+cpu"
    stranger = next(pack for pack in own["packs"] if pack["name"] == "Stranger")
    assert (stranger["kind"], len(stranger["tree"])) == ("unknown", 40)
    assert node("snapshot", comfyui, "restore", file, "--yes", **registry)[0] == 0
    before = states(comfyui)
    publish(host.root, "Pack", {"a.py": "2"})
    publish(host.root, "New", {})
    node("update", comfyui, "Pack", "--yes", **registry)
    node("enable", comfyui, "Other", "--yes")
    node("remove", comfyui, "reg", "--yes")
    install(comfyui, f"{host.url}/o/New", **registry)
    (nodes / "single.py").rename(nodes / "single.py.disabled")
    shutil.rmtree(nodes / "Stranger")
    code, said = node("snapshot", comfyui, "restore", file, "--yes", **registry)
    assert (code, said["left"]) == (1, ["Stranger: nobody knows where it came from"])
    after = states(comfyui)
    assert after.pop("New") == ("disabled", "git")
    assert after | {"Stranger": ("enabled", "unknown")} == before
    assert (nodes / "Pack" / "a.py").read_text() == "1"


def states(comfyui):
    return {name: (row["state"], row["kind"]) for name, row in rows(comfyui).items()}


def test_a_snapshot_of_manager(comfyui, host, tmp_path, online):
    commit = publish(host.root, "Pack", {})
    release(host, "reg", "2.0", {})
    file = tmp_path / "manager.json"
    kept = {
        "comfyui": "0" * 40,
        "git_custom_nodes": {f"{host.url}/o/Pack": {"hash": commit, "disabled": True}},
        "cnr_custom_nodes": {"reg": "2.0"},
        "file_custom_nodes": [],
        "pips": {},
    }
    file.write_text(json.dumps(kept))
    registry = online | {"COMFY_REGISTRY": host.url}
    code, said = node("snapshot", comfyui, "restore", file, "--yes", **registry)
    assert (code, said["failed"]) == (1, {})
    assert said["left"] == [f"ComfyUI was {'0' * 40}, is ?"]
    assert states(comfyui) == {"Pack": ("disabled", "git"), "reg": ("enabled", "registry")}
    file.write_text('{"git_custom_nodes": []}')
    assert node("snapshot", comfyui, "restore", file, "--yes")[0] == 2


# Bisect

STARTS = """
import pathlib, sys
names = " ".join(sys.argv).partition("--whitelist-custom-nodes")[2].split()
assert "--quick-test-for-ci" in sys.argv and "--disable-all-custom-nodes" in sys.argv
for name in sorted(names):
    exec((pathlib.Path("custom_nodes") / name / "__init__.py").read_text())
"""


@pytest.mark.parametrize(
    ("codes", "found", "starts"),
    [
        ({}, [], 2),
        ({4: "sys.exit('boom')"}, [("P4", [])], 7),
        ({1: "sys.exit('boom')", 6: "1 / 0"}, [("P1", []), ("P6", [])], 12),
        ({2: "sys.a = 1", 5: "sys.exit(hasattr(sys, 'a'))"}, [("P5", ["P2"])], 12),
    ],
)
def test_bisect_names_the_pack_that_breaks_the_start(comfyui, codes, found, starts):
    (comfyui / "main.py").write_text(STARTS)
    for number in range(8):
        pack = comfyui / "custom_nodes" / f"P{number}"
        pack.mkdir()
        (pack / "__init__.py").write_text(codes.get(number, ""))
    code, said = node("bisect", comfyui)
    assert [(one["name"], one["with"]) for one in said["culprits"]] == found
    assert (code, said["starts"] <= starts) == (1 if found else 0, True)


def test_bisect_of_a_core_that_does_not_start(comfyui):
    (comfyui / "main.py").write_text("raise SystemExit('no torch')")
    code, said = node("bisect", comfyui)
    assert (code, said["core"], said["culprits"]) == (1, "no torch", [])
    (comfyui / "main.py").write_text("import time; time.sleep(30)")
    assert "no end after" in node("bisect", comfyui, "--limit", "0.5")[1]["core"]
