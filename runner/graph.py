"""Graph: ComfyUI's API-format workflow, read from JSON and held against the nodes known here.

Nothing in a file is trusted: names of nodes, links and numbers are checked before anything is
computed, and every reason against a graph is told at once.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.nodes import NODES, Kind, Widget
from runner.recipe import Refused

LARGEST = 16 * 2**20  # bytes of a workflow
MOST_NODES = 10_000
MOST_REASONS = 5  # told in one sentence


@dataclass(frozen=True)
class Link:
    """An input that comes from another node's output."""

    node: str
    slot: int


@dataclass(frozen=True)
class Node:
    """One box: its id, what it is, and its inputs (links, and the values of its widgets)."""

    id: str
    kind: str
    inputs: Mapping[str, Any]

    @property
    def links(self) -> dict[str, Link]:
        return {name: value for name, value in self.inputs.items() if isinstance(value, Link)}

    def __str__(self) -> str:
        return f"{self.kind} ({self.id[:40]})"


@dataclass(frozen=True)
class Graph:
    """Nodes by id in the order in which they can run; `source` is the JSON they came from."""

    nodes: Mapping[str, Node]
    source: Mapping[str, Any]


def read(path: Path) -> Graph:
    """The graph in a workflow file, or in a picture that ComfyUI or the runner saved.

    Refused: no-such-workflow, workflow-too-large, workflow-unreadable, and as parse() does.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise Refused("no-such-workflow", f"There is no workflow at {path}.") from None
    except OSError as error:
        raise Refused("workflow-unreadable", f"{path}: {error.strerror}.") from None
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return parse(in_picture(path), str(path))
    if len(data) > LARGEST:
        raise Refused("workflow-too-large", f"{path} has more than {LARGEST // 2**20} MiB.")
    return parse(data, str(path))


def in_picture(path: Path) -> str:
    """The text chunk `prompt` of a PNG. Refused: workflow-not-in-picture, and as texts() does."""
    from runner.pixels import texts

    told = texts(path)
    if "prompt" not in told:
        more = ", only one of the interface (`workflow`)" if "workflow" in told else ""
        raise Refused("workflow-not-in-picture", f"{path} carries no graph in API format{more}.")
    return told["prompt"]


def parse(data: str | bytes, name: str = "The workflow") -> Graph:
    """A graph from API-format JSON, every node, link and number of it checked.

    Refused: workflow-unreadable, workflow-is-ui-format, workflow-too-large,
    workflow-unknown-nodes, workflow-invalid.
    """
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refused("workflow-unreadable", f"{name} is not JSON ({brief(error)}).") from None
    if isinstance(rows, dict) and isinstance(rows.get("prompt"), dict):
        rows = rows["prompt"]  # what is sent to /prompt
    if isinstance(rows, dict) and isinstance(rows.get("nodes"), list):
        raise Refused(
            "workflow-is-ui-format",
            f"{name} is in the format of ComfyUI's interface, which leaves out the names of "
            'inputs; "Export (API)" in its Workflow menu writes the one that is run.',
        )
    if not isinstance(rows, dict) or not rows:
        raise Refused("workflow-unreadable", f"{name} is not a table of nodes.")
    if len(rows) > MOST_NODES:
        what = f"{name} has {len(rows):,} nodes; {MOST_NODES:,} are the most."
        raise Refused("workflow-too-large", what)
    nodes = {id: node(name, id, row) for id, row in rows.items()}
    all_known(name, nodes)
    reasons = [reason for one in nodes.values() for reason in against(one, nodes)]
    if not any(NODES[one.kind].saves for one in nodes.values()):
        reasons.append("nothing in it saves a picture (SaveImage, PreviewImage)")
    refuse(name, reasons)
    return Graph(in_order(name, nodes), rows)


def refuse(name: str, reasons: Sequence[str]) -> None:
    if not reasons:
        return
    more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
    told = "; ".join(reasons[:MOST_REASONS])
    raise Refused("workflow-invalid", f"{name} cannot run: {told}{more}.")


def node(name: str, id: str, row: object) -> Node:
    match row:
        case {"class_type": str(kind), "inputs": dict(inputs)}:
            pass
        case {"class_type": str(kind)} if not NODES.get(kind, Kind()).inputs:
            inputs = {}
        case _:
            refuse(name, [f"node {id[:40]!r} has no class_type with inputs"])
    return Node(id, kind[:100], {key: value_of(value) for key, value in inputs.items()})


def value_of(value: object) -> object:
    """A list of a node and a slot is a link; {"__value__": x} is x, lists included."""
    match value:
        case [str() | int() as id, int(slot)] if not isinstance(slot, bool):
            return Link(str(id), slot)
        case {"__value__": inner}:
            return inner
    return value


def all_known(name: str, nodes: Mapping[str, Node]) -> None:
    """Refuse what has nodes that are not executed here, with all of their names."""
    strange: dict[str, list[str]] = {}
    for one in nodes.values():
        if one.kind not in NODES:
            strange.setdefault(one.kind, []).append(one.id)
    if strange:
        listed = [f"{kind} ({', '.join(ids[:3])[:60]})" for kind, ids in strange.items()]
        more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
        raise Refused(
            "workflow-unknown-nodes",
            f"{name} has nodes that are not executed here: {', '.join(listed[:20])}{more}. "
            f"There are: {', '.join(NODES)}.",
        )


def against(one: Node, nodes: Mapping[str, Node]) -> Iterator[str]:
    """What is wrong with the inputs of a node."""
    for name, wanted in NODES[one.kind].inputs.items():
        if name not in one.inputs:
            yield f"{one} lacks {name}"
            continue
        value = one.inputs[name]
        if isinstance(value, Link):
            yield from against_link(one, name, value, wanted, nodes)
        elif isinstance(wanted, str):
            yield f"{name} of {one} is not linked to a {wanted}"
        elif (why := wanted.against(value)) is not None:
            yield f"{name} of {one} is {short(value)}; it is {why}"


def against_link(
    one: Node, name: str, link: Link, wanted: str | Widget, nodes: Mapping[str, Node]
) -> Iterator[str]:
    if link.node not in nodes:
        yield f"{name} of {one} comes from node {link.node[:40]!r}, which is not there"
        return
    source = nodes[link.node]
    gives = NODES[source.kind].outputs
    if not 0 <= link.slot < len(gives):
        yield f"{name} of {one} is output {link.slot} of {source}, which has {len(gives)}"
        return
    kind = wanted if isinstance(wanted, str) else "value typed in"
    if gives[link.slot] != wanted:
        yield f"{name} of {one} is a {kind}, and {source} gives a {gives[link.slot]}"


def in_order(name: str, nodes: Mapping[str, Node]) -> dict[str, Node]:
    """The nodes that something saved depends on, each after its sources (Kahn 1962)."""
    needed = upstream(nodes)
    sources = {id: {link.node for link in nodes[id].links.values()} for id in nodes if id in needed}
    users: dict[str, list[str]] = {id: [] for id in sources}
    for id, before in sources.items():
        for source in before:
            users[source].append(id)
    ready = [id for id, before in sources.items() if not before]
    for id in ready:  # it grows while it is walked
        for user in users[id]:
            sources[user].discard(id)
            if not sources[user]:
                ready.append(user)
    if len(ready) < len(sources):
        stuck = circle({id: before for id, before in sources.items() if before})
        refuse(name, [f"its links go round in a circle through {nodes[stuck]}"])
    return {id: nodes[id] for id in ready}


def circle(sources: Mapping[str, set[str]]) -> str:
    """A node on a circle, of nodes that each still wait for another of them."""
    seen, here = set(), next(iter(sources))
    while here not in seen:
        seen.add(here)
        here = next(id for id in sources[here] if id in sources)
    return here


def upstream(nodes: Mapping[str, Node]) -> set[str]:
    """The nodes that save something, and all that they depend on."""
    needed, waiting = set(), [id for id, one in nodes.items() if NODES[one.kind].saves]
    while waiting:
        id = waiting.pop()
        if id not in needed:
            needed.add(id)
            waiting += [link.node for link in nodes[id].links.values()]
    return needed


def settings(one: Node) -> dict[str, Any]:
    """The values of a node's widgets, each in its own type, as ComfyUI converts them."""
    kinds = NODES[one.kind].inputs
    return {
        name: wanted.typed(one.inputs[name])
        for name, wanted in kinds.items()
        if isinstance(wanted, Widget)
    }


def short(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**40:
        return f"a number of about {int(math.log10(abs(value)))} digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
