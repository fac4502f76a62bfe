"""Places: the nodes of a cluster and their parts, the work done there, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

# What became of a part. Only "answered" was judged; all others are told and never healthy.
ANSWERED, REFUSED, CRASHED, LATE, DEAD = "answered", "refused", "crashed", "late", "dead"


@dataclass(frozen=True)
class Node:
    """A machine of the cluster; `name` is unique among its siblings."""

    id: str
    name: str
    address: str = ""
    cpus: int = 0
    gpus: int = 0
    model: str = ""  # of its GPUs, by Ray's word


@dataclass(frozen=True)
class Slot:
    """Where one part is done: a whole node, or one of its GPUs."""

    node: Node
    gpu: int | None = None  # the how-manieth; which one it was, the part says itself

    def __str__(self) -> str:
        return self.node.name if self.gpu is None else f"{self.node.name}/gpu{self.gpu}"


@dataclass(frozen=True)
class Work:
    """One order to a slot: words of our command line, and files in a folder of the task alone."""

    key: str
    words: tuple[str, ...]
    limit: float  # seconds that the child may take
    files: Mapping[str, bytes] = field(default_factory=dict)  # laid into it before
    bring: tuple[str, ...] = ()  # brought back from it, where they are there
    attempt: int = 1


@dataclass(frozen=True)
class Reply:
    """How the child on the node ended, and what it said."""

    code: int  # negative: the signal
    out: str
    err: str  # its end
    seconds: float
    late: bool = False  # its time ran out, and it was stopped
    files: Mapping[str, bytes] = field(default_factory=dict)
    device: str = ""  # the GPU that Ray gave it: "3"; "" where it asked for none


@dataclass(frozen=True)
class Lost:
    """No reply: the node died, the worker did, or nothing came in time."""

    state: str
    why: str


@dataclass(frozen=True)
class Outcome:
    """What is known of one slot in the end."""

    slot: Slot
    state: str
    code: int | None = None  # of the child, where it answered
    answer: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    seconds: float = 0.0
    attempts: int = 1
    device: str = ""

    @property
    def good(self) -> bool:
        return self.state == ANSWERED and self.code == 0

    @property
    def bad(self) -> bool:
        return self.state == ANSWERED and self.code == 1


class Cluster(Protocol):
    """What the rounds ask of a cluster; Ray's is in `cluster`, another in the tests."""

    def start(self, slot: Slot, work: Work) -> object: ...

    def ended(self, handles: Sequence[object], seconds: float) -> Sequence[object]:
        """Those that have ended, after at most so many seconds."""
        ...

    def result(self, handle: object) -> Reply | Lost: ...

    def cancel(self, handle: object) -> None: ...

    def dead(self, node: Node) -> bool: ...


def named_apart(nodes: Sequence[Node]) -> list[Node]:
    """Names made unique: two raylets of one machine have one host name."""
    names = [node.name for node in nodes]
    return [
        replace(node, name=f"{node.name}#{node.id[:6]}") if names.count(node.name) > 1 else node
        for node in nodes
    ]


def whole(nodes: Sequence[Node]) -> list[Slot]:
    return [Slot(node) for node in nodes]


def devices(nodes: Sequence[Node]) -> list[Slot]:
    """One for each GPU; for a node without any, the node itself."""
    return [
        slot
        for node in nodes
        for slot in ([Slot(node, n) for n in range(node.gpus)] or [Slot(node)])
    ]
