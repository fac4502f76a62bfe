"""What manifests/ says about things outside this machine: frozen rows, each with its reason.

A table's rows become one dataclass; checks and fixes read them as `facts.world`.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from manifests import FOLDER

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, kw_only=True)
class Row:
    """What every row has."""

    why: str
    source: tuple[str, ...]  # addresses, or what was read where there is none
    checked: str  # the day the source was read


@dataclass(frozen=True, kw_only=True)
class Mirror(Row):
    """Another address for the same bytes."""

    name: str
    of: str  # the start of an original address, ends with "/"; "" for the default index
    at: str  # "https://mirror.example/{path}" or "https://proxy.example/{url}"
    kind: str  # clone, archive, raw, wheels, find-links, index, models
    region: str

    def route(self, url: str) -> str:
        return self.at.format(path=url.removeprefix(self.of), url=url)


@dataclass(frozen=True, kw_only=True)
class Release(Row):
    """One release of torch, and what belongs beside it."""

    torch: str
    date: str
    python: tuple[str, ...]  # "3.12", "3.13t"
    torchvision: str
    torchaudio: str
    default: str  # the build the default index serves on Linux x86_64
    glibc: str  # the oldest that loads its Linux wheels
    numpy2: tuple[str, ...]  # systems on which it talks to numpy 2
    cuda: tuple[str, ...] = ()
    cuda_linux: tuple[str, ...] = ()
    rocm: tuple[str, ...] = ()
    macos_arm64: str = ""  # the oldest macOS; "" where there is no wheel
    macos_x86_64: str = ""
    confirmed: bool = True  # somebody read which builds PyTorch's own index holds


@dataclass(frozen=True, kw_only=True)
class Arch(Row):
    """The cards whose machine code the wheels of a build hold."""

    cuda: str
    os: str
    machine: str
    torch: tuple[str, ...]  # "2.7"
    sm: tuple[str, ...]  # "86": machine code
    ptx: tuple[str, ...] = ()  # "120": portable code
    assumed: bool = False  # the list of the neighbouring releases


@dataclass(frozen=True, kw_only=True)
class Companion(Row):
    """A companion that pins no exact torch."""

    package: str
    version: str
    torch: str  # ">=2.14.0"


@dataclass(frozen=True, kw_only=True)
class Accelerator(Row):
    """A release of something that is compiled for one torch."""

    package: str
    version: str  # a specifier: "==0.0.34"
    torch: str  # a specifier: "==2.10.0"
    linux: bool = True
    windows: bool = True


@dataclass(frozen=True, kw_only=True)
class Backend(Row):
    """A build of torch that is no CUDA, and the cards it serves."""

    build: str
    vendor: str
    os: tuple[str, ...]
    cards: tuple[str, ...]
    oldest: str = ""
    newest: str = ""


@dataclass(frozen=True, kw_only=True)
class Pin(Row):
    name: str
    torch: str


@dataclass(frozen=True, kw_only=True)
class DriverFloor(Row):
    """The oldest driver for everything built with this CUDA, up to the next row."""

    cuda: str
    linux: str
    windows: str


@dataclass(frozen=True, kw_only=True)
class CudaFamily(Row):
    """A build of torch, its toolkit, and the driver that came with that toolkit."""

    build: str
    cuda: str
    linux: str
    windows: str  # "-": NVIDIA names none
    index: str
    audio: bool = True


@dataclass(frozen=True, kw_only=True)
class Card(Row):
    capability: str
    architecture: str
    names: tuple[str, ...]
    tegra: bool = False  # a Jetson: code of another minor does not run on it


@dataclass(frozen=True, kw_only=True)
class CudaMalloc(Row):
    """ComfyUI's list of cards that cannot do cudaMallocAsync."""

    marker: str
    names: tuple[str, ...]
    faults: tuple[str, ...]
    free_from: str  # the CUDA from which ComfyUI no longer asks the list


@dataclass(frozen=True, kw_only=True)
class FlagCure(Row):
    """A launch flag against a finding; of several, the one that costs least stands first."""

    finding: str
    flag: str
    value: str = ""
    any_value: bool = False  # whatever its value: the owner's own will do
    faults: tuple[str, ...] = ()  # what the finding is told by in ComfyUI's log
    experiments: tuple[str, ...] = ()  # of the runner, which prove that this flag cures


@dataclass(frozen=True, kw_only=True)
class System(Row):
    """A family of distributions, and how a package of theirs is installed."""

    family: str
    names: tuple[str, ...]
    install: str
    like: str = ""  # the family whose names of packages it shares


@dataclass(frozen=True, kw_only=True)
class Part(Row):
    """Something of the operating system, by family: packages, or other commands."""

    part: str
    packages: dict[str, str] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Exclusive(Row):
    """Flags of which main.py takes one at a time."""

    flags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Precision(Row):
    rule: str
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NumpyText(Row):
    text: str
    built: str = ""  # "1", "2", "other": the numpy the module was built for


@dataclass(frozen=True, kw_only=True)
class NumpyBuild(Row):
    module: str
    packages: tuple[str, ...]
    first_good: str  # the first version that loads on numpy 2; "" where none is known
    last_for_1: str  # the newest that accepts numpy 1.26.4; "" where nobody asked


@dataclass(frozen=True, kw_only=True)
class PythonLife(Row):
    version: str
    ends: str  # the last month with security fixes: "2027-10"


@dataclass(frozen=True, kw_only=True)
class Floor(Row):
    """What ComfyUI asks for, from one of its versions on."""

    since: str
    what: str
    least: str


@dataclass(frozen=True, kw_only=True)
class Lenient(Row):
    package: str


@dataclass(frozen=True, kw_only=True)
class Core(Row):
    repository: str
    port: int
    version: str
    commit: str  # one that any mirror may deliver where the origin cannot be asked; its release
    release: str


@dataclass(frozen=True, kw_only=True)
class Limit(Row):
    what: str
    error: int  # bytes; files, for `entries`
    warning: int


@dataclass(frozen=True, kw_only=True)
class Xid(Row):
    """A number by which NVIDIA's driver names a fault in the kernel's log."""

    number: int
    what: str
    hardware: bool = False  # the card, its memory or its slot, rather than a program


@dataclass(frozen=True, kw_only=True)
class Allocator(Row):
    """Names that torch knows in PYTORCH_CUDA_ALLOC_CONF."""

    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Place(Row):
    """An address that something needs, to be asked whether it is within reach."""

    name: str
    url: str
    variables: tuple[str, ...] = ()  # of these, the first that is set stands in its place
    path: str = ""  # behind the address that a variable gives


@dataclass(frozen=True, kw_only=True)
class BadPackage(Row):
    """Releases on an index that are known to be malicious."""

    name: str
    versions: tuple[str, ...]  # "*": all there are


@dataclass(frozen=True, kw_only=True)
class BadPack(Row):
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BadHost(Row):
    host: str


@dataclass(frozen=True, kw_only=True)
class BadFile(Row):
    pattern: str  # of a file's name, as fnmatch has it


@dataclass(frozen=True, kw_only=True)
class Popular(Row):
    """Names of distributions that are worth imitating."""

    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Published(Row):
    """Guided steps a second that somebody published for a card; 0 where that size was not timed."""

    card: str
    stack: str
    sd15_512: float = 0.0
    sdxl_1024: float = 0.0


@dataclass(frozen=True)
class World:
    """Every table, newest first where its rows have an age."""

    mirrors: tuple[Mirror, ...] = ()
    releases: tuple[Release, ...] = ()
    arches: tuple[Arch, ...] = ()
    companions: tuple[Companion, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    backends: tuple[Backend, ...] = ()
    pins: tuple[Pin, ...] = ()
    driver_floors: tuple[DriverFloor, ...] = ()
    families: tuple[CudaFamily, ...] = ()
    cards: tuple[Card, ...] = ()
    cuda_malloc: tuple[CudaMalloc, ...] = ()
    flag_cures: tuple[FlagCure, ...] = ()
    exclusive: tuple[Exclusive, ...] = ()
    systems: tuple[System, ...] = ()
    parts: tuple[Part, ...] = ()
    precision: tuple[Precision, ...] = ()
    numpy_abi: tuple[NumpyText, ...] = ()
    numpy_removed: tuple[NumpyText, ...] = ()
    numpy_builds: tuple[NumpyBuild, ...] = ()
    pythons: tuple[PythonLife, ...] = ()
    floors: tuple[Floor, ...] = ()
    lenient: tuple[Lenient, ...] = ()
    core: tuple[Core, ...] = ()
    limits: tuple[Limit, ...] = ()
    xids: tuple[Xid, ...] = ()
    published: tuple[Published, ...] = ()
    allocator: tuple[Allocator, ...] = ()
    places: tuple[Place, ...] = ()
    bad_packages: tuple[BadPackage, ...] = ()
    bad_packs: tuple[BadPack, ...] = ()
    bad_hosts: tuple[BadHost, ...] = ()
    bad_files: tuple[BadFile, ...] = ()
    popular: tuple[Popular, ...] = ()

    def routes(self, url: str, kind: str) -> tuple[str, ...]:
        """The address itself, then the same thing on every mirror of that kind, in order."""
        mirrors = (m for m in self.mirrors if m.kind == kind and url.startswith(m.of))
        return (url, *(mirror.route(url) for mirror in mirrors))


TABLES: dict[str, tuple[str, str, type[Row]]] = {  # field of World -> file, table, kind of row
    "mirrors": ("mirrors", "mirrors", Mirror),
    "releases": ("torch", "releases", Release),
    "arches": ("torch", "arches", Arch),
    "companions": ("torch", "companions", Companion),
    "accelerators": ("torch", "accelerators", Accelerator),
    "backends": ("torch", "backends", Backend),
    "pins": ("torch", "pins", Pin),
    "driver_floors": ("cuda", "floors", DriverFloor),
    "families": ("cuda", "families", CudaFamily),
    "cards": ("gpus", "cards", Card),
    "cuda_malloc": ("gpus", "cuda_malloc", CudaMalloc),
    "flag_cures": ("launch", "flag_cures", FlagCure),
    "systems": ("system", "systems", System),
    "parts": ("system", "parts", Part),
    "exclusive": ("launch", "exclusive", Exclusive),
    "precision": ("gpus", "precision", Precision),
    "numpy_abi": ("numpy", "abi", NumpyText),
    "numpy_removed": ("numpy", "removed", NumpyText),
    "numpy_builds": ("numpy", "builds", NumpyBuild),
    "pythons": ("python", "pythons", PythonLife),
    "floors": ("comfyui", "floors", Floor),
    "lenient": ("comfyui", "lenient", Lenient),
    "core": ("comfyui", "core", Core),
    "limits": ("limits", "limits", Limit),
    "xids": ("faults", "xids", Xid),
    "published": ("published", "published", Published),
    "allocator": ("faults", "allocator", Allocator),
    "places": ("mirrors", "places", Place),
    "bad_packages": ("suspects", "bad_packages", BadPackage),
    "bad_packs": ("suspects", "bad_packs", BadPack),
    "bad_hosts": ("suspects", "bad_hosts", BadHost),
    "bad_files": ("suspects", "bad_files", BadFile),
    "popular": ("suspects", "popular", Popular),
}


@cache
def read(path: Path) -> dict[str, Any]:
    """One TOML file as it is."""
    file: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return file


def rows(file: dict[str, Any], table: str, kind: type[Row]) -> Iterator[Row]:
    """The rows of a table: `defaults` filled in, lists made tuples, names of sources looked up."""
    defaults = file.get("defaults", {}).get(table, {})
    for written in file[table]:
        row: dict[str, Any] = {**defaults, **written}
        row["source"] = [file["sources"][name] for name in row["source"].split()]
        cells: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        yield kind(**cells)


@cache
def world(folder: Path = FOLDER) -> World:
    tables: dict[str, Any] = {
        field: tuple(rows(read(folder / f"{file}.toml"), table, kind))
        for field, (file, table, kind) in TABLES.items()
    }
    return World(**tables)
