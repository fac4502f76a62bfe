"""What manifests/ says about things outside this machine: frozen rows, each with its reason.

A table's rows become one dataclass; checks and fixes read them as `facts.world`.
"""

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from manifests import FOLDER

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Mirror:
    """Another address for the same bytes. `at` holds {path}: what follows `of` in an address."""

    name: str
    of: str  # the start of an original address, ends with "/"
    at: str  # "https://mirror.example/{path}" or "https://proxy.example/{url}"
    kind: str  # clone, archive, raw, index, wheels, models
    region: str
    why: str
    source: str
    checked: str  # the day the source was read

    def route(self, url: str) -> str:
        return self.at.format(path=url.removeprefix(self.of), url=url)


@dataclass(frozen=True)
class World:
    mirrors: tuple[Mirror, ...] = ()

    def routes(self, url: str, kind: str) -> tuple[str, ...]:
        """The address itself, then the same thing on every mirror of that kind, in order."""
        mirrors = (m for m in self.mirrors if m.kind == kind and url.startswith(m.of))
        return (url, *(mirror.route(url) for mirror in mirrors))


@cache
def read(path: Path) -> dict[str, Any]:
    """One TOML file as it is."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


@cache
def world(folder: Path = FOLDER) -> World:
    """A field, its file and its tables share a name: mirrors, mirrors.toml, [[mirrors]]."""
    kinds = {"mirrors": Mirror}
    tables = {name: read(folder / f"{name}.toml")[name] for name in kinds}
    return World(**{name: tuple(kinds[name](**row) for row in tables[name]) for name in kinds})
