"""Whole installations, really broken: a ComfyUI-shaped folder with an environment of its own.

ComfyUI itself is not here: main.py, comfy/ and requirements.txt stand in for it, and nothing of
it is started. Each builder is given a healthy folder, and breaks it as people's do.
"""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from tests.lab.environments import healthy_environment, site

BREAKS: dict[str, tuple[str, Callable[[Path], None]]] = {}  # situation -> (owed, builder)


def owes(id: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register a builder with the finding its installation must get; "" for a healthy one."""

    def register(build: Callable[[Path], None]) -> Callable[[Path], None]:
        BREAKS[build.__name__.replace("_", "-")] = (id, build)
        return build

    return register


def healthy_installation(root: Path) -> None:
    """torch, numpy, and a folder of the shape of ComfyUI's."""
    for name in ("comfy", "custom_nodes", "models/checkpoints", "output", "input", "user"):
        (root / name).mkdir(parents=True)
    write(root / "main.py", "")
    write(root / "comfyui_version.py", '__version__ = "0.38.1"\n')
    write(root / "requirements.txt", "torch\nnumpy>=1.25.0\n")
    write(root / "custom_nodes/websocket_image_save.py", "NODE_CLASS_MAPPINGS = {}\n")
    write(root / "custom_nodes/pack/__init__.py", "NODE_CLASS_MAPPINGS = {}\n")
    write(root / "custom_nodes/pack/requirements.txt", "numpy\nsympy>=1\n")
    model(root / "models/checkpoints/whole.safetensors", 64, 64)
    healthy_environment(root / ".venv")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def model(path: Path, size: int, promised: int) -> None:
    header = {"w": {"dtype": "F32", "shape": [16], "data_offsets": [0, promised]}}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * size)


def packages(root: Path) -> Path:
    return site(root / ".venv")


@owes("")
def healthy(root: Path) -> None:
    """Nothing is wrong."""


@owes("")
def healthy_with_extra_paths(root: Path) -> None:
    write(root / "extra_model_paths.yaml", "comfyui:\n    base_path: /data\n    loras: models/l\n")


@owes("")
def healthy_with_disabled_nodes(root: Path) -> None:
    (root / "custom_nodes/off.disabled").mkdir()
    (root / "custom_nodes/.disabled/old").mkdir(parents=True)


@owes("")
def healthy_in_a_folder_with_spaces(root: Path) -> None:
    write(root / "custom_nodes/a pack with spaces/__init__.py", "")


@owes("custom-node-layout")
def archive_unpacked_too_deep(root: Path) -> None:
    write(root / "custom_nodes/x-main/x-main/__init__.py", "")


@owes("custom-node-layout")
def clone_that_broke_off(root: Path) -> None:
    (root / "custom_nodes/half").mkdir()


@owes("custom-node-twice")
def clone_and_archive(root: Path) -> None:
    write(root / "custom_nodes/Impact_Pack/__init__.py", "")
    write(root / "custom_nodes/impact-pack-main/__init__.py", "")


@owes("node-requirement-missing")
def node_without_its_requirements(root: Path) -> None:
    write(root / "custom_nodes/pack/requirements.txt", "numpy\nultralytics>=8\n")


@owes("model-file-corrupt")
def download_that_broke_off(root: Path) -> None:
    model(root / "models/loras/cut.safetensors", 100, 4000)


@owes("model-file-corrupt")
def download_that_was_a_login_page(root: Path) -> None:
    write(root / "models/vae/page.safetensors", "<!DOCTYPE html><html>log in</html>")


@owes("model-file-corrupt")
def clone_without_lfs(root: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 335304388\n"
    write(root / "models/vae/pointer.safetensors", text)


@owes("model-wrong-extension")
def renamed_to_fit_a_workflow(root: Path) -> None:
    model(root / "models/checkpoints/x.ckpt", 64, 64)


@owes("extra-model-paths-invalid")
def extra_paths_with_tabs(root: Path) -> None:
    write(root / "extra_model_paths.yaml", "comfyui:\n\tloras: models/loras\n")


@owes("extra-model-paths-invalid")
def extra_paths_without_a_section(root: Path) -> None:
    write(root / "extra_model_paths.yaml", "base_path: /data\nloras: models/loras\n")


@owes("module-shadowed")
def a_script_called_random(root: Path) -> None:
    write(root / "random.py", "print('hello')\n")


@owes("module-shadowed")
def a_folder_called_yaml(root: Path) -> None:
    write(root / "yaml/__init__.py", "")


@owes("package-leftovers")
def pip_was_interrupted(root: Path) -> None:
    old = next(packages(root).glob("sympy-*.dist-info"))
    shutil.copytree(old, old.with_name("~" + old.name[1:]))
    metadata = old.with_name("~" + old.name[1:]) / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: ~ympy\nVersion: 1.0\n")
    (metadata.parent / "RECORD").unlink()


@owes("package-files-corrupt")
def library_cut_short(root: Path) -> None:
    library = next((packages(root) / "numpy").rglob("_multiarray_umath*.so"))
    content = library.read_bytes()[:5000]
    library.unlink()  # a hard link: the original must not be written to
    library.write_bytes(content)


@owes("package-files-corrupt")
def package_half_uninstalled(root: Path) -> None:
    shutil.rmtree(packages(root) / "sympy")


@owes("core-requirement-missing")
def updated_by_git_pull_alone(root: Path) -> None:
    write(root / "requirements.txt", "torch\nnumpy\ncomfy-kitchen>=0.2\neinops\n")


@owes("frontend-package-missing")
def updated_past_the_split_of_the_page(root: Path) -> None:
    write(root / "requirements.txt", "torch\nnumpy\ncomfyui-frontend-package==1.53.6\n")


@owes("core-requirement-version")
def core_asks_for_a_newer_package(root: Path) -> None:
    write(root / "requirements.txt", "torch\nnumpy\nsympy>=99\n")


@owes("numpy-too-old")
def core_asks_for_a_newer_numpy(root: Path) -> None:
    write(root / "requirements.txt", "torch\nnumpy>=99\n")


@owes("torch-missing")
def torch_uninstalled(root: Path) -> None:
    for rest in packages(root).glob("torch*"):
        shutil.rmtree(rest)


@owes("numpy-missing")
def numpy_uninstalled(root: Path) -> None:
    for rest in packages(root).glob("numpy*"):
        shutil.rmtree(rest)


@owes("venv-broken")
def python_of_the_environment_removed(root: Path) -> None:
    python = root / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/bin/python3.11")
    for other in ("python3", "python3.11"):
        (root / ".venv/bin" / other).unlink(missing_ok=True)


@owes("comfyui-missing")
def main_py_deleted(root: Path) -> None:
    (root / "main.py").unlink()
    for name in ("comfy", "comfyui_version.py", "requirements.txt"):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
