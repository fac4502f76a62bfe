"""Lock: an environment written down, so that the same one can be made elsewhere.

comfy-doctor.lock in the doctor's own folder, after each treatment that stayed: Python, torch's
build, the core's and the node packs' commits, and every package with its version and, where an
index or this doctor's own installation named one, its hash. `fix --from-lock` takes only bytes
with those hashes.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from doctor.examine import commit
from doctor.facts import Facts, Refusal, build
from doctor.installer import CannotInstall, Wheel, report
from doctor.snapshot import write_whole
from doctor.sync import packs
from doctor.uv import pip_settings

NAME = "comfy-doctor.lock"
SCHEMA = "comfy-doctor.lock/1"


class BadLock(Refusal):
    """The file is no lock of ours, or does not suit this Python; the sentence says which."""


@dataclass(frozen=True)
class Locked:
    """One distribution, exactly."""

    name: str
    version: str
    sha256: str = ""  # "": nobody named one

    @property
    def pin(self) -> str:
        """A line of a requirements file in hash-checking mode (pip, "Secure installs")."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class Lock:
    written: str
    python: str  # "3.11.7"
    torch: str  # "2.13.0+cpu"
    build: str  # "cpu"
    comfyui: str  # commit; "" where there is no checkout
    nodes: Mapping[str, str]  # pack -> commit; "" where nothing tells
    packages: tuple[Locked, ...]
    index: str = ""  # the index in use, without a password; "" is the default one


def of(facts: Facts, known: Mapping[tuple[str, str], str]) -> Lock:
    """What is installed now, with the hashes that are known by (name, version)."""
    own = {n: p for n, p in sorted(facts.packages.items()) if p.location == facts.python.site}
    folder = facts.comfyui.path if facts.comfyui is not None else ""
    return Lock(
        written=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        python=facts.python.version,
        torch=facts.torch.version if facts.torch is not None else "",
        build=facts.torch.build if facts.torch is not None else "",
        comfyui=facts.comfyui.commit if facts.comfyui is not None else "",
        nodes={p.name: commit(p) for p in sorted(packs(Path(folder)))} if folder else {},
        index=re.sub(r"(?<=://)[^/@\s]+@", "", pip_settings().get("index-url", "")),
        packages=tuple(Locked(n, p.version, known.get((n, p.version), "")) for n, p in own.items()),
    )


def write(home: Path, facts: Facts, wheels: Iterable[Wheel], offline: bool) -> Lock:
    """Write the lock of what is there now; hashes of this treatment's wheels, of the lock before,
    and of the index for what is left, if it may be asked."""
    known = {(one.name, one.version): one.sha256 for one in wheels if one.sha256}
    if (home / NAME).exists():
        known = {(p.name, p.version): p.sha256 for p in read(home / NAME).packages} | known
    lock = of(facts, known)
    bare = [locked for locked in lock.packages if not locked.sha256]
    if bare and not offline and facts.target.python:
        known |= asked(facts.target.python, bare)
        lock = of(facts, known)
    write_whole(home / NAME, {"schema": SCHEMA, **asdict(lock)})
    return lock


def asked(python: str, bare: Sequence[Locked]) -> dict[tuple[str, str], str]:
    """The hashes that the index in use names for these; nothing where it does not have them all."""
    pins = [f"{locked.name}=={locked.version}" for locked in bare]
    try:
        found = report(python, pins, (), "", True, False)
    except CannotInstall:
        return {}
    return {(one.name, one.version): one.sha256 for one in found}


def read(path: Path) -> Lock:
    """A lock file. BadLock where it is none."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema", None) != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        lock: Lock = build(Lock, data)
    except (ValueError, TypeError, AttributeError) as error:
        raise BadLock(f"{path} is no lock file of comfy-doctor: {error}.") from error
    return lock


def missing(lock: Lock, facts: Facts) -> tuple[Locked, ...]:
    """What the lock names and this environment, or one to be made, lacks.

    BadLock where it cannot be brought.
    """
    fresh = facts.target.python is None
    here = (facts.maker if fresh else facts.python).version
    if lock.python.split(".")[:2] != here.split(".")[:2]:
        raise BadLock(f"The lock is of Python {lock.python}; this is {here}.")
    installed = {} if fresh else facts.packages
    there = {(name, package.version) for name, package in installed.items()}
    lacking = tuple(p for p in lock.packages if (p.name, p.version) not in there)
    unproven = [locked.name for locked in lacking if not locked.sha256]
    if unproven:
        raise BadLock(f"The lock names no hash for {', '.join(unproven)}; nothing can prove them.")
    return lacking
