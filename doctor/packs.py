"""Packs: what lies in custom_nodes/, read from its files alone. Changes nothing, runs nothing.

The state is ComfyUI-Manager's: `.disabled/` and the suffix, `.tracking` of the registry, `.cnr-id`
within .git (glob/manager_core.py and cnr_utils.py, V3.41). What the doctor fetched without git is
known by its own notes, in `.comfy-doctor/nodes/`.
"""

import configparser
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from doctor.examine import commit, text
from doctor.mirrors import redacted
from doctor.startup import NodeStart, Startup

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DISABLED, SUFFIX = ".disabled", ".disabled"
STAGING = ".comfy-doctor.disabled"  # a name that neither ComfyUI nor Manager takes for a pack
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
NOT_PACKS = re.compile(r"__pycache__|\..*|.*\.example")


@dataclass(frozen=True)
class Pack:
    """One entry of custom_nodes/: what it is called, where it came from, whether it is loaded."""

    name: str  # of its folder (or .py file) when it is enabled
    path: str
    state: str  # enabled, disabled
    kind: str  # git, registry, archive, file, unknown
    id: str = ""  # of the registry
    version: str = ""
    url: str = ""
    ref: str = ""  # the branch it follows; "" for a tag, a commit, or where there is no git
    commit: str = ""

    @property
    def source(self) -> str:
        return self.url or (f"{self.id}@{self.version}" if self.kind == "registry" else "")


@dataclass(frozen=True)
class Note:
    """What the doctor remembers of a pack it brought. `files` as git has them: mode and blob."""

    name: str
    kind: str
    url: str = ""
    ref: str = ""
    commit: str = ""
    id: str = ""
    version: str = ""
    route: str = ""
    proven: bool = True
    why: str = ""
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def written(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def custom_nodes(comfyui: str) -> Path:
    return Path(comfyui, "custom_nodes")


def note_path(comfyui: str, name: str) -> Path:
    return Path(comfyui, ".comfy-doctor", "nodes", f"{name}.json")


def notes(comfyui: str) -> dict[str, Note]:
    found = {}
    for path in sorted(note_path(comfyui, "x").parent.glob("*.json")):
        try:
            note = Note(**json.loads(text(path)))
        except (ValueError, TypeError):
            continue
        found[note.name] = note
    return found


def beside(comfyui: str) -> Path:
    """A folder of ours from which a move into custom_nodes/ is one instant: on the same disk."""
    live = custom_nodes(comfyui)
    live.mkdir(exist_ok=True)
    same = os.stat(live).st_dev == os.stat(comfyui).st_dev
    return Path(comfyui, ".comfy-doctor") if same else live / STAGING


def installed(comfyui: str) -> tuple[Pack, ...]:
    """Every pack that is there, enabled or not, by name."""
    live, known = custom_nodes(comfyui), notes(comfyui)
    found = [*entries(live, known), *below_disabled(live / DISABLED, known)]
    return tuple(sorted(found, key=lambda pack: (pack.name.lower(), pack.state)))


def entries(live: Path, known: Mapping[str, Note]) -> Iterator[Pack]:
    for path in listed(live):
        name = path.name.removesuffix(SUFFIX)
        state = "disabled" if path.name.endswith(SUFFIX) else "enabled"
        if path.is_dir():
            yield described(path, name, state, known.get(name))
        elif name.endswith(".py"):
            yield Pack(name, str(path), state, "file")


def listed(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not NOT_PACKS.fullmatch(p.name))
    except OSError:
        return []


def below_disabled(folder: Path, known: Mapping[str, Note]) -> Iterator[Pack]:
    """Manager's form: .disabled/ID@VERSION, .disabled/ID@nightly, .disabled/NAME."""
    for path in listed(folder):
        name = path.name.partition("@")[0]
        same = (n for n in known.values() if name.lower() in (n.name.lower(), n.id.lower()))
        note = next(same, None)
        if path.is_dir():
            yield described(path, note.name if note else name, "disabled", note)
        elif path.name.endswith(".py"):
            yield Pack(path.name, str(path), "disabled", "file")


def described(path: Path, name: str, state: str, note: Note | None) -> Pack:
    """A folder, by its own files; by the doctor's note where it has neither .git nor .tracking."""
    own = project(path)
    id, version = str(own.get("name", "")), str(own.get("version", ""))
    pack = Pack(name, str(path), state, "unknown", version=version)
    if (path / ".tracking").is_file() and id:
        return replace(pack, kind="registry", id=id)
    if (path / ".git").exists():
        registered = text(path / ".git" / ".cnr-id").strip()
        return replace(
            pack, kind="git", id=registered, url=origin(path), ref=branch(path), commit=commit(path)
        )
    if note and note.kind != "unknown":
        more = {"url": note.url, "ref": note.ref, "commit": note.commit}
        return replace(pack, kind=note.kind, id=note.id, **more)
    return pack


def project(folder: Path) -> dict[str, Any]:
    """[project] of a pack's pyproject.toml; empty where there is none that can be read."""
    try:
        own = tomllib.loads(text(folder / "pyproject.toml")).get("project", {})
    except tomllib.TOMLDecodeError:
        return {}
    good = isinstance(own, dict) and ID.fullmatch(str(own.get("name", "")).strip())
    return {**own, "name": str(own["name"]).strip()} if good else {}


def published(folder: Path) -> str:
    """The registry id of a pack that names its publisher; "" for one that never was there."""
    try:
        comfy = tomllib.loads(text(folder / "pyproject.toml")).get("tool", {}).get("comfy", {})
    except (tomllib.TOMLDecodeError, AttributeError):
        return ""
    return str(project(folder).get("name", "")) if comfy.get("PublisherId") else ""


def origin(folder: Path) -> str:
    """The address that .git/config gives for origin, without a password."""
    config = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        config.read_string("\n".join(map(str.strip, text(folder / ".git/config").splitlines())))
        return redacted(config.get('remote "origin"', "url", fallback="") or "")
    except configparser.Error:
        return ""


def branch(folder: Path) -> str:
    head = text(folder / ".git" / "HEAD").strip()
    return head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else ""


def chosen(packs: tuple[Pack, ...], word: str) -> list[Pack]:
    """The packs a person means: by folder, registry id or address; the exact name first."""
    named = [pack for pack in packs if pack.name == word]
    plain = word.lower().removesuffix("/").removesuffix(".git")
    return named or [
        pack
        for pack in packs
        if plain in (pack.name.lower(), pack.id.lower(), pack.url.lower().removesuffix(".git"))
    ]


def at_disabled(comfyui: str, pack: Pack) -> Path:
    """Where Manager would put a pack that is disabled."""
    name = pack.name
    if pack.kind == "file":
        return custom_nodes(comfyui) / f"{name}{SUFFIX}"
    if pack.id:
        version = pack.version.replace(".", "_") if pack.kind == "registry" else "nightly"
        name = f"{pack.id}@{version}"
    return custom_nodes(comfyui) / DISABLED / name


def last_starts(comfyui: str) -> dict[str, NodeStart]:
    """By folder, from the newest log: the doctor's own, or ComfyUI-Manager's of some port."""
    logs = (Path(comfyui, ".comfy-doctor/launch.log"), *Path(comfyui, "user").glob("comfyui*.log"))
    there = [log for log in logs if log.is_file() and ".prev" not in log.name]
    return starts(text(max(there, key=lambda log: log.stat().st_mtime))) if there else {}


def starts(said: str) -> dict[str, NodeStart]:
    """How each pack fared, from what ComfyUI said at its start."""
    seen = Startup()
    seen.feed(f"{said}\n".encode(), 0.0)
    return seen.nodes
