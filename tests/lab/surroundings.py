"""What is around an installation is broken: variables, limits, disks, ports, other Pythons, cards.

Cards are not to be had here: where a scene needs one, nvidia-smi is a script that prints what the
real one prints, and the case says so.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from tests.lab.folders import started
from tests.lab.installation import Here, Impossible, owes, run, tiny, write
from tests.lab.layouts import STAND_IN, on_another_python, own_python


@owes("two-pythons-mixed", quick=True)
def pythonpath_of_another_tool(here: Here) -> None:
    write(here.root.parent / "tool/helpers.py", "")
    here.variables["PYTHONPATH"] = str(here.root.parent / "tool")


@owes("two-pythons-mixed")
def pythonpath_with_broken_modules(here: Here) -> None:
    """Modules called like the doctor's own libraries: the doctor must start all the same."""
    for name in ("rich", "requests", "psutil", "packaging", "typing_extensions"):
        write(here.root.parent / f"junk/{name}.py", "raise SystemExit('the wrong module')\n")
    here.variables["PYTHONPATH"] = str(here.root.parent / "junk")


@owes("two-pythons-mixed")
def pythonpath_with_a_module_of_python_itself(here: Here) -> None:
    write(here.root.parent / "junk/json.py", "raise SystemExit('the wrong module')\n")
    here.variables["PYTHONPATH"] = str(here.root.parent / "junk")


@owes("two-pythons-mixed")
def path_file_of_another_environment(here: Here) -> None:
    place = here.root.parent / "other/lib/python3.11/site-packages"
    place.mkdir(parents=True)
    write(here.site / "shared.pth", f"{place}\n")


@owes("two-pythons-mixed")
def another_environment_is_active(here: Here) -> None:
    here.variables["VIRTUAL_ENV"] = str(here.root.parent / "other")


@owes("two-pythons-mixed")
def packages_of_the_user_get_in(here: Here) -> None:
    """pip --user, and an environment that lets such packages in."""
    config = here.root / ".venv/pyvenv.cfg"
    text = config.read_text(encoding="utf-8")
    write(config, text.replace("include-system-site-packages = false", INCLUDE))
    home = here.root.parent / "home"
    minor = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    info = home / f".local/lib/{minor}/site-packages/onnx-1.17.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: onnx\nVersion: 1.17.0\n")
    here.variables["HOME"] = str(home)


INCLUDE = "include-system-site-packages = true"


@owes("python-incomplete")
def python_built_without_lzma(here: Here) -> None:
    prefix = own_python(here)
    for part in ("_lzma", "_ctypes"):
        for path in prefix.glob(f"lib/python3*/lib-dynload/{part}.*"):
            path.unlink()
    here.python = environment_of(here, prefix)


def environment_of(here: Here, prefix: Path) -> Path:
    """The environment as if that Python had made it."""
    python = here.root / ".venv/bin/python"
    python.unlink()
    python.symlink_to(next(prefix.glob("bin/python3.[0-9]*[0-9]")))
    write(here.root / ".venv/pyvenv.cfg", f"home = {prefix}/bin\n" + NO_SYSTEM)
    return python


NO_SYSTEM = "include-system-site-packages = false\n"


@owes("pep668-externally-managed")
def python_of_the_system(here: Here) -> None:
    prefix = own_python(here)
    shutil.move(here.site, here.root.parent / "packages")
    shutil.rmtree(here.root / ".venv")
    stdlib = next(p for p in prefix.glob("lib/python3*") if (p / "os.py").exists())
    write(stdlib / "EXTERNALLY-MANAGED", "[externally-managed]\nError=use a venv\n")
    site = stdlib / "site-packages"
    run("cp", "-al", f"{here.root.parent}/packages/.", str(site))
    here.variables["PATH"] = f"{prefix}/bin:{os.environ['PATH']}"
    here.python = prefix / "bin/python3"


@owes("console-encoding")
def console_of_the_nineties(here: Here) -> None:
    here.variables |= {"PYTHONIOENCODING": "iso-8859-1", "PYTHONUTF8": "0"}


@owes("too-many-files")
def few_files_allowed(here: Here) -> None:
    here.before = ["prlimit", "--nofile=256:256"]
    if not shutil.which("prlimit"):
        raise Impossible("no prlimit here")


@owes("network-setting-wrong", quick=True)
def proxy_in_words_of_another_program(here: Here) -> None:
    here.variables["all_proxy"] = "socks://127.0.0.1:7891"


@owes("network-setting-wrong")
def certificates_that_moved(here: Here) -> None:
    here.variables["SSL_CERT_FILE"] = "/nowhere/cacert.pem"


@owes("git-missing")
def path_without_git(here: Here) -> None:
    """The PATH of a service: the doctor's own folder and nothing else."""
    here.variables["PATH"] = str(Path(sys.executable).parent)


def small_disk(here: Here, place: Path, options: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(words, capture_output=True).returncode:
        raise Impossible("only root mounts a small disk")
    here.ended.callback(run, "umount", "-l", str(place))


@owes("disk-full")
def temporary_files_on_a_small_disk(here: Here) -> None:
    small_disk(here, here.root.parent / "temp", "size=50m")
    here.variables["TMPDIR"] = str(here.root.parent / "temp")


@owes("disk-full")
def models_on_a_full_disk(here: Here) -> None:
    small_disk(here, here.root / "models", "size=64m")


@owes("disk-full")
def disk_without_a_free_inode(here: Here) -> None:
    small_disk(here, here.root / "output", "size=20g,nr_inodes=16")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    return number


LISTEN = """import sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
server = HTTPServer((sys.argv[1], int(sys.argv[2])), SimpleHTTPRequestHandler)
print(flush=True)
server.serve_forever()
"""


def keep_port(here: Here) -> int:
    """The port that the owner keeps for this installation, so that 8188 is left alone."""
    number = free_port()
    flags = {"--port": {"why": "kept by hand", "value": str(number)}}
    write(here.root / ".comfy-doctor/flags.json", json.dumps(flags))
    return number


@owes("port-in-use")
def port_taken_by_another_program(here: Here) -> None:
    write(here.root.parent / "other.py", LISTEN)
    script = str(here.root.parent / "other.py")
    started(here, [sys.executable, script, "127.0.0.1", str(keep_port(here))])


@owes("listening-publicly", stand_in="main.py is a web server of ten lines")
def comfyui_for_the_whole_network(here: Here) -> None:
    write(here.root / "main.py", LISTEN.replace("sys.argv[1]", "'0.0.0.0'"))
    words = [str(here.python), "main.py", "--listen", str(keep_port(here))]
    started(here, words, cwd=str(here.root))


SMI = """#!/bin/sh
case "$*" in
*{unknown}*) echo 'Field "x" is not a valid field to query.'; exit 2;;
*) echo '{answer}';;
esac
"""


def a_card(
    here: Here, name: str, *health: str, build: str = "13.0", driver: str = "580.95"
) -> None:
    """nvidia-smi as a script; torch's version.py says that it was built for CUDA."""
    cells = ("8.9", "1000", "0", "16", "16", "Not Active", "Not Active", "Not Active")
    cells = tuple(health) + cells[len(health) :]
    answer = ", ".join((name, driver, "24564", *cells))
    tool = here.root.parent / "bin/nvidia-smi"
    write(tool, SMI.format(unknown="no-such-column", answer=answer))
    tool.chmod(0o755)
    here.variables["PATH"] = f"{tool.parent}:{os.environ['PATH']}"
    if build:
        path = here.site / "torch/version.py"
        text = path.read_text(encoding="utf-8").replace("+cpu", f"+cu{build.replace('.', '')}")
        write(path, text.replace("cuda: Optional[str] = None", f"cuda: Optional[str] = '{build}'"))
        metadata = next(here.site.glob("torch-*.dist-info")) / "METADATA"
        text = metadata.read_text(encoding="utf-8")
        write(metadata, text.replace("+cpu", f"+cu{build.replace('.', '')}", 1))


CARD = "nvidia-smi is a script, torch a CPU build that calls itself one for CUDA"


@owes("torch-cpu-build", stand_in="nvidia-smi is a script", unfixed="2.5 GB of torch")
def cpu_torch_beside_a_card(here: Here) -> None:
    a_card(here, "NVIDIA GeForce RTX 4090", build="")


@owes("docker-no-gpu", stand_in=CARD)
def container_without_its_card(here: Here) -> None:
    a_card(here, "NVIDIA GeForce RTX 4090")
    del here.variables["PATH"]
    here.variables["KUBERNETES_SERVICE_HOST"] = "10.0.0.1"


@owes("nvidia-driver-too-old", stand_in=CARD, unfixed="2.5 GB of torch")
def driver_of_another_year(here: Here) -> None:
    a_card(here, "NVIDIA GeForce RTX 4090", driver="450.80.02")


@owes("gpu-too-old-for-torch", stand_in=CARD, unfixed="2.5 GB of torch")
def pascal_card_beside_cuda_13(here: Here) -> None:
    a_card(here, "NVIDIA GeForce GTX 1080", "6.1")


@owes("cuda-device-not-visible", stand_in=CARD)
def card_hidden_by_a_variable(here: Here) -> None:
    a_card(here, "NVIDIA GeForce RTX 4090")
    here.variables["CUDA_VISIBLE_DEVICES"] = "all"


@owes("allocator-setting-wrong", stand_in=CARD)
def allocator_setting_in_lower_case(here: Here) -> None:
    a_card(here, "NVIDIA GeForce RTX 4090")
    here.variables["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:true"


@owes("library-path", stand_in=CARD)
def toolkit_on_the_library_path(here: Here) -> None:
    a_card(here, "NVIDIA GeForce RTX 4090")
    here.variables["LD_LIBRARY_PATH"] = "/usr/local/cuda/lib64"


@owes("gpu-ecc-errors", stand_in=CARD)
def card_with_memory_errors(here: Here) -> None:
    a_card(here, "NVIDIA A100-SXM4-80GB", "8.0", "1000", "2")


@owes("gpu-slowed", stand_in=CARD)
def card_that_is_too_hot(here: Here) -> None:
    a_card(here, "NVIDIA GeForce RTX 4090", "8.9", "1000", "[N/A]", "16", "16", "Active")


@owes("gpu-link-narrow", stand_in=CARD)
def card_in_the_second_slot(here: Here) -> None:
    a_card(here, "NVIDIA GeForce RTX 4090", "8.9", "1000", "[N/A]", "4", "16")


@owes("gpu-memory-taken", stand_in=CARD)
def card_held_by_another_program(here: Here) -> None:
    a_card(here, "NVIDIA GeForce RTX 4090", "8.9", "24000")


@owes("triton-compile-env", stand_in=CARD)
def triton_without_a_compiler(here: Here) -> None:
    a_card(here, "NVIDIA GeForce RTX 4090")
    tiny(here, "triton", "3.5.0")
    here.variables["PATH"] = f"{here.root.parent}/bin:{Path(sys.executable).parent}"


@owes("attention-package-missing")
def flag_for_sage_without_sage(here: Here) -> None:
    flags = {"--use-sage-attention": {"why": "kept by hand"}}
    write(here.root / ".comfy-doctor/flags.json", json.dumps(flags))


@owes("cpu-instructions-missing")
def virtual_machine_without_avx(here: Here) -> None:
    """/proc/cpuinfo of a plain QEMU processor, mounted over the real one for the doctor alone."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        raise Impossible("only root has mounts of its own")
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    plain = here.root.parent / "cpuinfo"
    for word in (" avx2", " avx", " sse4_2"):
        text = text.replace(word, "")
    plain.write_text(text, encoding="utf-8")
    script = f'mount --bind {plain} /proc/cpuinfo; exec "$@"'
    here.before = ["unshare", "-m", "sh", "-c", script, "sh"]


@owes("python-unsupported", stand_in=STAND_IN)
def a_python_of_2020(here: Here) -> None:
    on_another_python(here, "3.9")
