"""The machine around the patient: system, memory, kernel, disks, ports, variables."""

import errno
import os
import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from doctor.facts import Disk, Host, Port, Unknown

SYSTEMS = {"Linux": "linux", "Windows": "windows", "Darwin": "macos"}
TELLING = re.compile(  # variables that change what Python, pip, CUDA or the network do
    r"^(PYTHON(PATH|HOME|NOUSERSITE|UTF8|STARTUP|SAFEPATH)|VIRTUAL_ENV|CONDA_PREFIX"
    r"|CUDA_VISIBLE_DEVICES|CUDA_HOME|CUDA_MODULE_LOADING|HIP_\w+|HSA_\w+|ROCR_VISIBLE_DEVICES"
    r"|NVIDIA_VISIBLE_DEVICES|NVIDIA_DRIVER_CAPABILITIES|PYTORCH_\w*ALLOC_CONF|PYTORCH_MPS_\w+|TORCH_\w+"
    r"|LD_LIBRARY_PATH|LD_PRELOAD|(SSL_CERT|REQUESTS_CA|CURL_CA)_\w+|(PIP|UV)_\w*(INDEX|FIND_LINKS|CONSTRAINT|CERT)\w*"
    r"|\w*_ENDPOINT|OMP_NUM_THREADS|MKL_\w+|KMP_\w+|(https?|all|no)_proxy)$",
    re.IGNORECASE,
)


COMPILERS = ("cc", "gcc", "clang", "cl")
LIBCUDA = tuple(  # where the loader of Linux looks, and where WSL puts that of Windows
    Path(folder, "libcuda.so.1")
    for folder in (
        "/usr/lib/wsl/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/cuda/compat",
    )
)
USUAL = ("sse4_2", "avx", "avx2")  # instructions that wheels of torch and numpy are built with
TOLD = re.compile(  # NVIDIA's driver (NVRM, Xid), and the kernel out of memory
    r"NVRM: Xid|GPU has fallen off the bus|Out of memory: Kill|oom-kill:|Memory cgroup out of"
)


def host() -> Host:
    memory = psutil.virtual_memory()
    system = SYSTEMS.get(platform.system(), platform.system().lower())
    return Host(
        os=system,
        machine=platform.machine().lower(),
        name=system_name(),
        libc=" ".join(platform.libc_ver()).strip() if system == "linux" else "",
        container=container(),
        wsl="microsoft" in platform.release().lower(),
        cpus=os.cpu_count() or 1,
        memory=min(memory.total, memory_limit()),
        memory_free=min(memory.available, memory_limit()),
        swap=psutil.swap_memory().total,
        lacks=lacking(),
        open_files=open_files(),
        compiler=next(filter(None, map(shutil.which, COMPILERS)), "") or "",
        git=shutil.which("git") or "",
        libcuda=tuple(str(place) for place in LIBCUDA if place.exists()),
        astray=tuple(astray()),
        log=kernel_log() if system == "linux" else (),
    )


def system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)


def container() -> str:
    """Which container we are in, by the marks its engine leaves; "" outside."""
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    return "kubernetes" if os.environ.get("KUBERNETES_SERVICE_HOST") else ""


NAMES_A_PLACE = (
    "SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_CERT GIT_SSL_CAINFO"
    " TMPDIR PYTHONHOME"
).split()


def astray() -> Iterator[str]:
    """Variables that name a file or folder that is not there."""
    for name in NAMES_A_PLACE:
        value = os.environ.get(name)
        if value and not os.path.exists(value):
            yield f"{name}={value}"


def lacking(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """The usual instructions that this x86-64 processor does not name; () where nobody says."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ()
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return ()
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return tuple(n for n in USUAL if n not in flags[1].split()) if flags else ()


def open_files() -> int:
    try:
        import resource
    except ImportError:  # Windows sets no such limit
        return 0
    most: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 0 if most == resource.RLIM_INFINITY else most


def kernel_log(device: Path = Path("/dev/kmsg")) -> Any:
    """The lines of the kernel's log that a check reads, the last 40, or Unknown where it is
    closed to this user. Each read gives one record (Documentation/ABI/testing/dev-kmsg)."""
    found = []
    try:
        log = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        return Unknown(f"the kernel's log is closed to this user: {error.strerror}")
    try:
        while record := os.read(log, 8192):
            line = record.decode(errors="replace").partition(";")[2].splitlines()
            found += line[:1] if line and TOLD.search(line[0]) else []
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EPIPE):
            return Unknown(f"the kernel's log cannot be read: {error.strerror}")
    finally:
        os.close(log)
    return tuple(found[-40:])


def memory_limit() -> int:
    """Bytes that the control group allows (cgroup v2 memory.max, v1 limit_in_bytes)."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (Path("/sys/fs/cgroup") / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text)
    return 1 << 62


def ask_tool(*words: str, timeout: float = 10) -> str | Unknown | None:
    """What a vendor's tool prints; None where it is not installed; Unknown where it fails."""
    path = shutil.which(words[0])
    if path is None:
        return None
    try:
        run = subprocess.run(
            [path, *words[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return Unknown(f"{words[0]} did not answer within {timeout:.0f} s")
    except OSError as error:
        return Unknown(f"{words[0]} could not be started: {error.strerror}")
    if run.returncode:
        said = (run.stdout + run.stderr).strip().splitlines()[-1:] or ["nothing"]
        return Unknown(f"{words[0]} exited with {run.returncode} and said: {said[0]}")
    return run.stdout


def disks(places: dict[str, Path]) -> tuple[Disk, ...]:
    """Free bytes where things will be written: {"installation": folder, "temp": ...}."""
    found = []
    for what, place in places.items():
        there = next((p for p in (place, *place.parents) if p.exists()), None)
        if there is not None:
            usage = shutil.disk_usage(there)
            found.append(Disk(str(place), usage.free, usage.total, what, entries(there)))
    return tuple(found)


def entries(place: Path) -> int:
    """How many more files the file system has room for; -1 where it counts none."""
    if not hasattr(os, "statvfs"):
        return -1
    system = os.statvfs(place)
    return system.f_favail if system.f_files else -1


def port(number: int) -> Port:
    """Is somebody listening on 127.0.0.1, and who?"""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        taken = probe.connect_ex(("127.0.0.1", number)) == 0
    if not taken:
        return Port(number, False)
    return Port(number, True, listener(number), free=next(free_after(number), 0))


def free_after(number: int, most: int = 100) -> Iterator[int]:
    """Ports above this one that can be bound."""
    for above in range(number + 1, min(number + 1 + most, 65536)):
        with socket.socket() as probe:
            if os.name == "posix":  # as a server does; elsewhere this would share a taken port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", above))
            except OSError:
                continue
            yield above


def listener(number: int) -> str:
    try:
        listening = (
            (connection.pid, connection.laddr.port)
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr
        )
        process = psutil.Process(next(pid for pid, at in listening if pid and at == number))
        return f"{' '.join(process.cmdline())[:120]} (pid {process.pid})"
    except (psutil.Error, StopIteration, OSError):
        return ""


def users_of(prefix: str) -> Iterator[str]:
    """Processes that run this environment's Python now, ourselves aside: "main.py (pid 4711)"."""
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if words and words[0].startswith(prefix + os.sep) and process.info["pid"] != os.getpid():
            yield f"{' '.join(words[1:])[:80] or words[0]} (pid {process.info['pid']})"


def environment() -> dict[str, str]:
    telling = ((n, v) for n, v in sorted(os.environ.items()) if TELLING.match(n))
    return {name: re.sub(r"(?<=://)[^/@\s]+@", "", value) for name, value in telling}
