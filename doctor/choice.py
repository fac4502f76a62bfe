"""Which torch is right for this machine: a release, a build and an index, or the reason why none.

Pure. The rules are NVIDIA's (drivers, machine code) and PyTorch's (wheels), the tables manifests/.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from doctor.facts import Facts, Gpu, numbers
from doctor.manifest import Arch, CudaFamily, Release, World

INDEX = "https://download.pytorch.org/whl/"
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


class NoChoice(Exception):
    """No torch fits. `why` is one sentence with the numbers that rule it out."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True)
class Family:
    """torch and what belongs beside it, from one index."""

    torch: str  # "2.14.0"
    torchvision: str
    torchaudio: str  # "" where that index never held it
    build: str  # "cu130", "cpu", "rocm7.2", "xpu"; on macOS "cpu", which holds MPS
    index: str  # "" is the default index
    why: str
    local: str = ""  # "+cu130": the tag in the names of these wheels, where they have one

    @property
    def pins(self) -> tuple[str, ...]:
        """Exact requirements; `torch==2.14.0` alone would accept any build that is there."""
        versions = {
            "torch": self.torch,
            "torchvision": self.torchvision,
            "torchaudio": self.torchaudio,
        }
        return tuple(f"{name}=={v}{self.local}" for name, v in versions.items() if v)


def choose(facts: Facts, want: str = "") -> Family:
    """The newest torch that runs here. `want` narrows the releases: "==2.7.1", "<2".

    Raises NoChoice, and NotKnown where a fact it needs could not be found out.
    """
    releases = tuple(fitting_releases(facts, want))
    if facts.host.os == "macos":
        return apple(facts, releases)
    cards = [gpu for gpu in facts.gpus if gpu.vendor == "nvidia"]
    if cards and any(gpu.driver for gpu in cards):
        return nvidia(facts, releases, [gpu for gpu in cards if gpu.driver])
    others = (*rocm(facts, releases), *xpu(facts, releases))
    return others[0] if others else cpu(facts, releases, without_card(facts))


def fitting_releases(facts: Facts, want: str) -> Iterator[Release]:
    """Releases with wheels for this Python, this libc and the wish, newest first."""
    python, bits = ".".join(facts.python.version.split(".")[:2]), facts.python.bits
    machine = MACHINES.get(facts.host.machine)
    if machine is None or (facts.host.os, machine) == ("windows", "aarch64") or bits != 64:
        what = f"{facts.host.os} on {facts.host.machine} with a {bits}-bit Python"
        raise NoChoice(f"no torch is published for {what}")
    if "musl" in facts.host.libc:
        raise NoChoice(f"torch is published for glibc, and this system has {facts.host.libc}")
    wish = want or f">={least(facts, 'torch')}"
    wished = [r for r in facts.world.releases if r.torch in SpecifierSet(wish)]
    of_python = [release for release in wished if python in release.python]
    if not of_python:
        raise NoChoice(f"no torch{wish} has wheels for Python {python}{closest(facts, python)}")
    glibc = numbers(facts.host.libc.removeprefix("glibc ").strip())
    for release in of_python:
        if not glibc or glibc >= numbers(release.glibc):
            yield release
    if glibc and all(glibc < numbers(release.glibc) for release in of_python):
        oldest = min((release.glibc for release in of_python), key=numbers)
        raise NoChoice(f"torch{wish} for Python {python} needs glibc {oldest}: {facts.host.libc}")


def closest(facts: Facts, python: str) -> str:
    """Which releases do have wheels for this Python, for the end of a sentence."""
    having = [r.torch for r in facts.world.releases if python in r.python]
    return f"; those of {having[-1]} to {having[0]} have" if having else ""


def least(facts: Facts, what: str) -> str:
    """The oldest version of something that this ComfyUI runs with; the newest one's if unknown."""
    core = facts.world.core[0].version
    version = (facts.comfyui.version if facts.comfyui is not None else "") or core
    asked = [f for f in facts.world.floors if f.what == what]
    least = [f.least for f in asked if numbers(f.since) <= numbers(version)]
    return least[-1] if least else "0"


def family(facts: Facts, release: Release, build: str, why: str) -> Family:
    """A release in one build, with the index that holds it."""
    if facts.host.os == "macos":
        return Family(release.torch, release.torchvision, release.torchaudio, "cpu", "", why)
    plain = build == "cpu" and MACHINES.get(facts.host.machine) == "aarch64"
    silent = any(f.build == build and not f.audio for f in facts.world.families)
    return Family(
        release.torch,
        release.torchvision,
        "" if silent else release.torchaudio,
        build,
        INDEX + build,
        why,
        local="" if plain else f"+{build}",
    )


def installed(facts: Facts) -> Family | None:
    """The family of the torch that is there; None for a release or a build we do not know."""
    if facts.torch is None:
        return None
    version, build = facts.torch.version.split("+")[0], facts.torch.build
    release = next((r for r in facts.world.releases if r.torch == version), None)
    if release is None or not (build == "cpu" or build.startswith(("cu", "rocm", "xpu"))):
        return None
    return family(facts, release, build, f"torch {facts.torch.version} is installed")


def nvidia(facts: Facts, releases: Sequence[Release], cards: Sequence[Gpu]) -> Family:
    driver, system = cards[0].driver, driver_system(facts)
    builds = runnable(facts.world, driver, system)
    offered = [f for f in facts.world.families if any(f.build in r.cuda for r in releases)]
    if not any(build in builds for build in offered):
        need = [floor(facts.world, f.cuda, system) for f in offered]
        floors = sorted((n for n in need if n), key=numbers)
        oldest = floors[0] if floors else "any"
        raise NoChoice(f"driver {driver} is older than {oldest}, which the oldest build here needs")
    unknown = [gpu.name for gpu in cards if not capability(gpu, facts.world)]
    if unknown:
        raise NoChoice(
            f"neither the driver nor a table tells the compute capability of {unknown[0]}"
        )
    best = max(cards, key=lambda gpu: numbers(capability(gpu, facts.world)))
    for wanted in (cards, [best]):
        for release, build, arch in compiled(facts, releases, builds):
            if all(runs(capability(gpu, facts.world), arch.sm, facts.world) for gpu in wanted):
                left = [gpu.name for gpu in cards if gpu not in wanted]
                why = (
                    f"driver {driver} runs CUDA {build.cuda}, its wheel holds code for {best.name}"
                )
                return family(facts, release, build.build, why + without(left))
    raise NoChoice(unserved(facts, releases, builds, best))


def without(names: Sequence[str]) -> str:
    return f" (and none for {', '.join(names)})" if names else ""


def unserved(
    facts: Facts, releases: Sequence[Release], builds: Collection[CudaFamily], card: Gpu
) -> str:
    """Why no build that the driver runs serves this card."""
    level = capability(card, facts.world)
    name = f"{card.name} (compute capability {level})"
    ptx = {p for _, _, arch in compiled(facts, releases, builds) for p in arch.ptx}
    if any(portable(level, (p,)) for p in ptx):
        return (
            f"the builds that driver {card.driver} runs hold only portable code (PTX) for {name}, "
            "which is compiled for the card by the driver, not shipped for it"
        )
    return f"no build that driver {card.driver} runs holds machine code for {name}"


def compiled(
    facts: Facts, releases: Sequence[Release], builds: Collection[CudaFamily]
) -> Iterator[tuple[Release, CudaFamily, Arch]]:
    """Releases with the builds of them that the driver runs and whose code is known, best first."""
    ranked = sorted(builds, key=lambda f: (f.audio, numbers(f.cuda)), reverse=True)
    for release in releases:
        for build in ranked:
            arch = compiled_for(facts, release.torch, build.build)
            if build.build in release.cuda and arch is not None:
                yield release, build, arch


def compiled_for(facts: Facts, torch: str, build: str) -> Arch | None:
    """What the wheel of this release and build holds on this system."""
    here = (facts.host.os, MACHINES.get(facts.host.machine, ""))
    minor = ".".join(torch.split("+")[0].split(".")[:2])
    rows = (a for a in facts.world.arches if a.cuda == build and minor in a.torch)
    return next((arch for arch in rows if (arch.os, arch.machine) == here), None)


def runnable(world: World, driver: str, system: str) -> tuple[CudaFamily, ...]:
    """The builds a driver runs, newest CUDA first, as far as the driver decides."""
    return tuple(
        family
        for family in world.families
        if (least := floor(world, family.cuda, system)) and numbers(driver) >= numbers(least)
    )


def floor(world: World, cuda: str, system: str) -> str:
    """The oldest driver for what was built with this CUDA; "" where no table tells."""
    for row in world.driver_floors:  # newest first; a row holds up to the next one
        if numbers(cuda) >= numbers(row.cuda):
            same = numbers(cuda)[0] == numbers(row.cuda)[0]
            return (row.windows if system == "windows" else row.linux) if same else ""
    return ""


def driver_system(facts: Facts) -> str:
    """Whose driver it is: under WSL nvidia-smi tells the version of the one in Windows."""
    return "windows" if facts.host.wsl else facts.host.os


def cuda_version(build: str) -> str:
    """The CUDA a build was made with: "11.8" for cu118, "13.0" for cu130; "" for other builds."""
    digits = build.removeprefix("cu")
    return f"{digits[:-1]}.{digits[-1]}" if build.startswith("cu") and digits.isdigit() else ""


def capability(card: Gpu, world: World) -> str:
    """What the driver says, else the table of names: its longest name found as whole words."""
    if card.capability:
        return card.capability
    words = f" {re.sub(r'[^A-Za-z0-9]+', ' ', card.name)} "
    found = [
        (len(n), row.capability) for row in world.cards for n in row.names if f" {n} " in words
    ]
    return max(found)[1] if found else ""


def runs(capability: str, sm: Collection[str], world: World) -> bool:
    """Machine code for X.y runs on X.z where z >= y. Not on a Jetson: there z = y."""
    major, minor = numbers(capability)[:2]
    tegra = any(row.tegra and row.capability == capability for row in world.cards)
    codes = {(int(code[:-1]), int(code[-1])) for code in map(digits, sm) if code}
    if tegra:
        return (major, minor) in codes
    return any(major == m and minor >= n for m, n in codes)


def portable(capability: str, ptx: Collection[str]) -> bool:
    """Portable code for X.y can be compiled for anything from X.y on."""
    codes = ((int(code[:-1]), int(code[-1])) for code in map(digits, ptx) if code)
    return any(code <= numbers(capability)[:2] for code in codes)


def digits(code: str) -> str:
    """ "90" of sm_90, compute_90, 90 or sm_90a."""
    found = re.search(r"\d{2,}", code)
    return found[0] if found else ""


def rocm(facts: Facts, releases: Sequence[Release]) -> Iterator[Family]:
    cards = [gpu for gpu in facts.gpus if gpu.vendor == "amd" and gpu.capability]
    held = {b.build: b.cards for b in facts.world.backends if facts.host.os in b.os}
    for release in releases if cards else ():
        for build in reversed(release.rocm):
            served = [gpu for gpu in cards if gpu.capability in held.get(build, ())]
            if served:
                why = f"{build} holds code for {served[0].name} ({served[0].capability})"
                yield family(facts, release, build, why)


def xpu(facts: Facts, releases: Sequence[Release]) -> Iterator[Family]:
    for row in (b for b in facts.world.backends if b.vendor == "intel" and facts.host.os in b.os):
        cards = [gpu.name for gpu in facts.gpus if gpu.vendor == "intel" and named(gpu, row.cards)]
        for release in releases if cards else ():
            if numbers(row.oldest) <= numbers(release.torch) <= numbers(row.newest):
                yield family(facts, release, row.build, f"{row.build} is for {cards[0]}")


def named(card: Gpu, words: Collection[str]) -> bool:
    """Does the name hold one of these as whole words? "Arc" is in "Intel(R) Arc(TM) A770"."""
    name = f" {re.sub(r'[^A-Za-z0-9]+', ' ', card.name.replace('(R)', ' '))} "
    return any(f" {word} " in name for word in words)


def supported(card: Gpu, facts: Facts) -> bool:
    """Is there a torch for this card at all, whatever driver and Python are there now?"""
    if card.vendor == "nvidia":
        level = capability(card, facts.world)
        lists = (a.sm for a in facts.world.arches if a.os == facts.host.os)
        return bool(card.driver) and (
            not level or any(runs(level, sm, facts.world) for sm in lists)
        )
    rows = (b for b in facts.world.backends if b.vendor == card.vendor and facts.host.os in b.os)
    return any(card.capability in row.cards or named(card, row.cards) for row in rows)


def apple(facts: Facts, releases: Sequence[Release]) -> Family:
    """macOS: the default index serves one build, which holds MPS on Apple silicon."""
    arm = MACHINES.get(facts.host.machine) == "aarch64"
    said = re.search(r"(\d+)(?:\.\d+)?", facts.host.name)
    here = numbers(said[0]) if said else (99,)
    for release in releases:
        least = release.macos_arm64 if arm else release.macos_x86_64
        if release.confirmed and least and here >= numbers(least)[: len(here)]:
            return family(
                facts, release, "cpu", "MPS" if arm else "an Intel Mac computes on the CPU"
            )
    kind = "Apple silicon" if arm else "Intel Macs"
    raise NoChoice(
        f"no torch from {releases[-1].torch} on is published for {kind} on {facts.host.name}"
    )


def cpu(facts: Facts, releases: Sequence[Release], why: str) -> Family:
    """The pinned release where it fits, else the newest whose builds somebody has read."""
    pinned = {pin.torch for pin in facts.world.pins}
    ranked = sorted(releases, key=lambda r: (r.torch in pinned, r.confirmed), reverse=True)
    return family(facts, ranked[0], "cpu", why)


def without_card(facts: Facts) -> str:
    """Why it is the CPU build."""
    for gpu in facts.gpus:
        if gpu.vendor == "nvidia":
            return f"{gpu.name} has no driver"
        if gpu.vendor in ("amd", "intel"):
            what = f"{gpu.name} {gpu.capability}".strip()
            return f"no build of torch for {what} on {facts.host.os}"
    return "no GPU"
