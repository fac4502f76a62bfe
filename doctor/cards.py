"""The cards of this machine: what their drivers' tools tell, and what lies on the PCI bus."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.facts import Gpu, Unknown
from doctor.machine import ask_tool

VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}  # pci.ids


BASE = ("name", "driver_version", "memory.total")
# each list of columns is younger than the next: a driver that does not know one refuses the whole
HEALTH = (
    "compute_cap",
    "memory.used",
    "ecc.errors.uncorrected.aggregate.total",
    "pcie.link.width.current",
    "pcie.link.width.max",
)
REASONS = ("hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown")
EVENTS, THROTTLE = (  # the name before and after driver 535
    tuple(f"clocks_{word}_reasons.{reason}" for reason in REASONS) for word in ("event", "throttle")
)
QUERIES = (
    (*BASE, *HEALTH, *EVENTS),
    (*BASE, *HEALTH, *THROTTLE),
    (*BASE, "compute_cap"),
    BASE,
)


def gpus() -> Any:
    """Cards (tuple[Gpu, ...]) by their drivers' tools, or Unknown where a tool fails.

    Cards on the PCI bus that no tool names have no driver.
    """
    said, columns = asked()
    if isinstance(said, Unknown) and not any(g.vendor == "nvidia" for g in on_the_bus()):
        said = None  # the tool is there, the card is not: an image built for cards
    if isinstance(said, Unknown):
        return said
    found = list(nvidia(said or "", columns))
    amd = ask_tool("rocm-smi", "--showproductname", "--showdriverversion", "--json")
    found += rocm(amd) if isinstance(amd, str) else []
    seen = {gpu.vendor for gpu in found}
    return (*found, *(gpu for gpu in on_the_bus() if gpu.vendor not in seen))


def asked() -> tuple[str | Unknown | None, tuple[str, ...]]:
    """What nvidia-smi answers to the longest list of columns that it knows, and that list."""
    said: str | Unknown | None = None
    for columns in QUERIES:
        query = f"--query-gpu={','.join(columns)}"
        said = ask_tool("nvidia-smi", query, "--format=csv,noheader,nounits")
        if not isinstance(said, Unknown) or "did not answer" in said.why:
            return said, columns
    return said, BASE


def nvidia(text: str, columns: tuple[str, ...] = QUERIES[2]) -> Iterator[Gpu]:
    """Rows of `nvidia-smi --query-gpu=COLUMNS --format=csv,noheader,nounits` (memory in MiB)."""
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) < len(BASE):
            continue
        cells = dict(zip(columns, (cell.strip() for cell in row), strict=False))
        level = cells.get("compute_cap", "")
        slowed = (r for r in REASONS if active(cells, r))
        yield Gpu(
            name=cells["name"],
            driver=cells["driver_version"],
            capability=level if level[:1].isdigit() else "",
            memory=number(cells, "memory.total") << 20,
            used=number(cells, "memory.used") << 20,
            ecc=number(cells, "ecc.errors.uncorrected.aggregate.total"),
            slowed=tuple(reason.replace("_", " ") for reason in slowed),
            lanes=number(cells, "pcie.link.width.current"),
            lanes_most=number(cells, "pcie.link.width.max"),
        )


def number(cells: dict[str, str], column: str) -> int:
    """0 where the driver has no such number: "[N/A]", "[Not Supported]"."""
    text = cells.get(column, "")
    return int(text) if text.isdigit() else 0


def active(cells: dict[str, str], reason: str) -> bool:
    return any(n.endswith(f".{reason}") and said == "Active" for n, said in cells.items())


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
