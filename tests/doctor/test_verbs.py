"""The verbs whole, on small real installations: a checkout that is none of ComfyUI's, a venv, a
folder of wheels for an index, hosts on loopback."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from doctor import installer
from tests import internet
from tests.doctor.command import ROOT, answer, doctor
from tests.doctor.test_snapshot import tree
from tests.doctor.wheels import wheel

MAIN = """
import sys
if "--disable-cuda-malloc" not in sys.argv:
    sys.exit("RuntimeError: CUDA error: operation not supported")
print("To see the GUI go to: http://127.0.0.1:8188", sys.argv[1:])
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """What the index has: a pack's wishes, a torch that nobody asked for, and one in use."""
    folder = tmp_path_factory.mktemp("shop")
    cpu = {"torch/version.py": "__version__ = '2.13.0+cpu'\ncuda = None\n"}
    wheel(folder, "torch", "2.13.0+cpu", files=cpu)
    wheel(folder, "torch", "2.15.0", files={"torch/version.py": "__version__ = '2.15.0'\n"})
    wheel(folder, "beta", "1.0", "torch")
    wheel(folder, "greedy", "1.0", "torch>=2.14")
    wheel(folder, "alpha", "1.0")
    wheel(folder, "alpha", "2.0")
    return folder


@pytest.fixture
def comfyui(tmp_path, online):
    """A folder that looks like ComfyUI's, with a venv that holds the small torch."""
    here = tmp_path / "ComfyUI"
    (here / "comfy").mkdir(parents=True)
    (here / "custom_nodes").mkdir()
    (here / "main.py").write_text(MAIN)
    (here / "requirements.txt").write_text("torch\nalpha>=2  # a comment\n--no-binary x\n")
    venv.create(here / ".venv", with_pip=False, symlinks=True)
    python = here / ".venv" / "bin" / "python"
    words = [*installer.pip(str(python)), "install", "--quiet", "torch==2.13.0+cpu", "alpha==1.0"]
    subprocess.run(words, check=True, env={**os.environ, **online})
    return here


@pytest.fixture
def online(shop):
    """The variables that make the folder of wheels the whole index."""
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(shop),
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_CONFIG_FILE": os.devnull,
    }


def versions(comfyui):
    site = next((comfyui / ".venv" / "lib").glob("python3*")) / "site-packages"
    return sorted(p.name.removesuffix(".dist-info") for p in site.glob("*.dist-info"))


def everything_else(comfyui):
    """The installation without the doctor's own folder."""
    return {k: v for k, v in tree(comfyui).items() if not k.startswith(".comfy-doctor")}


def test_fix_undo_and_fix_again(comfyui, online):
    before = everything_else(comfyui)
    words = ("fix", "core-requirement-version", "--comfyui", comfyui, "--yes")
    code, said = answer(*words, **online)
    assert (code, said["cured"], said["left"]) == (0, ["core-requirement-version"], [])
    assert said["plan"][0]["steps"] == ["alpha 1.0 → 2.0"]
    assert versions(comfyui) == ["alpha-2.0", "torch-2.13.0+cpu"]
    code, again = answer(*words, **online)
    assert (code, again["receipts"], again["plan"]) == (0, [], [])
    _, listed = answer("history", "--comfyui", comfyui)
    assert [r["state"] for r in listed["receipts"]] == ["done"]
    code, _, _ = doctor(
        "undo", "--comfyui", comfyui, "--offline", PIP_INDEX_URL="http://127.0.0.1:9"
    )
    assert code == 0
    assert everything_else(comfyui) == before
    code, _, err = doctor("undo", "--comfyui", comfyui)
    assert (code, "Nothing was changed that could be undone" in err) == (2, True)


def test_a_wish_that_cannot_be_had_changes_nothing_and_names_the_reason(comfyui, online):
    (comfyui / "requirements.txt").write_text("torch\nalpha>=9\n")
    before = everything_else(comfyui)
    code, said = answer("fix", "--comfyui", comfyui, "--yes", **online)
    assert code == 1
    assert "alpha>=9" in said["refused"]["install-requirements"]
    assert everything_else(comfyui) == before


def test_a_treatment_that_does_not_help_is_taken_back(comfyui, tmp_path, online):
    """The index serves an alpha that also overwrites a file of torch: nobody had expected that."""
    liar = tmp_path / "liar"
    path = wheel(liar, "alpha", "2.5")
    import zipfile

    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["torch/version.py"] = b"this is not a version\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    before = everything_else(comfyui)
    words = ("fix", "core-requirement-version", "--comfyui", comfyui, "--yes")
    code, said = answer(*words, **(online | {"PIP_FIND_LINKS": str(liar)}))
    assert code == 1
    assert "install-requirements" in said["rolled_back"]
    assert everything_else(comfyui) == before


def test_a_treatment_that_leaves_another_package_unmet_is_taken_back(comfyui, shop, online):
    wheel(shop, "careful", "1.0", "alpha<2")
    python = comfyui / ".venv" / "bin" / "python"
    words = [*installer.pip(str(python)), "install", "--quiet", "careful"]
    subprocess.run(words, check=True, env={**os.environ, **online})
    before = everything_else(comfyui)
    code, said = answer("fix", "core-requirement-version", "--comfyui", comfyui, "--yes", **online)
    assert code == 1
    assert "careful" in said["rolled_back"]["install-requirements"]
    assert everything_else(comfyui) == before


def test_packages_are_not_changed_under_a_running_comfyui(comfyui, online):
    (comfyui / "main.py").write_text("import time; time.sleep(60)")
    python = str(comfyui / ".venv" / "bin" / "python")
    running = subprocess.Popen([python, "main.py"], cwd=comfyui)
    try:
        words = ("fix", "core-requirement-version", "--comfyui", comfyui, "--yes")
        code, said = answer(*words, **online)
    finally:
        running.kill()
        running.wait()
    assert code == 1
    assert f"pid {running.pid}" in said["refused"]["install-requirements"]
    assert versions(comfyui) == ["alpha-1.0", "torch-2.13.0+cpu"]


def test_a_killed_fix_is_taken_back_by_the_next_undo(comfyui, online):
    before = everything_else(comfyui)
    words = [sys.executable, "-m", "doctor", "fix", "--comfyui", str(comfyui), "--yes"]
    run = subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, **online},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    paper = comfyui / ".comfy-doctor" / "journal.jsonl"
    deadline = time.monotonic() + 60
    while not (paper.exists() and '"step"' in paper.read_text()) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert [r["state"] for r in answer("history", "--comfyui", comfyui)[1]["receipts"]] == ["open"]
    _, out, _ = doctor("check", "--comfyui", comfyui, "--level", "1")
    assert "interrupted" in out
    codes = [doctor("undo", "--comfyui", comfyui)[0]]
    while codes[-1] == 2 and len(codes) < 100:  # pip, which it had started, holds the lock
        codes.append(doctor("undo", "--comfyui", comfyui)[0])
    assert codes[-1] == 0
    assert everything_else(comfyui) == before


def test_undo_in_a_copy_leaves_the_original_alone(comfyui, tmp_path, online):
    doctor("fix", "core-requirement-version", "--comfyui", comfyui, "--yes", **online)
    after = everything_else(comfyui)
    copy = tmp_path / "copy"
    shutil.copytree(comfyui, copy, symlinks=True)
    code, _, err = doctor("undo", "--comfyui", copy)
    assert code == 2
    assert str(comfyui) in err
    assert everything_else(comfyui) == after


def test_a_dry_run_of_undo_or_fix_changes_nothing(comfyui, online):
    doctor("fix", "core-requirement-version", "--comfyui", comfyui, "--yes", **online)
    after = tree(comfyui)
    code, out, _ = doctor("undo", "--comfyui", comfyui, "--dry-run")
    assert (code, "install-requirements" in out) == (0, True)
    doctor("fix", "--comfyui", comfyui, "--dry-run", **online)
    assert tree(comfyui) == after


# Launch flags


def test_a_fault_of_the_allocator_is_seen_cured_by_a_kept_flag_and_undone(comfyui):
    log = comfyui / "user" / "comfyui.log"  # of a start by hand
    log.parent.mkdir()
    log.write_text("RuntimeError: CUDA error: operation not supported\n")
    _, said = answer("check", "--comfyui", comfyui, "--only", "cuda-malloc-unsupported")
    assert [f["severity"] for f in said["findings"]] == ["error"]
    assert "operation not supported" in said["findings"][0]["because"][0]
    code, said = answer("fix", "cuda-malloc-unsupported", "--comfyui", comfyui, "--yes")
    assert (code, said["cured"]) == (0, ["cuda-malloc-unsupported"])
    code, out, _ = doctor("launch", "--comfyui", comfyui, "--", "--port", "8190")
    assert code == 0
    assert "['--disable-cuda-malloc', '--port', '8190']" in out
    assert "cuda-malloc-unsupported" in out, "the reason is told"
    assert "operation not supported" not in out, "no start failed first"
    doctor("undo", "--comfyui", comfyui)
    out = doctor("launch", "--comfyui", comfyui)[1]
    assert out.count("operation not supported") >= 1, "the flag was gone, and launch gave it anew"


def test_several_flags_at_once_a_start_script_that_follows_and_all_of_it_undone(comfyui):
    """Two causes in one plan; the script is written on request, and again with each flag."""
    log = comfyui / "user" / "comfyui.log"
    log.parent.mkdir()
    log.write_text(
        "CUDA error: operation not supported\nWarning: invalid value encountered in cast\n"
    )
    before = tree(comfyui)
    words = ("launch", "--script", "--comfyui", comfyui, "--yes", "--", "--port", "1")
    assert doctor(*words)[0] == 0
    script = comfyui / "start-comfyui.sh"
    assert script.read_text().splitlines()[-1].endswith('.venv/bin/python main.py --port 1 "$@"')
    ids = ("cuda-malloc-unsupported", "black-nan-image")
    code, said = answer("fix", *ids, "--comfyui", comfyui, "--yes")
    assert (code, sorted(said["cured"])) == (0, sorted(ids))
    assert "--disable-cuda-malloc --fp32-vae --port 1" in script.read_text()
    after = tree(comfyui)
    code, again = answer("fix", *ids, "--comfyui", comfyui, "--yes")
    assert (code, again["receipts"], tree(comfyui)) == (0, [], after), "twice is once"
    run = subprocess.run([str(script)], capture_output=True, text=True)
    assert "['--disable-cuda-malloc', '--fp32-vae', '--port', '1']" in run.stdout
    for _ in range(3):
        assert doctor("undo", "--comfyui", comfyui)[0] == 0
    assert held(tree(comfyui)) == held(before)


def held(found):
    """A tree without the doctor's own notes."""
    return {path: row for path, row in found.items() if not path.startswith(".comfy-doctor")}


def test_a_start_script_never_replaces_somebody_elses(comfyui):
    (comfyui / "mine.sh").write_text("echo mine")
    code, _, err = doctor("launch", "--script", "mine.sh", "--comfyui", comfyui, "--yes")
    assert (code, "not of comfy-doctor" in err) == (2, True)
    assert (comfyui / "mine.sh").read_text() == "echo mine"


def test_launch_needs_something_to_launch(tmp_path):
    code, _, err = doctor("launch", "--comfyui", tmp_path)
    assert (code, "main.py" in err) == (2, True)


# Custom nodes


@pytest.fixture
def origin(tmp_path):
    root = tmp_path / "origin"
    root.mkdir()
    host = internet.Host(root)
    yield host
    host.close()


def pack(root: Path, requirements: str) -> str:
    """A bare repository o/Pack on the host; its commit."""
    work = root / "work"
    work.mkdir()
    internet.git("init", "-q", "-b", "main", cwd=work)
    (work / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    (work / "requirements.txt").write_text(requirements)
    internet.git("add", "-A", cwd=work)
    internet.git("commit", "-qm", "pack", cwd=work)
    (root / "o").mkdir()
    bare = root / "o" / "Pack.git"
    internet.git("clone", "-q", "--bare", str(work), str(bare), cwd=root)
    internet.git("config", "uploadpack.allowFilter", "true", cwd=bare)
    return internet.git("rev-parse", "HEAD", cwd=work).strip()


def install(comfyui, source, *more, **variables):
    return answer("node", "install", source, "--comfyui", comfyui, "--yes", *more, **variables)


def test_a_node_comes_with_its_requirements_and_torch_stays(comfyui, origin, online):
    before = everything_else(comfyui)
    commit = pack(origin.root, "beta\nalpha>=1\n")
    code, said = install(comfyui, f"{origin.url}/o/Pack", **online)
    assert (code, said["commit"], said["proven"]) == (0, commit, True)
    assert (comfyui / "custom_nodes" / "Pack" / "__init__.py").exists()
    assert versions(comfyui) == ["alpha-1.0", "beta-1.0", "torch-2.13.0+cpu"]
    code, _, _ = doctor("undo", "--comfyui", comfyui)
    assert everything_else(comfyui) == before


def test_a_node_that_wants_another_torch_is_refused_whole(comfyui, origin, online):
    pack(origin.root, "greedy\n")
    before = everything_else(comfyui)
    code, said = install(comfyui, f"{origin.url}/o/Pack", **online)
    assert (code, said["receipts"]) == (1, [])
    assert "torch" in str(said["failed"])
    assert everything_else(comfyui) == before


def test_a_node_arrives_by_a_mirror_when_its_origin_is_out_of_reach(comfyui, origin, online):
    """The commit is the user's word, so the mirror need not be trusted."""
    commit = pack(origin.root, "")
    mirror = online | {"GITHUB_ENDPOINT": origin.url}
    code, said = install(comfyui, f"https://github.com/o/Pack@{commit}", **mirror)
    assert (code, said["route"], said["commit"]) == (0, "GITHUB_ENDPOINT", commit)
    shutil.rmtree(comfyui / "custom_nodes" / "Pack")
    forged = "0" * 40
    code, said = install(comfyui, f"https://github.com/o/Pack@{forged}", **mirror)
    assert code == 1
    assert not (comfyui / "custom_nodes" / "Pack").exists()


def test_an_archive_steps_in_when_git_fails_and_its_tree_is_proven(comfyui, tmp_path, online):
    root = tmp_path / "no-git"
    root.mkdir()
    host = internet.Host(root, transfer=internet.reset)
    try:
        commit = pack(root, "")
        code, said = install(comfyui, f"{host.url}/o/Pack", **online)
    finally:
        host.close()
    if code:  # what git could not fetch, only an archive whose commit nothing proves could bring
        assert "Pack" not in os.listdir(comfyui / "custom_nodes")
    else:
        assert (said["commit"], said["proven"]) == (commit, True)


def test_what_is_there_already_is_not_overwritten(comfyui, origin, online):
    pack(origin.root, "")
    (comfyui / "custom_nodes" / "Pack").mkdir()
    code, said = install(comfyui, f"{origin.url}/o/Pack", **online)
    assert (code, "there already" in said["error"]["message"]) == (2, True)


def test_a_source_that_is_none_is_refused(comfyui):
    for source in ("ext::sh -c id", "--upload-pack=id", "o/r", ""):
        code, _, err = doctor("node", "install", "--comfyui", comfyui, "--", source)
        assert code == 2, source
        assert "Traceback" not in err


def test_two_doctors_do_not_step_on_each_other(comfyui, online):
    from doctor.receipts import locked

    with locked(comfyui / ".comfy-doctor"):
        code, _, err = doctor("fix", "--comfyui", comfyui, "--yes", **online)
    assert (code, "Another comfy-doctor" in err) == (2, True)


def test_json_is_the_only_thing_on_stdout(comfyui, online):
    _, out, _ = doctor("fix", "--comfyui", comfyui, "--yes", "--json", **online)
    assert json.loads(out)["schema"] == "comfy-doctor.fix/1"
