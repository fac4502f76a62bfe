"""ComfyUI folders that are broken: nodes, models, paths, clones, the database."""

import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing

from tests.lab.installation import Here, Impossible, model, owes, run, write


@owes("custom-node-layout", quick=True)
def archive_unpacked_too_deep(here: Here) -> None:
    write(here.root / "custom_nodes/x-main/x-main/__init__.py", "")


@owes("custom-node-layout")
def clone_that_broke_off(here: Here) -> None:
    (here.root / "custom_nodes/half").mkdir()


@owes("custom-node-twice")
def clone_and_archive(here: Here) -> None:
    write(here.root / "custom_nodes/Impact_Pack/__init__.py", "")
    write(here.root / "custom_nodes/impact-pack-main/__init__.py", "")


@owes("node-requirement-missing")
def node_without_its_requirements(here: Here) -> None:
    write(here.root / "custom_nodes/pack/requirements.txt", "numpy\nultralytics>=8\n")


@owes("model-file-corrupt", quick=True)
def download_that_broke_off(here: Here) -> None:
    model(here.root / "models/loras/cut.safetensors", 100, 4000)


@owes("model-file-corrupt")
def download_that_was_a_login_page(here: Here) -> None:
    write(here.root / "models/vae/page.safetensors", "<!DOCTYPE html><html>log in</html>")


@owes("model-file-corrupt")
def clone_without_lfs(here: Here) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 335304388\n"
    write(here.root / "models/vae/pointer.safetensors", text)


@owes("model-wrong-extension")
def renamed_to_fit_a_workflow(here: Here) -> None:
    model(here.root / "models/checkpoints/x.ckpt")


@owes("extra-model-paths-invalid")
def extra_paths_with_tabs(here: Here) -> None:
    write(here.root / "extra_model_paths.yaml", "comfyui:\n\tloras: models/loras\n")


@owes("extra-model-paths-invalid")
def extra_paths_without_a_section(here: Here) -> None:
    write(here.root / "extra_model_paths.yaml", "base_path: /data\nloras: models/loras\n")


@owes("module-shadowed")
def a_script_called_random(here: Here) -> None:
    write(here.root / "random.py", "print('hello')\n")


@owes("module-shadowed")
def a_folder_called_yaml(here: Here) -> None:
    write(here.root / "yaml/__init__.py", "")


@owes("module-shadowed")
def a_script_called_requests(here: Here) -> None:
    write(here.root / "requests.py", "import urllib\n")


@owes("custom-node-layout")
def archive_never_unpacked(here: Here) -> None:
    (here.root / "custom_nodes/pack-main.zip").write_bytes(b"PK\x05\x06" + b"\0" * 18)


@owes("custom-node-layout")
def a_folder_of_pictures_among_the_nodes(here: Here) -> None:
    write(here.root / "custom_nodes/pictures/readme.txt", "mine")


@owes("node-requirement-version", quick=True)
def node_wants_an_older_numpy(here: Here) -> None:
    write(here.root / "custom_nodes/pack/requirements.txt", "numpy<2\n")


@owes("node-import-fails", level=2, quick=True)
def node_in_a_newer_python(here: Here) -> None:
    write(here.root / "custom_nodes/new/__init__.py", "from .nodes import X\n")
    write(here.root / "custom_nodes/new/nodes.py", "type X = int | None\n")


@owes("node-import-fails", level=2)
def node_without_one_of_its_files(here: Here) -> None:
    write(here.root / "custom_nodes/cut/__init__.py", "from .nodes import X\n")


@owes("node-import-fails", level=2)
def node_imports_what_nobody_installed(here: Here) -> None:
    write(here.root / "custom_nodes/yolo/__init__.py", "import ultralytics\n")


@owes("node-import-fails")
def node_that_failed_in_the_last_start(here: Here) -> None:
    place = here.root / "custom_nodes/pack"
    line = f"Cannot import {place} module for custom nodes: cannot import name 'X' from 'y'"
    write(here.root / "user/comfyui.log", f"[2026-11-25 10:00:00.000] {line}\n")
    later = time.time() + 5
    os.utime(here.root / "user/comfyui.log", (later, later))


@owes("core-older-than-node", quick=True)
def node_that_asks_for_a_newer_comfyui(here: Here) -> None:
    text = '[project]\nname = "pack"\n[tool.comfy]\nrequires-comfyui = ">=9.0"\n'
    write(here.root / "custom_nodes/pack/pyproject.toml", text)


@owes("core-older-than-node", level=2)
def node_that_imports_a_newer_comfyui(here: Here) -> None:
    write(here.root / "custom_nodes/wan/__init__.py", "from comfy.ldm.wan3 import Model\n")


@owes("node-incompatible-with-core")
def node_that_its_author_closed(here: Here) -> None:
    text = '[project]\nname = "pack"\n[tool.comfy]\nrequires-comfyui = "<0.3"\n'
    write(here.root / "custom_nodes/pack/pyproject.toml", text)


LORA = ("lora_unet_down_blocks_0.lora_down.weight", "lora_unet_down_blocks_0.lora_up.weight")
WHOLE = (
    "model.diffusion_model.input_blocks.0.0.weight",
    "first_stage_model.decoder.conv_in.weight",
)


@owes("wrong-loader-for-model", quick=True)
def lora_among_the_checkpoints(here: Here) -> None:
    model(here.root / "models/checkpoints/style.safetensors", tensors=LORA)


@owes("wrong-loader-for-model")
def checkpoint_among_the_loras(here: Here) -> None:
    model(here.root / "models/loras/whole.safetensors", tensors=WHOLE)


@owes("wrong-loader-for-model")
def vae_among_the_checkpoints(here: Here) -> None:
    tensors = ("decoder.conv_in.weight", "encoder.conv_in.weight")
    model(here.root / "models/checkpoints/vae.safetensors", tensors=tensors)


@owes("model-file-corrupt")
def download_that_is_still_under_way(here: Here) -> None:
    (here.root / "models/checkpoints/flux.safetensors.aria2").write_bytes(b"\0\1")


@owes("model-file-corrupt")
def link_to_a_model_that_is_gone(here: Here) -> None:
    (here.root / "models/checkpoints/sd.safetensors").symlink_to("/nowhere/sd.safetensors")


@owes("model-file-corrupt")
def an_empty_model(here: Here) -> None:
    write(here.root / "models/vae/none.safetensors", "")


@owes("model-wrong-extension")
def pickle_called_safetensors(here: Here) -> None:
    (here.root / "models/checkpoints/old.safetensors").write_bytes(b"PK\x03\x04" + b"\0" * 60)


@owes("extra-model-paths-invalid")
def extra_paths_in_another_encoding(here: Here) -> None:
    text = "comfyui:\n    base_path: D:/模型\n".encode("gbk")
    (here.root / "extra_model_paths.yaml").write_bytes(text)


@owes("extra-model-folder-missing", quick=True)
def extra_paths_to_a_drive_that_is_not_mounted(here: Here) -> None:
    write(here.root / "extra_model_paths.yaml", "comfyui:\n    base_path: /media/none\n")


def a_database(here: Here) -> str:
    """A real one, with a table; its path."""
    path = here.root / "user/comfyui.db"
    with closing(sqlite3.connect(path)) as base:
        base.execute("create table assets (name text)")
        base.executemany("insert into assets values (?)", [("x" * 500,)] * 100)
        base.commit()
    return str(path)


@owes("database-unusable", quick=True)
def database_cut_short(here: Here) -> None:
    os.truncate(a_database(here), 9000)


@owes("database-unusable")
def database_overwritten(here: Here) -> None:
    with open(a_database(here), "r+b") as file:
        file.write(b"\0" * 64)


@owes("database-locked")
def database_that_another_process_holds(here: Here) -> None:
    code = (
        "import sqlite3, sys; base = sqlite3.connect(sys.argv[1], isolation_level=None);"
        " base.execute('begin exclusive'); print(flush=True); sys.stdin.read()"
    )
    started(here, [str(here.python), "-c", code, a_database(here)])


def started(here: Here, words: list[str], cwd: str | None = None) -> None:
    """A process that says one line when it is ready, and is ended with the installation."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, stdin=pipe, stdout=pipe, cwd=cwd)
    here.ended.callback(process.wait)
    here.ended.callback(process.kill)
    assert process.stdout is not None
    process.stdout.readline()


def a_clone(here: Here) -> str:
    """The folder as a real repository with one commit; git's own answer."""
    git(here, "init", "--quiet", "--initial-branch", "master")
    git(here, "add", "main.py", "requirements.txt")
    git(here, "commit", "--quiet", "-m", "one")
    return git(here, "rev-parse", "HEAD")


def git(here: Here, *words: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    return run("git", *who, "-C", str(here.root), *words)


@owes("git-repository-corrupt", quick=True)
def power_cut_while_git_wrote(here: Here) -> None:
    """What a file system without its journal leaves: the branch is there and empty."""
    a_clone(here)
    (here.root / ".git/refs/heads/master").write_bytes(b"\0" * 41)


@owes("git-repository-corrupt")
def git_was_killed(here: Here) -> None:
    a_clone(here)
    (here.root / ".git/index.lock").touch()


@owes("git-repository-corrupt")
def update_that_met_changes_of_the_owner(here: Here) -> None:
    """A real conflict: git stops in the middle of the merge."""
    a_clone(here)
    git(here, "checkout", "--quiet", "-b", "theirs")
    for branch, text in (("theirs", "torch\nnumpy>=2\n"), ("master", "torch\nnumpy>=1\n")):
        git(here, "checkout", "--quiet", branch)
        write(here.root / "requirements.txt", text)
        git(here, "commit", "--quiet", "-am", branch)
    try:
        git(here, "merge", "theirs")
    except RuntimeError:
        write(here.root / "requirements.txt", "torch\nnumpy>=1.25.0\n")
        return
    raise AssertionError("git merged what cannot be merged")


@owes("git-dubious-ownership")
def clone_of_another_user(here: Here) -> None:
    if os.geteuid():
        raise Impossible("only root gives files away")
    a_clone(here)
    run("chown", "-R", "12345", str(here.root / ".git"))


@owes("permission-denied")
def output_made_by_another_user(here: Here) -> None:
    if os.geteuid():
        raise Impossible("only root gives files away")
    os.chown(here.root / "output", 12345, 12345)
    without_privilege(here)


@owes("model-file-corrupt")
def model_that_may_not_be_read(here: Here) -> None:
    path = here.root / "models/checkpoints/private.safetensors"
    model(path)
    path.chmod(0)
    without_privilege(here)


@owes("database-unusable")
def database_that_may_not_be_written(here: Here) -> None:
    os.chmod(a_database(here), 0o444)
    without_privilege(here)


def without_privilege(here: Here) -> None:
    """Root keeps its number and loses its power over files: it then is a user like any other."""
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            raise Impossible("no setpriv to give privileges up with")
        less = "-dac_override,-dac_read_search,-fowner"
        here.before = ["setpriv", f"--bounding-set={less}", f"--inh-caps={less}"]


@owes("comfyui-missing", unfixed="it clones from GitHub")
def main_py_deleted(here: Here) -> None:
    (here.root / "main.py").unlink()
    for name in ("comfy", "comfyui_version.py", "requirements.txt"):
        path = here.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
