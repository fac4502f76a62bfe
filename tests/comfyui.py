"""A real ComfyUI for the tests that need one: a copy of a checkout, its interpreter, one stand-in.

COMFYUI_DIR names the checkout, COMFYUI_PYTHON an interpreter that has its requirements. Neither is
changed. Where that interpreter lacks torchvision or torchaudio, an empty stand-in makes the import
of ComfyUI possible: what needs the real ones (a few nodes, Stable Cascade) does not work then.
"""

import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

DIR, PYTHON = os.environ.get("COMFYUI_DIR", ""), os.environ.get("COMFYUI_PYTHON", "")
WHY = "needs a real ComfyUI: set COMFYUI_DIR to a checkout, COMFYUI_PYTHON to its interpreter"
needed = pytest.mark.skipif(not (DIR and PYTHON), reason=WHY)
STAND_IN = {
    "torchvision/__init__.py": "from torchvision import transforms\n",
    "torchvision/transforms.py": "class Normalize:\n    def __init__(self, *args): ...\n",
}
SITE = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
LEFT = {".git", ".venv", "venv", "models", "output", "custom_nodes", "user"}


def copy(folder: Path) -> Path:
    """The checkout without its packs and models, and beside main.py a venv with its packages."""
    here = folder / "ComfyUI"
    shutil.copytree(DIR, here, ignore=lambda at, names: LEFT & {*names} if at == DIR else ())
    for name in ("models", "custom_nodes", "output"):
        (here / name).mkdir()
    venv.EnvBuilder(symlinks=True).create(here / ".venv")
    python = here / ".venv" / "bin" / "python"
    theirs, own = (said(one, SITE) for one in (PYTHON, str(python)))
    Path(own, "theirs.pth").write_text(f"{theirs}\n")
    if subprocess.run([python, "-c", "import torchvision"], capture_output=True).returncode:
        for name, text in STAND_IN.items():
            Path(own, name).parent.mkdir(exist_ok=True)
            Path(own, name).write_text(text)
    if subprocess.run([python, "-c", "import requests"], capture_output=True).returncode:
        subprocess.run(
            [PYTHON, "-m", "pip", "install", "-q", "--target", own, "requests"], check=True
        )
    return here


def said(python: str, code: str) -> str:
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()
