"""Startup: what ComfyUI prints while it starts, as phases with times and custom nodes with theirs.

Pure: lines and the seconds they came at go in. The marks are rows of manifests/startup.toml.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from doctor.logfile import COLOUR
from doctor.manifest import Row, read, rows
from manifests import FOLDER

LONGEST = 4000  # bytes of a line that are looked at
MOST = 2000  # custom nodes that are told


@dataclass(frozen=True, kw_only=True)
class Mark(Row):
    """The line that ends a phase; a later mark ends all phases before it."""

    phase: str
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class Phase:
    name: str
    seconds: float


@dataclass(frozen=True)
class NodeStart:
    """How importing one pack of custom nodes went."""

    name: str
    seconds: float
    failed: bool = False
    why: str = ""  # the exception, where ComfyUI printed it


@cache
def marks() -> tuple[Mark, ...]:
    made = rows(read(FOLDER / "startup.toml"), "phases", Mark)
    return tuple(mark for mark in made if isinstance(mark, Mark))


NODE = re.compile(
    r"^ {0,6}(?P<seconds>\d+\.\d) seconds"
    r"(?P<failed> \((?:IMPORT|PRESTARTUP) FAILED\))?: (?P<path>.+)$"
)
CANNOT = re.compile(r"^Cannot import (?P<path>.+) module for custom nodes: (?P<why>.*)$")
EXTRA = re.compile(r"^IMPORT FAILED: (?P<path>\S+)$")  # of the nodes that come with ComfyUI


@dataclass
class Startup:
    """Grows with the output of one start."""

    phases: list[Phase] = field(default_factory=list)
    nodes: dict[str, NodeStart] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)  # pack -> exception
    extras: list[str] = field(default_factory=list)  # nodes of ComfyUI's own that did not load
    models: int = 0  # folders of models that a configuration adds
    since: float = 0.0
    at: int = 0  # the mark that is waited for
    rest: bytes = b""

    def feed(self, block: bytes, now: float) -> None:
        """What came now, `now` seconds after the start."""
        *lines, self.rest = (self.rest + block).replace(b"\r", b"\n").split(b"\n")
        self.rest = self.rest[:LONGEST]
        for line in lines:
            self.line(COLOUR.sub(b"", line[:LONGEST]).decode("utf-8", "replace"), now)

    def line(self, text: str, now: float) -> None:
        if text.startswith("Adding extra search path"):
            self.models += 1
        if found := NODE.match(text):
            self.node(found["path"], float(found["seconds"]), bool(found["failed"]))
        elif found := EXTRA.match(text):
            self.extras.append(found["path"])
        elif found := CANNOT.match(text):
            self.why[name(found["path"])] = found["why"][:300]
        for place in range(self.at, len(marks())):
            if any(re.search(pattern, text) for pattern in marks()[place].patterns):
                self.reached(marks()[place].phase, now)
                self.at = place + 1

    def reached(self, phase: str, now: float) -> None:
        self.phases.append(Phase(phase, max(0.0, now - self.since)))
        self.since = now

    def node(self, path: str, seconds: float, failed: bool) -> None:
        if len(self.nodes) < MOST:
            pack = name(path)
            self.nodes[pack] = NodeStart(pack, seconds, failed, self.why.get(pack, ""))

    @property
    def failed(self) -> tuple[NodeStart, ...]:
        return tuple(node for node in self.nodes.values() if node.failed)

    def slowest(self, least: float = 1.0, most: int = 5) -> Iterator[NodeStart]:
        """The packs that take longest to import, of those above `least` seconds."""
        slow = (node for node in self.nodes.values() if node.seconds >= least)
        yield from sorted(slow, key=lambda node: -node.seconds)[:most]


def name(path: str) -> str:
    """The folder or file of a pack, on any system."""
    return re.split(r"[\\/]", path.rstrip("\\/ "))[-1]
