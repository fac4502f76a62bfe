"""Files that git-lfs keeps elsewhere: in a commit they are pointers, which name the sha256.

So any host may deliver them. Where none does, the pointers stay, and are named. The pointer is that
of the git-lfs specification (docs/spec.md), the question its batch API (docs/api/batch.md).
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from doctor.download import ask_json, download
from doctor.errand import Errand
from doctor.mirrors import Route, Unreachable, loopback, secret
from doctor.tree import POINTER_MAX, files

POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*"
    rb"oid sha256:([0-9a-f]{64})\nsize (\d{1,15})\n"
)
TYPE = "application/vnd.git-lfs+json"
AT_ONCE = 100  # objects in one question, as git-lfs itself asks


@dataclass(frozen=True)
class Pointer:
    """A file whose content lies elsewhere."""

    name: str
    sha256: str
    size: int  # bytes


def pointers(folder: Path) -> list[Pointer]:
    """The files below a folder that are pointers and nothing more."""
    return list(found(folder))


def found(folder: Path) -> Iterator[Pointer]:
    for path in files(folder):
        if path.is_symlink() or path.stat().st_size > POINTER_MAX:
            continue
        if match := POINTER.fullmatch(path.read_bytes()):
            name = path.relative_to(folder).as_posix()
            yield Pointer(name, match[1].decode(), int(match[2]))


def fill(errand: Errand, folder: Path) -> None:
    """Put the content in the place of the pointers, by whatever route gives it."""
    missing = pointers(folder)
    for route in errand.alive(errand.clones if missing else ()):
        if not missing:
            return
        try:
            where = batch(errand, route, missing)
        except (Unreachable, ValueError, KeyError, TypeError, AttributeError) as error:
            errand.tell(f"{route}: LFS: {error}")
            continue
        missing = [one for one in missing if not brought(errand, route, folder, one, where)]


def batch(errand: Errand, route: Route, asked: Sequence[Pointer]) -> dict[str, Mapping[str, Any]]:
    """sha256 -> where a route says that it can be had: {"href": address, "header": {...}}."""
    url = f"{route.url.rstrip('/').removesuffix('.git')}.git/info/lfs/objects/batch"
    where: dict[str, Mapping[str, Any]] = {}
    for first in range(0, len(asked), AT_ONCE):
        objects = [{"oid": o.sha256, "size": o.size} for o in asked[first : first + AT_ONCE]]
        question = {"operation": "download", "transfers": ["basic"], "objects": objects}
        seconds = errand.left(errand.patience.ask)
        told = json.loads(ask_json(url, question, TYPE, timeout=seconds))
        for one in told["objects"]:
            if action := one.get("actions", {}).get("download"):
                where[one["oid"]] = {**action, "href": urljoin(url, action["href"])}
    return where


def brought(
    errand: Errand,
    route: Route,
    folder: Path,
    wanted: Pointer,
    where: Mapping[str, Mapping[str, Any]],
) -> bool:
    action = where.get(wanted.sha256)
    if action is None or wanted.size > errand.patience.archive:
        return False
    errand.tell(f"{route}: LFS {wanted.name}, {wanted.size} bytes")
    path, half = folder / wanted.name, errand.scratch()
    try:
        refuse_inward(action["href"], route)
        download(
            action["href"],
            half,
            sha256=wanted.sha256,
            headers={str(k): str(v) for k, v in action.get("header", {}).items()},
            timeout=errand.left(errand.patience.route),
            stall=errand.patience.stall,
            limit=wanted.size,
        )
    except Unreachable as error:
        errand.tell(f"{route}: LFS {wanted.name}: {error.reason}, {error.why}")
        half.with_name(f"{half.name}.part").unlink(missing_ok=True)
        return False
    half.chmod(path.stat().st_mode)
    os.replace(half, path)
    return True


def refuse_inward(href: str, route: Route) -> None:
    """A stranger must not make us ask this machine's own servers."""
    if not href.startswith(("http://", "https://")) or secret(href):
        raise Unreachable("scheme", href, "its address is none")
    if loopback(href) and not loopback(route.url):
        raise Unreachable("redirect", href, "it leads to this machine itself")
