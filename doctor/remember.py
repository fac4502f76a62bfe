"""What is remembered of hosts for a while: which failed lately, and which delivered.

A small file in the user's cache. Losing it costs seconds, so nothing here may ever fail.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import urlsplit

from doctor.mirrors import Route

BAD, GOOD = 600, 86_400  # seconds: a failure is believed for ten minutes, a success for a day
# What says something of a host, and not only of the one thing that it was asked for.
OF_HOST = (
    *("dns", "refused", "tls", "proxy", "timeout", "silent", "slow", "reset"),
    *("http-403", "http-429", "http-5"),
)


def path(environ: Mapping[str, str]) -> Path | None:
    home = environ.get("XDG_CACHE_HOME") or environ.get("LOCALAPPDATA")
    if not home and environ.get("HOME"):
        home = os.path.join(environ["HOME"], ".cache")
    return Path(home, "comfy-doctor", "routes.json") if home else None


def key(route: Route) -> str:
    return f"{route.kind} {urlsplit(route.url).netloc.rpartition('@')[2]}"


def load(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What is still believed: key -> {"good": bool, "when": seconds, "why": word}."""
    where, now = path(environ), time()
    try:
        rows = json.loads(where.read_text(encoding="utf-8")) if where else {}
        return {
            name: row
            for name, row in rows.items()
            if 0 <= now - row["when"] < (GOOD if row["good"] else BAD)
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def note(environ: Mapping[str, str], route: Route, why: str = "") -> None:
    """A route delivered, or failed for this reason."""
    if why and not why.startswith(OF_HOST):
        return
    where = path(environ)
    if where is None:
        return
    rows = load(environ) | {key(route): {"good": not why, "when": time(), "why": why}}
    half = where.with_name(f"{where.name}.{os.getpid()}.part")
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(json.dumps(rows), encoding="utf-8")
        os.replace(half, where)
    except OSError:
        return  # a cache that cannot be written is a cache that is not there
