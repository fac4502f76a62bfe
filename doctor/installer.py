"""Installer: the only caller of pip and uv.

Resolving (`pip install --dry-run --report`) says exactly which wheels would come, before anything
is asked or changed; they are fetched and their hashes checked; then just these are installed,
without an index and without dependencies. pip is the doctor's own, working on the patient's
interpreter (`pip --python`), so that the user's pip configuration holds and a patient without
pip can be treated.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

from packaging.utils import canonicalize_name

from doctor import child, reach, uv
from doctor.download import download
from doctor.mirrors import Unreachable
from doctor.snapshot import Scope, recorded

Progress = Callable[[str], None]
NO_NEED = ("nvidia-", "cuda-", "pytorch-triton", "triton")  # come with a CUDA build of torch only


class CannotInstall(Exception):
    """What was wanted cannot be had here; the sentence says from where it was tried."""


@dataclass(frozen=True)
class Wheel:
    """One distribution to come, exactly."""

    name: str
    version: str
    url: str
    sha256: str = ""
    size: int = 0  # bytes; 0: the index does not say
    before: str = ""  # the version that is there now

    def __str__(self) -> str:
        size = f" ({self.size >> 20} MB)" if self.size >= 1 << 20 else ""
        return f"{self.name} {self.before or '∅'} → {self.version}{size}"


def pip(python: str) -> list[str]:
    """The doctor's own pip, at work in another interpreter; his own pip where that is too old.

    pip supports the Pythons of its day: below 3.10 the patient's own must do.
    """
    own = [sys.executable, "-m", "pip", "--python", python]
    quiet = ["--no-input", "--disable-pip-version-check"]
    return [*(own if version(python) >= (3, 10) else [python, "-m", "pip"]), *quiet]


def version(python: str) -> tuple[int, int]:
    major, minor = ask(python, "list(__import__('sys').version_info[:2])")
    return int(major), int(minor)


def ask(python: str, expression: str) -> Any:
    """The value of an expression in another interpreter, whatever else that one prints."""
    mark = secrets.token_hex(8)
    code = f"import json; print({mark!r} + json.dumps({expression}) + {mark!r})"
    try:
        ended = child.run([python, "-c", code], timeout=60)
        return json.loads(ended.out.split(mark)[1])
    except (OSError, child.TooLate, IndexError, ValueError) as error:
        raise CannotInstall(f"{python} does not answer: {error}") from error


def call(words: Sequence[str], timeout: float = 3600, own: bool = True) -> str:
    """Run pip; its output, or CannotInstall with its own last words. Without `own`, it knows
    nothing of the user's own site folder."""
    env = {**os.environ, **({} if own else {"PYTHONNOUSERSITE": "1"})}
    try:
        ended = child.run(words, timeout=timeout, cwd=tempfile.gettempdir(), env=env)
    except (OSError, child.TooLate) as error:
        raise CannotInstall(f"pip: {error}") from error
    if ended.code:
        raise CannotInstall(last_words(ended.out + ended.err))
    return ended.out


def last_words(said: str) -> str:
    """The lines of pip's that tell the cause: who wants what in a conflict, else its errors."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if "The conflict is caused by:" in lines:
        rest = lines[lines.index("The conflict is caused by:") + 1 :]
        return "; ".join(takewhile(lambda line: re.search("depends on|requested", line), rest))
    errors = [line for line in lines if re.match(r"(ERROR|error)\b", line)]
    told = (line.removeprefix("ERROR: ") for line in (errors or lines[-3:])[:4])
    return " ".join(told) or "pip said nothing"


def resolve(
    python: str,
    wants: Sequence[str],
    *,
    wishes: Sequence[str] = (),
    holds: Sequence[str] = (),
    indexes: Sequence[str] = ("",),
    build: str = "",
    anew: bool = False,
    offline: bool = False,
    say: Progress = lambda _: None,
) -> tuple[Wheel, ...]:
    """The wheels that `wants` come to, from the first index that has them. Changes nothing.

    An interpreter that is still to be made ("") is resolved for by the doctor's own, which will
    make it. `wishes` are asked of named indexes only: their builds agree, those of the default
    index need not. With `build` "cpu", an answer that brings CUDA along is refused as if the
    index had nothing. CannotInstall tells of every index that was tried.
    """
    if not wants and not wishes:
        return ()
    tried = []
    asked = [(index, (*wants, *wishes)) for index in indexes if index and wishes]
    for index, wanted in asked + [(index, tuple(wants)) for index in indexes if wants]:
        where = index or "pip's own configuration"
        try:
            if index:
                reach.reach(index, offline=offline)
            found = report(python, asked_of(index, wanted), holds, index, anew, offline)
            refuse_other_build(found, build)
            return sized(found, offline)
        except (CannotInstall, Unreachable) as error:
            if f"{where}: {error}" not in tried:
                say(f"{where}: {error}")
                tried.append(f"{where}: {error}")
    if not wants:
        return ()
    raise CannotInstall(f"{', '.join(wants)} cannot be had. " + " | ".join(tried))


def asked_of(index: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """The default index knows no build tags: there the plain version is asked for, and judged.

    A hash says exactly which build is meant: such a line stays as it is.
    """
    plain = (one if "--hash=" in one else one.partition("+")[0] for one in wanted)
    return tuple(wanted) if index else tuple(plain)


def report(
    python: str, wants: Sequence[str], holds: Sequence[str], index: str, anew: bool, offline: bool
) -> list[Wheel]:
    """What `pip install --dry-run --report` would bring; "": to an environment with nothing."""
    with tempfile.TemporaryDirectory() as folder:
        said, held, asked = (Path(folder, name) for name in ("report", "held.txt", "wants.txt"))
        held.write_text("\n".join(holds), encoding="utf-8")
        asked.write_text("\n".join(wants), encoding="utf-8")
        words = [*pip(python or sys.executable), "install", "--dry-run"]
        words += ["--report", str(said)] + ([] if python else ["--ignore-installed"])
        words += ["-c", str(held), "-r", str(asked)]
        asked_at = index or uv.default_index()
        words += ["--index-url", asked_at] if asked_at else []
        words += ["--no-index"] if offline else []
        words += ["--force-reinstall", "--no-deps"] if anew else []
        call(words, timeout=600)
        items = json.loads(said.read_text(encoding="utf-8"))["install"]
    return [wheel(item) for item in items]


def wheel(item: dict[str, Any]) -> Wheel:
    """One entry of pip's installation report (pip documentation, "Installation Report", v1)."""
    info, source = item["metadata"], item["download_info"]
    hashes = source.get("archive_info", {}).get("hashes", {})
    return Wheel(
        canonicalize_name(info["name"]), info["version"], source["url"], hashes.get("sha256", "")
    )


def refuse_other_build(wheels: Iterable[Wheel], build: str) -> None:
    """A machine without a card must not be given gigabytes of CUDA."""
    for one in wheels:
        if build == "cpu" and one.name.startswith(NO_NEED):
            raise CannotInstall(f"this torch is a CUDA build (it brings {one.name})")
        tag = one.version.partition("+")[2]
        if build and one.name == "torch" and tag and tag != build:
            raise CannotInstall(f"torch {one.version} is not the {build} build")


def sized(wheels: Sequence[Wheel], offline: bool) -> tuple[Wheel, ...]:
    """The same wheels with their sizes, as far as their servers tell."""
    if offline:
        return tuple(wheels)
    with ThreadPoolExecutor(8) as pool:
        sizes = pool.map(reach.size, [one.url for one in wheels])
        return tuple(replace(one, size=size) for one, size in zip(wheels, sizes, strict=True))


def compared(wheels: Iterable[Wheel], installed: dict[str, str]) -> tuple[Wheel, ...]:
    """The same wheels with the versions they replace."""
    return tuple(replace(one, before=installed.get(one.name, "")) for one in wheels)


def shelf() -> Path:
    """Where wheels lie until they are installed and verified, by their hash."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "comfy-doctor", "wheels")


def on_shelf(one: Wheel) -> Path:
    name = unquote(Path(urlparse(one.url).path).name)
    return shelf() / (one.sha256 or hashlib.sha256(one.url.encode()).hexdigest())[:16] / name


def at_hand(one: Wheel) -> Path | None:
    """The file of a wheel, where it need not be fetched."""
    local = one.url.startswith("file:")
    path = Path(url2pathname(unquote(urlparse(one.url).path))) if local else on_shelf(one)
    return path if path.name.endswith(".whl") and path.is_file() else None


def get(one: Wheel, progress: Progress) -> Path:
    """The wheel as a file, its hash checked; built first where only a source is to be had."""
    name = on_shelf(one).name
    if not name.endswith(".whl"):
        return built(one, progress)
    path = at_hand(one)
    if path is None:
        path = on_shelf(one)
        progress(f"{name} ({one.size >> 20} MB)")

        def told(here: int, total: int) -> None:
            if total >= 1 << 24:
                progress(f"{name} ({here >> 20} of {total >> 20} MB)")

        try:
            download(one.url, path, sha256=one.sha256, progress=each(1 << 23, told))
        except Unreachable as error:
            raise CannotInstall(f"{name} did not arrive: {error}") from error
    check_hash(path, one.sha256)
    return path


def each(step: int, told: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Tell only once in so many bytes: a line of progress costs more than a block of a file."""
    last = -step

    def told_sometimes(here: int, total: int) -> None:
        nonlocal last
        if here - last >= step:
            last = here
            told(here, total)

    return told_sometimes


def forget(wheels: Iterable[Wheel], older: float = 14 * 86_400) -> None:
    """Wheels are kept until what they brought is verified; and what nobody came back for goes."""
    for one in wheels:
        if not one.url.startswith("file:"):
            shutil.rmtree(on_shelf(one).parent, ignore_errors=True)
        shutil.rmtree(shelf() / f"built-{one.name}-{one.version}", ignore_errors=True)
    for folder in shelf().glob("*"):
        with suppress(OSError):
            if folder.stat().st_mtime < time.time() - older:
                shutil.rmtree(folder)


def built(one: Wheel, progress: Progress) -> Path:
    """A wheel made of a source distribution. Runs that package's own build."""
    progress(f"building {one.name} {one.version}")
    folder = shelf() / f"built-{one.name}-{one.version}"
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-input"]
    call([*words, "--wheel-dir", str(folder), one.url])
    return next(folder.glob("*.whl"))


def check_hash(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        said = hashlib.sha256()
        while block := file.read(1 << 20):
            said.update(block)
    if sha256 and said.hexdigest() != sha256:
        raise CannotInstall(f"{path.name} is not what its index named: sha256 {said.hexdigest()}")


def change(
    python: str, wheels: Sequence[Wheel], removes: Sequence[str], progress: Progress
) -> None:
    """Take out, put in; exactly these, from files at hand, with no index and no dependencies.

    The user's own site folder is left alone: it is in no snapshot, and pip would take packages
    out of it, or put them there where it may not write.
    """
    files = [get(one, progress) for one in wheels]
    if removes:
        progress(f"removing {', '.join(removes)}")
        call([*pip(python), "uninstall", "--yes", *removes], own=False)
    if files:
        progress(f"installing {', '.join(one.name for one in wheels)}")
        words = [*pip(python), "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        words += ["--force-reinstall", "--no-warn-script-location"]
        for folder in sorted({str(path.parent) for path in files}):
            words += ["--find-links", folder]
        call([*words, *(f"{one.name}=={one.version}" for one in wheels)], own=False)


def scope(python: str) -> Scope:
    """Where this interpreter's packages lie: all of a venv, else its site and script folders."""
    prefix, base, pure, plat, scripts = ask(
        python,
        "(lambda s, p: [s.prefix, s.base_prefix, p('purelib'), p('platlib'), p('scripts')])"
        "(__import__('sys'), __import__('sysconfig').get_path)",
    )
    if prefix != base:
        return Scope(prefix, ("",), os.path.relpath(pure, prefix))
    folders = dict.fromkeys(os.path.relpath(path, prefix) for path in (pure, plat, scripts))
    return Scope(prefix, tuple(folders), os.path.relpath(pure, prefix))


def names(python: str) -> frozenset[str]:
    """The distributions in this interpreter's own site folder, normalised."""
    where = scope(python)
    there = Path(where.root, where.site).glob("*.dist-info")
    return frozenset(canonicalize_name(info.name.partition("-")[0]) for info in there)


def touched(where: Scope, names: Iterable[str], wheels: Iterable[Path]) -> Iterator[str]:
    """Paths below the root that installing and removing can change: what is to be copied."""
    wanted = {canonicalize_name(name) for name in names}
    brought = (path for one in wheels for path in inside(one))
    for path in (*recorded(Path(where.root, where.site), wanted), *brought):
        yield os.path.normpath(os.path.join(where.site, path))
    for folder in ("bin", "Scripts"):  # entry points are named in no wheel's RECORD
        for script in Path(where.root, folder).glob("*"):
            if script.is_file() and script.stat().st_size < 2 << 20:
                yield os.path.join(folder, script.name)


def inside(path: Path) -> Iterator[str]:
    """Where the files of a wheel go, below site-packages (binary distribution format, PEP 427)."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            first, _, rest = name.partition("/")
            if not first.endswith(".data"):
                yield name
            elif rest.startswith(("purelib/", "platlib/")):
                yield rest.partition("/")[2]
            elif rest.startswith("data/"):
                yield os.path.join("..", "..", "..", rest.removeprefix("data/"))
