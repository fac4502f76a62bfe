"""A real ComfyUI to start: a copy of the checkout that COMFYUI_DIR names, run by COMFYUI_PYTHON
(COMFYUI_DIR/../venv/bin/python by default).

No CPU build of torchvision and torchaudio is to be had beside a CPU torch, so that stand-ins take
their place: modules of that name, labelled as such, with what ComfyUI 0.3.64 asks of them while
it is imported, and nothing that could render. They have no metadata: `check` goes on to say that
the companions are missing, as they are.
"""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

DIR, PYTHON = "COMFYUI_DIR", "COMFYUI_PYTHON"
TORCHVISION = '''"""A stand-in for torchvision, made for a test: it can only be imported."""

__version__ = "0.0.0+stand-in"

from torchvision import transforms
'''
TRANSFORMS = '''"""A stand-in for torchvision.transforms: names; whoever calls one is told."""


class StandIn:
    def __init__(self, *words, **more):
        self.words = words

    def __call__(self, *words, **more):
        raise RuntimeError("this torchvision is a stand-in that cannot compute")


Compose = Normalize = Resize = ToTensor = CenterCrop = InterpolationMode = StandIn
'''
TORCHAUDIO = '''"""A stand-in for torchaudio, made for a test: it can only be imported."""

__version__ = "0.0.0+stand-in"
'''
FILES = {
    "torchvision/__init__.py": TORCHVISION,
    "torchvision/transforms/__init__.py": TRANSFORMS,
    "torchaudio/__init__.py": TORCHAUDIO,
    "torchaudio/transforms/__init__.py": TRANSFORMS.replace("vision", "audio")
    + "MelScale = StandIn\n",
}


def needed() -> tuple[Path, Path]:
    """(checkout, interpreter), or a skip that says what is missing."""
    folder = os.environ.get(DIR)
    if not folder:
        pytest.skip(f"{DIR} names no ComfyUI")
    python = os.environ.get(PYTHON) or str(Path(folder).parent / "venv/bin/python")
    if not Path(folder, "main.py").is_file() or not Path(python).exists():
        pytest.skip(f"{DIR}={folder} or {PYTHON}={python} is not there")
    return Path(folder), Path(python)


def copy(source: Path, into: Path) -> Path:
    """The files that git knows of, without its history; models and pictures stay where they are."""
    listed = subprocess.run(
        ["git", "-C", str(source), "ls-files", "-z"], capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (source / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, into / name)
    return into


LENT = ("requests", "urllib3", "certifi", "charset_normalizer", "idna")


def environment(python: Path, into: Path) -> Path:
    """An environment of its own: the packages of `python`, the stand-ins, and requests with what
    it needs, lent by the tests' own environment where that Python has none. Its interpreter."""
    make = [str(python), "-m", "venv", "--without-pip", "--clear", str(into)]
    subprocess.run(make, check=True, capture_output=True)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    ours = into / "bin/python"
    theirs, here = (
        Path(
            subprocess.run(
                [one, "-c", ask], check=True, capture_output=True, text=True
            ).stdout.strip()
        )
        for one in (python, ours)
    )
    (here / "lent.pth").write_text(f"{theirs}\n", encoding="utf-8")
    for name, text in FILES.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text, encoding="utf-8")
    lender = Path(find_spec("requests").origin).parent.parent
    for name in LENT if not (theirs / "requests").exists() else ():
        for found in lender.glob(f"{name}*"):
            (here / found.name).symlink_to(found)
    return ours


def patient(into: Path) -> tuple[Path, Path]:
    """(folder, interpreter) of a ComfyUI to start, with stand-ins; a skip where there is none."""
    source, python = needed()
    return copy(source, into / "ComfyUI"), environment(python, into / "venv")
