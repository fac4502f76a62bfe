"""Facts: what we know about one installation, frozen, JSON both ways.

A field that nobody could find out holds Unknown(why). Touching it raises NotKnown, so a check
never mistakes "could not look" for "is fine".
"""

from __future__ import annotations

import types
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from doctor.manifest import World


class Refusal(Exception):
    """What was asked cannot be done, for a reason the person can change: one clear sentence."""

    code = 2  # the exit code: bad usage or input, where a subclass says nothing else
    words: tuple[str, dict[str, Any]] = ("", {})  # of manifests/words.toml, and what fills them


class NotKnown(Exception):
    """Somebody used a fact that nobody could find out."""

    def __init__(self, why: str, skipped: bool = False) -> None:
        super().__init__(why)
        self.skipped = skipped


class Unknown:
    """The reason a fact is missing. Loud on any use.

    `skipped` tells "you asked me not to look" from "I could not look".
    """

    def __init__(self, why: str, skipped: bool = False) -> None:
        self.why = why
        self.skipped = skipped

    def __repr__(self) -> str:
        return f"Unknown({self.why!r})"

    def refuse(self, *_: object) -> Any:
        raise NotKnown(self.why, self.skipped)

    __getattr__ = __getitem__ = __iter__ = __len__ = __bool__ = __contains__ = refuse
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __str__ = __format__ = refuse  # type: ignore[assignment]
    __hash__ = object.__hash__  # so that it may be a default


UNASKED: Any = Unknown("nobody asked")


@dataclass(frozen=True)
class Target:
    """Which installation, which interpreter, and why that one."""

    comfyui: str | None = None  # the folder, or None: only an interpreter is judged
    python: str | None = None  # the interpreter, or None: there is none
    why: str = ""
    layout: str = ""  # venv, conda, portable, system, none
    flags: tuple[str, ...] = ()  # interpreter flags this layout starts ComfyUI with ("-s")
    others: tuple[str, ...] = ()  # interpreters found and not chosen
    named: bool = False  # the user named it, and it would not be found without


@dataclass(frozen=True)
class Host:
    os: str = UNASKED  # linux, windows, macos
    machine: str = UNASKED  # x86_64, aarch64, arm64, amd64
    name: str = UNASKED  # "Debian GNU/Linux 12 (bookworm)"
    libc: str = UNASKED  # "glibc 2.36", "" where there is none
    container: str = UNASKED  # "docker", "podman", "kubernetes", "" outside
    wsl: bool = UNASKED
    cpus: int = UNASKED
    memory: int = UNASKED  # bytes
    memory_free: int = UNASKED  # bytes
    swap: int = UNASKED  # bytes of swap, or of Windows' paging files
    lacks: tuple[str, ...] = UNASKED  # instructions of usual wheels that the processor lacks
    open_files: int = UNASKED  # how many files a process may open; 0 where nothing limits it
    compiler: str = UNASKED  # a C compiler on the PATH, "" where there is none
    git: str = UNASKED  # git on the PATH, "" where there is none
    libcuda: tuple[str, ...] = UNASKED  # every libcuda.so.1 that the loader may find
    astray: tuple[str, ...] = UNASKED  # "SSL_CERT_FILE=/x" where nothing lies at that path
    log: tuple[str, ...] = UNASKED  # lines of the kernel's log about cards and killed programs


@dataclass(frozen=True)
class Python:
    """The patient's interpreter, in its own words."""

    version: str = UNASKED  # "3.11.7"
    executable: str = UNASKED
    prefix: str = UNASKED
    base_prefix: str = UNASKED
    implementation: str = UNASKED  # "cpython"
    bits: int = UNASKED
    site: str = UNASKED  # where packages go (purelib)
    path: tuple[str, ...] = UNASKED  # sys.path
    externally_managed: bool = UNASKED  # PEP 668
    pip: bool = UNASKED  # is pip importable
    lacks: tuple[str, ...] = UNASKED  # parts of the standard library it was built without
    headers: bool = UNASKED  # is Python.h there
    encoding: str = UNASKED  # of what it prints: "utf-8"
    led_astray: str = ""  # how it ends where PYTHONPATH is set; "" where it answers all the same
    paths: tuple[str, ...] = UNASKED  # "file.pth: folder" that leads into another environment

    @property
    def in_venv(self) -> bool:
        return self.prefix != self.base_prefix


@dataclass(frozen=True)
class Package:
    version: str  # of the metadata
    location: str = ""  # the folder on sys.path that holds it
    build: str | None = None  # local tag its version.py names ("cpu", "cu130"); None: names none
    missing: tuple[str, ...] = ()  # files of its RECORD that are not there (looked at for few)
    requires: tuple[str, ...] = ()  # Requires-Dist, verbatim
    record: bool = True  # has the list of its files, without which pip cannot remove it
    source: str = ""  # what pip was given instead of a name: "git+URL@commit", "-e URL", a wheel
    again: tuple[str, ...] = ()  # "1.0 in FOLDER": the same name once more on sys.path


@dataclass(frozen=True)
class Torch:
    """What torch/version.py says, without importing it."""

    version: str  # "2.4.0+cpu"
    build: str  # "cpu", "cu124", "rocm6.2", "xpu"


@dataclass(frozen=True)
class Import:
    """How importing a module, and one operation of it, went in a child of the patient."""

    ok: bool
    error: str = ""  # "ImportError: libtorch_cpu.so: cannot open ..."; the last line
    trace: tuple[str, ...] = ()  # last lines of what the child printed
    signal: str = ""  # "SIGSEGV" where the child died of one
    timeout: bool = False
    seconds: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)  # answers of the operation


@dataclass(frozen=True)
class Gpu:
    name: str
    vendor: str = "nvidia"  # nvidia, amd, intel, apple
    driver: str = ""  # as the driver prints it: "560.94"
    capability: str = ""  # "8.9"; "" where the driver does not say
    memory: int = 0  # bytes
    used: int = 0  # bytes of it that are taken now
    ecc: int = 0  # errors of its memory that could not be corrected, so far
    slowed: tuple[str, ...] = ()  # why it runs below its clock now, by its own word
    lanes: int = 0  # of its PCIe link, now; 0 where the driver does not say
    lanes_most: int = 0  # that the card itself has


@dataclass(frozen=True)
class Flag:
    """A launch flag that is kept for an installation."""

    why: str  # the finding it is kept against; or its owner's own words
    value: str = ""  # what stands behind it: the 1.0 of --reserve-vram 1.0
    because: tuple[str, ...] = ()  # the facts of that day
    when: str = ""  # ISO 8601, UTC
    where: dict[str, str] = field(default_factory=dict)  # card, driver and torch of that day


@dataclass(frozen=True)
class ComfyUI:
    """The checkout. `present` is false for a folder that holds none (yet)."""

    path: str
    present: bool = True
    empty: bool = False  # nothing at all in the folder
    version: str = ""  # "0.3.64"
    commit: str = ""
    requirements: tuple[str, ...] = ()  # lines of requirements.txt, verbatim
    flags: dict[str, Flag] = field(default_factory=dict)  # launch flags kept for it
    faults: tuple[str, ...] = ()  # lines of its last start that name a fault
    faults_at: str = ""  # when the log they stand in was last written; ISO 8601, UTC
    cuda_malloc: tuple[str, ...] = ()  # card names on ComfyUI's own list, from cuda_malloc.py


@dataclass(frozen=True)
class Node:
    """One folder or file of custom_nodes that ComfyUI would try to load."""

    name: str
    loads: bool = True  # has an __init__.py at its top
    inner: str = ""  # a folder in it that has one instead
    requires: tuple[str, ...] = ()  # lines of its requirements.txt
    empty: bool = False
    archive: bool = False  # an archive that nobody unpacked
    core: str = ""  # the ComfyUI that its pyproject.toml asks for: ">=0.3.40"
    failed: str = ""  # why the last start could not import it, by ComfyUI's log


@dataclass(frozen=True)
class ModelFile:
    """A model file that is damaged, or not what its extension says."""

    path: str  # below models
    kind: str  # by its first bytes: "web page", "git-lfs pointer", "safetensors", "pickle" ...
    size: int  # bytes
    expected: int = 0  # bytes its own header promises; 0 where it promises nothing
    holds: str = ""  # by the names of its tensors: "LoRA", "VAE"; "" where it lies in its folder


@dataclass(frozen=True)
class Folder:
    """What lies in the ComfyUI folder besides its code."""

    nodes: tuple[Node, ...] = ()
    models: int = 0  # model files looked at
    unseen: int = 0  # model files there was no time for
    odd: tuple[ModelFile, ...] = ()
    extra_paths: tuple[str, ...] = ()  # what is wrong with extra_model_paths.yaml
    shadows: tuple[str, ...] = ()  # files beside main.py that hide a module
    read_only: tuple[str, ...] = ()  # folders ComfyUI writes to, and may not
    absent: tuple[str, ...] = ()  # folders that extra_model_paths.yaml names and are not there
    database: str = ""  # what is wrong with user/comfyui.db
    database_held: str = ""  # who holds it now
    damaged: tuple[str, ...] = ()  # what is wrong with clones, folder by folder
    foreign: tuple[str, ...] = ()  # clones of another user, which git refuses


@dataclass(frozen=True)
class Disk:
    path: str
    free: int  # bytes
    total: int  # bytes
    what: str = ""  # "installation", "temp", "cache", "models"
    entries: int = -1  # files it has room for; -1 where it does not count them


@dataclass(frozen=True)
class Port:
    number: int
    taken: bool
    by: str = ""  # "python main.py (pid 4711)", "" where the system does not tell
    free: int = 0  # the next port that is not taken; looked for only where this one is
    usual: bool = True  # is ComfyUI's own port (8188) to be had, where another one is kept


@dataclass(frozen=True)
class Reached:
    """One address that was asked, and what came of it."""

    name: str  # index, torch-index, github, archive, raw, registry, models
    url: str
    reason: str = ""  # "" where it answered; else a word of mirrors.Unreachable
    why: str = ""
    seconds: float = 0.0  # to the first byte
    rate: float = 0.0  # bytes per second after it; 0 where too little came to tell
    by: str = ""  # the variable or setting that names this address; "" for the usual one


@dataclass(frozen=True)
class Network:
    """What was reached from this machine. Nothing asked: `asked` is empty."""

    asked: tuple[Reached, ...] = ()
    way_out: bool = True  # does the system know a way to other networks
    proxies: dict[str, str] = field(default_factory=dict)  # variable -> address, no password
    clock: float = 0.0  # seconds that this machine is ahead of a server's clock


@dataclass(frozen=True)
class Failed:
    """A gate of the runner that failed, why, and the experiment under which it passed."""

    gate: str
    why: str
    cured_by: str = ""  # a name of runner/experiments.py


@dataclass(frozen=True)
class Slow:
    """Why the last benchmark was far below the device's own ceilings, by experiment."""

    id: str  # of a finding
    because: str


@dataclass(frozen=True)
class Proof:
    """The failed gates of the last verified render; none where nothing failed, or none was made."""

    failed: tuple[Failed, ...] = ()
    at: str = ""  # when it was made; ISO 8601, UTC
    slow: tuple[Slow, ...] = ()


@dataclass(frozen=True)
class Facts:
    target: Target = UNASKED
    host: Host = UNASKED
    python: Python = UNASKED
    packages: dict[str, Package] = UNASKED  # normalised name -> package
    maker: Python = UNASKED  # the doctor's own Python, which would make a new environment
    torch: Torch | None = UNASKED  # None: not installed
    imports: dict[str, Import] = UNASKED  # module -> how importing it went; absent: not installed
    allocators: dict[str, Import] = UNASKED  # native, cudaMallocAsync -> how working with it went
    packs: dict[str, tuple[str, ...]] = UNASKED  # node pack -> why it cannot be imported
    gpus: tuple[Gpu, ...] = UNASKED
    comfyui: ComfyUI | None = UNASKED  # None: only an interpreter is judged
    folder: Folder | None = UNASKED  # None: only an interpreter is judged
    disks: tuple[Disk, ...] = UNASKED
    port: Port = UNASKED
    environment: dict[str, str] = UNASKED  # variables that change what Python or CUDA do
    network: Network = UNASKED
    proof: Proof = UNASKED
    world: World = UNASKED  # what manifests/ says; never saved


def build(kind: Any, data: Any) -> Any:
    """Turn JSON into facts: {"unknown": why} becomes Unknown, objects become dataclasses.

    Raises TypeError or ValueError on data of another shape.
    """
    if isinstance(data, dict) and "unknown" in data and data.keys() <= {"unknown", "skipped"}:
        return Unknown(data["unknown"], bool(data.get("skipped")))
    if data is None:
        return None
    if isinstance(kind, types.UnionType) or get_origin(kind) is Union:
        (kind,) = (k for k in get_args(kind) if k is not type(None))
    if is_dataclass(kind):
        if not isinstance(data, dict):
            raise TypeError(f"{getattr(kind, '__name__', kind)} is an object, not {data!r:.40}")
        hints = get_type_hints(kind, localns={"World": Any})
        unknown = data.keys() - hints.keys()
        if unknown:
            raise TypeError(f"{getattr(kind, '__name__', kind)} has no {sorted(unknown)[0]!r}")
        made: Any = kind
        return made(**{name: build(hints[name], value) for name, value in data.items()})
    return build_plain(kind, data)


def build_plain(kind: Any, data: Any) -> Any:
    origin = get_origin(kind)
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            raise TypeError(f"a list was expected, not {data!r:.40}")
        return tuple(build(get_args(kind)[0], item) for item in data)
    if origin is dict:
        if not isinstance(data, dict):
            raise TypeError(f"an object was expected, not {data!r:.40}")
        return {name: build(get_args(kind)[1], value) for name, value in data.items()}
    if kind is float and isinstance(data, int):
        return data
    if kind in (str, int, bool, float) and not isinstance(data, kind):
        raise TypeError(f"{kind.__name__} was expected, not {data!r:.40}")
    return data


def plain(fact: Any) -> Any:
    """The way back: what build() reads, ready for json.dumps. `world` and unasked stay out."""
    if isinstance(fact, Unknown):
        return {"unknown": fact.why} | ({"skipped": True} if fact.skipped else {})
    if is_dataclass(fact) and not isinstance(fact, type):
        pairs = ((f.name, getattr(fact, f.name)) for f in fields(fact) if f.name != "world")
        return {name: plain(value) for name, value in pairs if value is not UNASKED}
    if isinstance(fact, (list, tuple)):
        return [plain(item) for item in fact]
    if isinstance(fact, dict):
        return {str(name): plain(value) for name, value in fact.items()}
    return fact


def numbers(version: str) -> tuple[int, ...]:
    """ "560.94" -> (560, 94), so that versions compare as numbers and not as letters."""
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdigit())
