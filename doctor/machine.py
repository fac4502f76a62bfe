"""The machine around the patient: system, cards and drivers, disks, ports, variables."""

import csv
import json
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

from doctor.facts import Disk, Gpu, Host, Port, Unknown

SYSTEMS = {"Linux": "linux", "Windows": "windows", "Darwin": "macos"}
VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}  # pci.ids
TELLING = re.compile(  # variables that change what Python, pip, CUDA or the network do
    r"^(PYTHON(PATH|HOME|NOUSERSITE|UTF8|STARTUP|SAFEPATH)|VIRTUAL_ENV|CONDA_PREFIX"
    r"|CUDA_VISIBLE_DEVICES|CUDA_HOME|CUDA_MODULE_LOADING|HIP_\w+|HSA_\w+|ROCR_VISIBLE_DEVICES"
    r"|NVIDIA_VISIBLE_DEVICES|NVIDIA_DRIVER_CAPABILITIES|PYTORCH_\w*ALLOC_CONF|TORCH_\w+"
    r"|LD_LIBRARY_PATH|LD_PRELOAD|(PIP|UV)_\w*(INDEX|FIND_LINKS|CONSTRAINT|CERT)\w*"
    r"|\w*_ENDPOINT|OMP_NUM_THREADS|MKL_\w+|KMP_\w+|(https?|all|no)_proxy)$",
    re.IGNORECASE,
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


def gpus() -> Any:
    """Cards (tuple[Gpu, ...]) by their drivers' tools, or Unknown where a tool fails.

    Cards on the PCI bus that no tool names have no driver.
    """
    asked = "--query-gpu=name,driver_version,memory.total"
    form = "--format=csv,noheader,nounits"
    said = ask_tool("nvidia-smi", asked + ",compute_cap", form)
    if isinstance(said, Unknown):  # an nvidia-smi older than 2021 does not know compute_cap
        said = ask_tool("nvidia-smi", asked, form)
    if isinstance(said, Unknown) and not any(g.vendor == "nvidia" for g in on_the_bus()):
        said = None  # the tool is there, the card is not: an image built for cards
    if isinstance(said, Unknown):
        return said
    found = list(nvidia(said or ""))
    amd = ask_tool("rocm-smi", "--showproductname", "--showdriverversion", "--json")
    found += rocm(amd) if isinstance(amd, str) else []
    seen = {gpu.vendor for gpu in found}
    return (*found, *(gpu for gpu in on_the_bus() if gpu.vendor not in seen))


def nvidia(text: str) -> Iterator[Gpu]:
    """Rows of `nvidia-smi --query-gpu=name,driver_version,memory.total[,compute_cap]` (MiB)."""
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) < 3:
            continue
        name, driver, memory, *capability = (cell.strip() for cell in row)
        yield Gpu(
            name=name,
            driver=driver,
            capability=capability[0] if capability and capability[0][:1].isdigit() else "",
            memory=int(memory) << 20 if memory.isdigit() else 0,
        )


def rocm(text: str) -> Iterator[Gpu]:
    """Cards of `rocm-smi --showproductname --showdriverversion --json`."""
    try:
        data = json.loads(text)
    except ValueError:
        return
    driver = str(data.get("system", {}).get("Driver version", ""))
    for key, card in data.items():
        if key.startswith("card") and isinstance(card, dict):
            name = card.get("Card Series") or card.get("Card series") or key
            gfx = card.get("GFX Version", "")
            yield Gpu(name=str(name), vendor="amd", driver=driver, capability=str(gfx))


def on_the_bus(devices: Path = Path("/sys/bus/pci/devices")) -> Iterator[Gpu]:
    """Display controllers (PCI class 03) of the vendors torch has builds for; Linux only.

    Intel's are left out: an integrated one is no reason to want another torch.
    """
    for device in sorted(devices.glob("*")):
        try:
            kind, vendor, model = (
                (device / name).read_text().strip() for name in ("class", "vendor", "device")
            )
        except OSError:
            continue
        if kind.startswith("0x03") and VENDORS.get(vendor) in ("nvidia", "amd"):
            yield Gpu(name=f"PCI {vendor[2:]}:{model[2:]}", vendor=VENDORS[vendor])


def disks(places: dict[str, Path]) -> tuple[Disk, ...]:
    """Free bytes where things will be written: {"installation": folder, "temp": ...}."""
    found = []
    for what, place in places.items():
        there = next((p for p in (place, *place.parents) if p.exists()), None)
        if there is not None:
            usage = shutil.disk_usage(there)
            found.append(Disk(str(place), usage.free, usage.total, what))
    return tuple(found)


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
