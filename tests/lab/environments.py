"""Environments that are really broken, made on the spot: small, hard-linked, gone afterwards.

Each is a virtual environment with the torch and numpy of the Python that runs the tests, in one
of the ways they break for people. Companions come from the default index, as they do for people.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import distribution
from pathlib import Path, PurePath

WITH_TORCH = (
    "torch numpy filelock typing_extensions sympy mpmath networkx jinja2 markupsafe fsspec"
    " setuptools pip"
)
UNUSED = {"..", "__pycache__", "include", "tests"}  # folders whose files nothing imports
CRASH = "import ctypes\n\nctypes.string_at(0)\n"
BUILDERS = {}


def situation(build):
    """Register a builder under its name: it is given a healthy environment, and breaks it."""
    BUILDERS[build.__name__.replace("_", "-")] = build
    return build


def make(name: str, folder: Path) -> Path:
    """Build the environment; its interpreter."""
    python = healthy_environment(folder)
    BUILDERS[name](python)
    return python


def healthy_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    for name in WITH_TORCH.split():
        link_distribution(name, site(folder))
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def site(folder: Path) -> Path:
    own = Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    return folder / own


def site_of(python: Path) -> Path:
    return site(python.parent.parent)


def link_distribution(name: str, target: Path) -> None:
    """Hard links to the files of an installed distribution; copies across file systems."""
    for entry in distribution(name).files or ():
        source = Path(str(entry.locate()))
        if unused(entry) or not source.is_file():
            continue
        place = target / entry
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, place)
        except OSError:
            shutil.copy2(source, place)


def unused(entry: PurePath) -> bool:
    """Left out to make building quick; what the doctor asks RECORD for stays."""
    if entry.name == "__init__.py" and ".." not in entry.parts:
        return False
    return bool(UNUSED & set(entry.parts)) or entry.suffix in (".pyi", ".h", ".cuh", ".hpp")


def pip(python: Path, *words: str) -> None:
    """pip of the tests' Python, at work in an environment that has none."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*command, "--no-deps", "--only-binary", ":all:", *words], check=True)


@situation
def healthy(python: Path) -> None:
    """torch and numpy of one mind."""


@situation
def numpy_removed(python: Path) -> None:
    shutil.rmtree(site_of(python) / "numpy")
    for rest in site_of(python).glob("numpy*"):
        shutil.rmtree(rest)


@situation
def torchvision_for_another_torch(python: Path) -> None:
    """0.20.1 was made for torch 2.5.1."""
    pip(python, "torchvision==0.20.1", "pillow")


@situation
def torchvision_of_another_build(python: Path) -> None:
    """0.28.0 belongs to torch 2.13.0, but the default index serves it built for CUDA."""
    pip(python, "torchvision==0.28.0", "pillow")


@situation
def torch_dies_on_import(python: Path) -> None:
    """The library itself is at fault: importing it ends the process with a signal."""
    init = site_of(python) / "torch" / "__init__.py"
    text = init.read_text()
    init.unlink()  # a hard link: the original must not be written to
    init.write_text(CRASH + text)


@situation
def opencv_for_numpy_1(python: Path) -> None:
    """4.9.0.80 was built against numpy 1; the numpy here is 2."""
    pip(python, "opencv-python-headless==4.9.0.80")


@situation
def torch_library_deleted(python: Path) -> None:
    (site_of(python) / "torch" / "lib" / "libtorch_cpu.so").unlink()
