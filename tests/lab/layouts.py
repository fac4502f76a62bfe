"""Healthy installations of every layout: nothing is wrong, and the right interpreter is named."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.lab.environments import site
from tests.lab.installation import Here, Impossible, drop, healthy, link, run, write

PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"


@healthy(quick=True)
def a_venv(here: Here) -> None:
    """As `python -m venv .venv` makes it."""


@healthy(level=1)
def a_venv_called_venv(here: Here) -> None:
    (here.root / ".venv").rename(here.root / "venv")
    here.python = here.root / "venv/bin/python"


@healthy(level=1)
def a_venv_beside_the_folder(here: Here) -> None:
    (here.root / ".venv").rename(here.root.parent / ".venv")
    here.python = here.root.parent / ".venv/bin/python"


@healthy(level=1)
def an_environment_of_uv(here: Here) -> None:
    """uv's own, without pip; the packages are linked into it."""
    (here.root / ".venv").rename(here.root.parent / "packages")
    uv = [sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable]
    run(*uv, str(here.root / ".venv"))
    run("cp", "-al", f"{site(here.root.parent / 'packages')}/.", str(here.site))
    drop(here, "pip*")


def own_python(here: Here, version: Path | None = None) -> Path:
    """A Python with a prefix of its own, its files linked from an installed one."""
    source = version or Path(sys.base_prefix)
    prefix = here.root.parent / "python"
    (prefix / "bin").mkdir(parents=True)
    minor = sysconfig.get_python_version()
    library = source / "lib" / f"python{minor}"
    if not (library / "os.py").exists():
        raise Impossible(f"the Python at {source} has another shape")
    (prefix / "lib").mkdir()
    link(library, prefix / "lib" / library.name)
    shutil.rmtree(prefix / "lib" / library.name / "site-packages")
    (prefix / "lib" / library.name / "site-packages").mkdir()
    for name in (f"python{minor}", "python3", "python"):
        shutil.copy2((source / "bin" / f"python{minor}").resolve(), prefix / "bin" / name)
    for shared in source.glob("lib/libpython3*"):
        shutil.copy2(shared, prefix / "lib" / shared.name)
    return prefix


def with_packages(here: Here, prefix: Path) -> None:
    """The packages of the environment go into the prefix; the environment goes."""
    target = next(prefix.glob("lib/python3*/site-packages"))
    target.rmdir()
    here.site.rename(target)
    shutil.rmtree(here.root / ".venv")


@healthy(level=1, quick=True)
def the_portable_shape(here: Here) -> None:
    """python_embeded beside the folder, as the package for Windows has it."""
    prefix = own_python(here)
    with_packages(here, prefix)
    prefix.rename(here.root.parent / "python_embeded")
    here.python = here.root.parent / "python_embeded/bin/python"


@healthy(stand_in="conda itself is not to be had: a prefix with conda-meta")
def the_conda_shape(here: Here) -> None:
    prefix = own_python(here)
    with_packages(here, prefix)
    write(prefix / "conda-meta/history", "==> 2026-11-25 <==\n")
    here.variables |= {"CONDA_PREFIX": str(prefix), "VIRTUAL_ENV": ""}
    here.python = prefix / "bin/python"


@healthy(level=1, stand_in="no container engine: the variable that Kubernetes sets")
def the_shape_of_a_container(here: Here) -> None:
    """torch in the one Python there is, first on the PATH."""
    prefix = own_python(here)
    with_packages(here, prefix)
    here.variables |= {
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "PATH": f"{prefix}/bin:{os.environ['PATH']}",
        "VIRTUAL_ENV": "",
    }
    here.python = prefix / "bin/python3"


@healthy(level=1)
def a_system_python_with_packages_of_the_user(here: Here) -> None:
    """pip --user, as people without rights on a server do it."""
    prefix = own_python(here)
    base = here.root.parent / "home/.local"
    target = base / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    target.parent.mkdir(parents=True)
    here.site.rename(target)
    shutil.rmtree(here.root / ".venv")
    here.variables |= {"HOME": str(here.root.parent / "home"), "PYTHONUSERBASE": str(base)}
    here.python = prefix / "bin/python3"
    here.asked = ["--comfyui", str(here.root), "--python", str(here.python)]


@healthy()
def a_path_with_spaces_and_chinese(here: Here) -> None:
    place = here.root.parent / "我的 模型" / "ComfyUI 最新版"
    place.parent.mkdir()
    here.root.rename(place)
    here.root, here.python = place, place / ".venv/bin/python"
    here.asked = ["--comfyui", str(place)]


@healthy(level=1)
def a_folder_behind_a_link(here: Here) -> None:
    behind = here.root.parent / "link"
    behind.symlink_to(here.root)
    here.asked = ["--comfyui", str(behind)]


@healthy(level=1)
def models_behind_a_link(here: Here) -> None:
    """The models on another disk, as those with many do it."""
    place = here.root.parent / "disk/models"
    place.parent.mkdir()
    (here.root / "models").rename(place)
    (here.root / "models").symlink_to(place)


@healthy(also="permission-denied")
def a_read_only_folder(here: Here) -> None:
    if subprocess.run(
        ["mount", "--bind", str(here.root), str(here.root)], capture_output=True
    ).returncode:
        raise Impossible("only root mounts")
    here.ended.callback(run, "umount", "-l", str(here.root))
    run("mount", "-o", "remount,bind,ro", str(here.root))


@healthy(level=1)
def a_real_clone(here: Here) -> None:
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(here.root)]
    run(*git, "init", "--quiet")
    run(*git, "add", "main.py")
    run(*git, "commit", "--quiet", "-m", "one")
    run(*git, "gc", "--quiet")


@healthy(level=1)
def extra_paths_and_disabled_nodes(here: Here) -> None:
    (here.root.parent / "data").mkdir()
    text = f"comfyui:\n    base_path: {here.root.parent}/data\n    loras: models/l\n"
    write(here.root / "extra_model_paths.yaml", text)
    (here.root / "custom_nodes/off.disabled").mkdir()
    (here.root / "custom_nodes/.disabled/old").mkdir(parents=True)
    write(here.root / "custom_nodes/a pack with spaces/__init__.py", "from . import nodes\n")
    write(here.root / "custom_nodes/a pack with spaces/nodes.py", "import comfy.samplers\n")


@healthy(level=1)
def the_folder_above_is_named(here: Here) -> None:
    """What the portable version unpacks to: people name the folder that holds ComfyUI."""
    here.asked = ["--comfyui", str(here.root.parent)]


TORCH = '''"""A stand-in for torch, where no CPU build of it is to be had."""
import numpy
from torch.version import __version__
from torch import version


class Tensor:
    def numpy(self):
        return numpy.zeros(2)


def zeros(count):
    return Tensor()


class cuda:
    is_available = staticmethod(lambda: False)
    device_count = staticmethod(lambda: 0)


class _C:
    pass
'''


def on_another_python(here: Here, minor: str) -> None:
    """A real environment of that Python with numpy from the default index; torch stands in."""
    python = next((p for p in PYENV.glob(f"{minor}.*/bin/python")), None)
    if python is None:
        raise Impossible(f"there is no Python {minor} on this machine")
    shutil.rmtree(here.root / ".venv")
    run(str(python), "-m", "venv", "--without-pip", str(here.root / ".venv"))
    words = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(here.python)]
    run(*words, "numpy", "sympy")
    there = here.root / f".venv/lib/python{minor}/site-packages"
    write(there / "torch/__init__.py", TORCH)
    write(there / "torch/version.py", "__version__ = '2.13.0+cpu'\ncuda = None\nhip = None\n")
    write(
        there / "torch-2.13.0+cpu.dist-info/METADATA",
        "Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+cpu\n",
    )


STAND_IN = "torch is a stand-in of twenty lines: no CPU build of it for this Python"


@healthy(stand_in=STAND_IN)
def python_3_10(here: Here) -> None:
    on_another_python(here, "3.10")


@healthy(stand_in=STAND_IN)
def python_3_12(here: Here) -> None:
    on_another_python(here, "3.12")


@healthy(stand_in=STAND_IN)
def python_3_13(here: Here) -> None:
    on_another_python(here, "3.13")
