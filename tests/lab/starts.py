"""Ways in which ComfyUI does not start, each really happening in a stand-in for its main.py.

What can fail for real on a machine without a card does: a socket is bound twice, a library is cut
short, a disk is full, a process is killed. What needs a card or a driver that is not there raises
what torch raises then, from a file of the name that raises it in ComfyUI.
"""

from dataclasses import dataclass
from pathlib import Path

from tests.lab.mains import main_py

AT = '''
def at(path, code):
    """Run code as if it stood in this file of the installation."""
    import os
    where = os.path.join(os.path.dirname(os.path.abspath(__file__)), path)
    os.makedirs(os.path.dirname(where), exist_ok=True)
    open(where, "w").write(code)
    exec(compile(code, where, "exec"), {"__name__": "at"})
'''
CORE = "comfy/model_management.py"


@dataclass(frozen=True)
class Start:
    owed: str  # the finding that must be named first
    code: str
    flag: str = ""  # what cures it, in the one restart there is


def raising(error: str, path: str = CORE) -> str:
    return f"at({path!r}, {f'raise {error}'!r})"


def unless(flag: str, code: str) -> str:
    return f"if {flag!r} not in sys.argv:\n    {code}"


def absent(module: str, path: str = "comfy/sd.py") -> str:
    """An import that finds nothing, in a Python that would find it."""
    hide = f"sys.meta_path[:] = []; sys.path[:] = []; sys.modules.pop({module!r}, None)"
    return f"import os, traceback, linecache, textwrap, tokenize\n{hide}\nat({path!r}, 'import {module}')"


ASYNC = "import asyncio\nasync def run():\n    loop = asyncio.get_running_loop()\n"
STARTS = {
    "allocator": Start(
        "cuda-malloc-unsupported",
        unless(
            "--disable-cuda-malloc",
            raising(
                "RuntimeError('CUDA error: operation not supported\\nCompile with `TORCH_USE_CUDA_DSA`')"
            ),
        ),
        "--disable-cuda-malloc",
    ),
    "allocator-by-its-name": Start(
        "cuda-malloc-unsupported",
        unless(
            "--disable-cuda-malloc",
            raising(
                "RuntimeError('Allocator backend parsed at runtime != allocator backend parsed at load time')"
            ),
        ),
        "--disable-cuda-malloc",
    ),
    "memory-of-the-card": Start(
        "gpu-out-of-memory",
        unless(
            "--reserve-vram",
            raising(
                "RuntimeError('Allocation on device 0 would exceed allowed memory. (out of memory)')"
            ),
        ),
        "--reserve-vram",
    ),
    "torch-without-cuda": Start(
        "torch-cpu-build",
        unless("--cpu", raising("AssertionError('Torch not compiled with CUDA enabled')")),
        "--cpu",
    ),
    "no-driver": Start(
        "nvidia-driver-missing",
        unless(
            "--cpu",
            raising(
                "RuntimeError('Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver')"
            ),
        ),
        "--cpu",
    ),
    "xformers-of-another-torch": Start(
        "xformers-mismatch",
        unless(
            "--disable-xformers",
            raising(
                "ImportError('/venv/lib/python3.11/site-packages/xformers/_C.so: undefined symbol: _ZN3c104cuda9SetDeviceEi')",
                "comfy/ldm/modules/attention.py",
            ),
        ),
        "--disable-xformers",
    ),
    "driver-too-old": Start(
        "nvidia-driver-too-old",
        raising(
            "RuntimeError('The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver')"
        ),
    ),
    "driver-in-a-bad-state": Start(
        "cuda-driver-state",
        raising(
            "RuntimeError('CUDA unknown error - this may be due to an incorrectly set up environment')"
        ),
    ),
    "card-hidden": Start(
        "cuda-device-not-visible",
        "print('CUDA_VISIBLE_DEVICES=-1')\n"
        + raising("RuntimeError('No CUDA GPUs are available')"),
    ),
    "backend-of-another-build": Start(
        "wrong-backend-selected", raising("AssertionError('Torch not compiled with XPU enabled')")
    ),
    "companion-of-another-torch": Start(
        "torch-companion-mismatch",
        raising(
            "RuntimeError('operator torchvision::nms does not exist')", "comfy/ldm/cosmos/model.py"
        ),
    ),
    "torch-cut-short": Start(
        "torch-broken", raising("ModuleNotFoundError(\"No module named 'torch._C'\")")
    ),
    "requirement-absent": Start("core-requirement-missing", absent("einops")),
    "web-server-absent": Start("core-requirement-missing", absent("aiohttp", "server.py")),
    "page-absent": Start(
        "frontend-package-missing", absent("comfyui_frontend_package", "app/frontend_management.py")
    ),
    "module-of-python-absent": Start("python-incomplete", absent("_lzma", "comfy/utils.py")),
    "alias-that-numpy-dropped": Start(
        "numpy-removed-alias",
        "import numpy\nat('custom_nodes/pack/__init__.py', 'import numpy; numpy.float')",
    ),
    "name-that-python-dropped": Start(
        "python-removed-name",
        "at('custom_nodes/pack/__init__.py', 'import collections; collections.Mapping')",
    ),
    "hub-out-of-step": Start(
        "hf-stack-conflict",
        raising(
            "ImportError(\"cannot import name 'cached_download' from 'huggingface_hub'\")",
            "comfy/sd.py",
        ),
    ),
    "library-cut-short": Start(
        "package-files-corrupt",
        "import tempfile, os\nplace = tempfile.mkdtemp()\nopen(os.path.join(place, 'cut.so'), 'wb').write(b'\\x7fELF')\n"
        "sys.path.insert(0, place)\nat('comfy/utils.py', 'import cut')",
    ),
    "library-of-the-system-absent": Start(
        "system-lib-missing",
        "at('custom_nodes/pack/__init__.py', 'import ctypes; ctypes.CDLL(\"libGLabsent.so.1\")')",
    ),
    "libstdc-too-old": Start(
        "glibcxx-glibc-too-old",
        raising(
            'ImportError("/lib/libstdc++.so.6: version `GLIBCXX_3.4.32\' not found")', "comfy/sd.py"
        ),
    ),
    "file-of-paths-invalid": Start(
        "extra-model-paths-invalid",
        "import yaml\nat('utils/extra_config.py', 'import yaml; yaml.safe_load(open(\"extra_model_paths.yaml\"))')",
    ),
    "port-taken": Start(
        "port-in-use",
        "import socket\none = socket.socket(); one.bind(('127.0.0.1', 0)); one.listen()\n"
        + ASYNC
        + "    await loop.create_server(asyncio.Protocol, '127.0.0.1', one.getsockname()[1])\nasyncio.run(run())",
    ),
    "address-of-another-machine": Start(
        "listen-address-invalid",
        ASYNC
        + "    await loop.create_server(asyncio.Protocol, '192.0.2.1', 8188)\nasyncio.run(run())",
    ),
    "port-of-the-system": Start(
        "port-forbidden",
        raising(
            "PermissionError(13, \"error while attempting to bind on address ('0.0.0.0', 80): permission denied\")",
            "server.py",
        ),
    ),
    "killed": Start("host-oom-killed", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
    "crashed": Start("process-crashed", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"),
    "runtime-loaded-twice": Start(
        "openmp-twice",
        "import os\nlog('OMP: Error #15: Initializing libiomp5md.dll, but found libiomp5md.dll already initialized.')\nos.abort()",
    ),
    "disk-full": Start(
        "disk-full",
        'at(\'app/logger.py\', \'with open("/dev/full", "w") as file: file.write("x" * 10**6)\')',
    ),
    "database-locked": Start(
        "database-locked",
        "import sqlite3, tempfile, os\nplace = os.path.join(tempfile.mkdtemp(), 'd.db')\none, two = (sqlite3.connect(place, timeout=0.1) for _ in range(2))\n"
        "one.execute('create table t (x)'); one.execute('begin exclusive')\ntwo.execute('insert into t values (1)')",
    ),
    "files-without-end": Start(
        "too-many-files",
        "import resource, os\nresource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\nfiles = [open(__file__) for _ in range(30)]",
    ),
    "memory-of-the-machine": Start(
        "host-oom-killed",
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))\nbytearray(4 * 10**9)",
    ),
    "weights-that-are-a-page": Start(
        "model-file-corrupt",
        "open('model.safetensors', 'w').write('<!DOCTYPE html>' * 100)\nat('comfy/utils.py', 'import safetensors; safetensors.safe_open(\"model.safetensors\", \"np\")')",
    ),
}


def make(folder: Path, name: str) -> Path:
    """An installation that fails in this way."""
    main_py(folder, AT + STARTS[name].code)
    (folder / "extra_model_paths.yaml").write_text("comfyui:\n\tloras: models/loras\n")
    return folder
