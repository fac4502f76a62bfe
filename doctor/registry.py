"""The node registry: from an id to an archive (its shape: ComfyUI-Manager's cnr_utils.py).

The registry names no hash: what it hands out is believed because it comes straight from it, over a
line nobody can change.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from doctor.download import read
from doctor.examine import text
from doctor.facts import Refusal
from doctor.mirrors import Unreachable
from doctor.packs import ID
from doctor.words import refused

PUBLIC, VARIABLE = "https://api.comfy.org", "COMFY_REGISTRY"  # the variable: a registry of yours
LISTS = ("custom_nodes/ComfyUI-Manager/custom-node-list.json",)
CACHES = ("user/__manager/cache", "user/default/ComfyUI-Manager/cache")


class NotThere(Refusal):
    """The registry answered, and has no such pack."""

    code = 1


@dataclass(frozen=True)
class Release:
    """One version of a pack."""

    id: str
    version: str
    url: str
    deprecated: bool = False


def split(word: str) -> tuple[str, str] | None:
    """ID[@VERSION] -> both; None for anything that is no id."""
    id, _, version = word.partition("@")
    good = ID.fullmatch(id) and (not version or ID.fullmatch(version))
    return (id, version) if good else None


def base(environ: Mapping[str, str]) -> str:
    return (environ.get(VARIABLE) or PUBLIC).rstrip("/")


def release(
    id: str, version: str, environ: Mapping[str, str], seconds: float = 10.0, offline: bool = False
) -> Release:
    """The version that is wanted, by default the latest. Raises Unreachable or NotThere."""
    query = f"?version={quote(version, safe='')}" if version else ""
    url = f"{base(environ)}/nodes/{quote(id, safe='')}/install{query}"
    if offline:
        raise Unreachable("offline", url, "nothing is fetched offline")
    try:
        told = json.loads(read(url, timeout=seconds, limit=4 << 20, accept="application/json"))
    except ValueError as error:
        raise Unreachable("page", url, "it answered something else than the registry") from error
    except Unreachable as error:
        if error.reason in ("http-404", "http-400"):
            place, wanted = base(environ), f"{id} {version}".rstrip()
            raise refused(NotThere, "registry-none", registry=place, id=wanted) from error
        raise
    return parsed(told, id, url)


def parsed(told: Any, id: str, url: str) -> Release:
    if not isinstance(told, dict) or not isinstance(told.get("downloadUrl"), str):
        raise refused(NotThere, "registry-empty", id=id)
    version = told.get("version", "")
    if isinstance(version, dict):
        version = version.get("version", "")
    if not told["downloadUrl"] or not ID.fullmatch(str(version)):
        raise refused(NotThere, "registry-empty", id=id)
    return Release(
        id, str(version), urljoin(url, told["downloadUrl"]), bool(told.get("deprecated"))
    )


def listed(comfyui: str, id: str) -> str:
    """The repository that ComfyUI-Manager's list on this machine names for an id, or ""."""
    files = [Path(comfyui, name) for name in LISTS]
    files += [f for cache in CACHES for f in Path(comfyui, cache).glob("*custom-node-list.json")]
    for file in files:
        try:
            rows = json.loads(text(file) or "{}").get("custom_nodes", [])
            for row in rows:
                if str(row.get("id", "")).lower() == id.lower():
                    return str(row.get("reference", ""))
        except (ValueError, AttributeError, TypeError):
            continue
    return ""
