"""Hints: what is known of the machine while a log is judged, from the log itself or from facts.

Both give the same names, so that a signature need not know where a hint came from; facts outweigh
what a log lets one guess. A hint that says "there is none" is simply not among them.
"""

import re
from collections.abc import Mapping, Sequence

from packaging.version import InvalidVersion, Version

from doctor.choice import capability, portable, runs
from doctor.facts import Facts, Gpu, NotKnown, numbers
from doctor.manifest import Arch, World

FIT = (
    "gpu-newer-than-wheel",
    "gpu-older-than-wheel",
    "gpu-in-wheel",
    "gpu-newer-maybe",
    "gpu-older-maybe",
)
VENDORS = ("gpu-nvidia", "gpu-amd", "gpu-intel", "mps")


def of_log(
    caught: Mapping[str, Sequence[str]], missing: Sequence[str], world: World
) -> dict[str, str]:
    """What the lines of a log say. `missing` are the modules that could not be imported."""
    hints = {name: values[0] if values else "" for name, values in caught.items()}
    satisfied = {normal(name) for name in caught.get("satisfied", ())}
    if any(normal(module) in satisfied for module in missing):
        hints["satisfied-module"] = ", ".join(missing)
    named = caught.get("torch-named", ())
    if "torch" not in hints and "installing" not in hints and len(named) == 1:
        hints["torch"] = named[0]
    asked = caught.get("version-asked", ())
    if asked and "versions-left-out" not in hints and all(map(is_ahead, asked)):
        hints["version-ahead"] = asked[0]
    own = ["own-python"] if "own-python" in hints else caught.get("env-python", ())
    if own and any(map(is_elsewhere, caught.get("pip-from", ()))):
        hints["pip-elsewhere"] = own[0]
    if "gpu-amd" in hints and "AMD" not in hints.get("gpu", "AMD"):
        del hints["gpu-amd"]  # the device line outweighs a word somewhere
    return hints | wheel(hints, world)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.partition(".")[0]).lower()


def is_ahead(asked: str) -> bool:
    """Is every version that pip found ("name==2.0 (from versions: 0.9, 1.0") older than that?"""
    wanted = asked.partition("==")[2].partition(" ")[0]
    offered = asked.partition("from versions: ")[2].split(", ")
    try:
        return all(Version(wanted) > Version(one) for one in offered)
    except InvalidVersion:
        return False


def is_elsewhere(packages: str) -> bool:
    """Is this folder of packages that of a Python which no installation of ComfyUI brings?"""
    return not re.search(r"(?i)embed|stabilitymatrix|pinokio|comfyui|env\b", packages)


def wheel(hints: Mapping[str, str], world: World) -> dict[str, str]:
    """Does the wheel hold code for the card? "maybe" where its table was not read, but inferred."""
    version, _, build = hints.get("torch", "").partition("+")
    if not build.startswith("cu") or "gpu" not in hints:
        return {}
    system = "windows" if "os-windows" in hints else "linux"
    level = capability(Gpu(hints["gpu"]), world)
    short = ".".join(version.split(".")[:2])
    for row in world.arches:
        if (row.cuda, row.os, row.machine) == (build, system, "x86_64") and short in row.torch:
            return fit(level, row, world) if level else {}
    return {}


def fit(level: str, row: Arch, world: World) -> dict[str, str]:
    if runs(level, row.sm, world) or portable(level, row.ptx):
        return {"gpu-in-wheel": level}
    age = "newer" if whole(level) > max(map(int, row.sm)) else "older"
    return {f"gpu-{age}-{'maybe' if row.assumed else 'than-wheel'}": level}


def whole(level: str) -> int:
    major, minor = numbers(level)[:2]
    return major * 10 + minor


def of_facts(facts: Facts) -> dict[str, str]:
    """The same names from facts; what nobody could find out gives none."""
    hints: dict[str, str] = {}
    for question in (of_cards, of_torch, of_host, of_variables, of_packages):
        try:
            hints |= question(facts)
        except NotKnown:
            continue
    return hints


def of_cards(facts: Facts) -> dict[str, str]:
    hints = {f"gpu-{gpu.vendor}": gpu.name for gpu in facts.gpus}
    if "gpu-apple" in hints or facts.host.os == "macos":
        hints["mps"] = hints.pop("gpu-apple", "")
    hints["gpu-vendor"] = ", ".join(gpu.vendor for gpu in facts.gpus) or "none"
    if facts.gpus:
        hints["gpu"] = facts.gpus[0].name
        hints["driver"] = facts.gpus[0].driver
    return hints


def of_torch(facts: Facts) -> dict[str, str]:
    if facts.torch is None:
        return {"torch-build": "none"}
    version = facts.torch.version
    whole = version if "+" in version else f"{version}+{facts.torch.build}"
    return {"torch": whole, "torch-build": facts.torch.build, "companions": "known"}


def of_host(facts: Facts) -> dict[str, str]:
    hints = {"container-known": facts.host.container}
    if facts.host.container:
        hints["container"] = facts.host.container
    if facts.host.wsl:
        hints["wsl"] = "yes"
    if facts.host.os == "windows":
        hints["os-windows"] = facts.host.name
    return hints


def of_variables(facts: Facts) -> dict[str, str]:
    hiding = [name for name in facts.environment if name.endswith("VISIBLE_DEVICES")]
    return {"visible-devices": ", ".join(hiding)} if hiding else {}


def of_packages(facts: Facts) -> dict[str, str]:
    hints = {"python": facts.python.version, "pip": str(facts.python.pip)}
    if "numpy" in facts.packages:
        hints["numpy"] = facts.packages["numpy"].version
    opencv = [name for name in facts.packages if name.startswith("opencv-")]
    hints["opencv"] = ", ".join(opencv)
    if len(opencv) > 1:
        hints["opencv-several"] = hints["opencv"]
    return hints


def together(log: Mapping[str, str], facts: Mapping[str, str], world: World) -> dict[str, str]:
    """Facts outweigh the log: its word on card, container and torch is dropped."""
    kept = dict(log)
    if "gpu-vendor" in facts:
        for name in (*VENDORS, "gpu", "capability"):
            kept.pop(name, None)
    for known, name in (("container-known", "container"), ("torch-build", "torch")):
        if known in facts:
            kept.pop(name, None)
    kept = {name: value for name, value in kept.items() if name not in FIT} | dict(facts)
    return kept | wheel(kept, world)
