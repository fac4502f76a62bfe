"""Prompt: one graph queued on a ComfyUI server and followed to its end.

The websocket tells of nodes as they run; whether a prompt has ended is believed of /history
alone, so a websocket that is lost, or lies, costs the times of the nodes and nothing else.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from doctor.api import Server, WrongAnswer
from doctor.events import Event, Events, Lost
from doctor.mirrors import Unreachable

Graph = Mapping[str, Mapping[str, Any]]  # ComfyUI's API format: id -> class_type, inputs
Heard = Callable[[str, int, int], None]  # a node's id, done, of
ASKED, BLIND = 1.0, 0.3  # seconds between two questions to /history; without a websocket
REOPENED = 5  # times a lost websocket is opened again


@dataclass(frozen=True)
class Refused:
    """The server does not take the graph: by node, what it says."""

    why: str
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """A node raised, or somebody interrupted it."""

    node: str
    kind: str  # its class
    exception: str
    message: str
    trace: str = ""

    @property
    def interrupted(self) -> bool:
        return self.exception == "interrupted"


@dataclass(frozen=True)
class Executed:
    """How a prompt ended."""

    id: str
    seconds: float
    outputs: Mapping[str, Mapping[str, Any]]  # node -> what /history has of it
    times: Mapping[str, float]  # node -> seconds, as far as the websocket told
    cached: tuple[str, ...] = ()
    previews: int = 0
    failed: Failed | None = None
    lost: int = 0  # times that the websocket was


class NotExecuted(Exception):
    """It was not taken (refused says why), or did not end in time."""

    def __init__(self, why: str, refused: Refused | None = None) -> None:
        super().__init__(why)
        self.refused = refused


@dataclass
class Followed:
    """What the events of one prompt add up to."""

    id: str
    now: str = ""  # the node that runs
    since: float = 0.0
    times: dict[str, float] = field(default_factory=dict)
    cached: tuple[str, ...] = ()
    previews: int = 0
    failed: Failed | None = None
    over: bool = False

    def see(self, event: Event, heard: Heard) -> None:
        data = event.data
        if event.kind == "preview":
            self.previews += 1
        elif data.get("prompt_id") != self.id:
            return
        elif event.kind == "executing":
            self.turn(str(data["node"]) if data.get("node") is not None else "")
            heard(self.now, 0, 0)
        elif event.kind == "progress":
            heard(self.now, number(data.get("value")), number(data.get("max")))
        elif event.kind == "execution_cached" and isinstance(data.get("nodes"), list):
            self.cached = tuple(str(node) for node in data["nodes"])
        elif event.kind in ("execution_error", "execution_interrupted"):
            self.failed, self.over = failure(event.kind, data), True
        elif event.kind == "execution_success":
            self.over = True

    def turn(self, node: str) -> None:
        here = monotonic()
        if self.now:
            self.times[self.now] = self.times.get(self.now, 0.0) + here - self.since
        self.now, self.since, self.over = node, here, not node


def number(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) and abs(value) < 1e9 else 0


def failure(kind: str, data: Mapping[str, Any]) -> Failed:
    trace = data.get("traceback", ())
    return Failed(
        str(data.get("node_id", "?")),
        str(data.get("node_type", "?")),
        "interrupted" if kind == "execution_interrupted" else str(data.get("exception_type", "?")),
        str(data.get("exception_message", "")).strip()[:2000],
        "".join(map(str, trace))[:20_000] if isinstance(trace, list) else "",
    )


def execute(server: Server, graph: Graph, limit: float, heard: Heard) -> Executed:
    """Queue it and follow it. NotExecuted, Unreachable; whatever interrupts takes it back."""
    client = uuid4().hex
    until, began, lost = monotonic() + limit, monotonic(), 0
    try:
        events: Events | None = Events(server, client)
    except Lost:
        events, lost = None, 1
    followed = Followed(queue(server, graph, client))
    try:
        while monotonic() < until:
            events, lost = step(server, client, events, followed, heard, lost)
            entry = history(server, followed.id)
            if entry is not None:
                drain(events, followed, heard)
                return ended(followed, entry, monotonic() - began, lost)
        raise NotExecuted(f"no end after {limit:.0f} s")
    except BaseException:
        withdraw(server, followed.id)
        raise
    finally:
        if events is not None:
            events.close()


def step(
    server: Server, client: str, events: Events | None, followed: Followed, heard: Heard, lost: int
) -> tuple[Events | None, int]:
    """Listen until it is time to ask /history; a lost websocket is opened again, at times."""
    until = monotonic() + (ASKED if events is not None else BLIND)
    while not followed.over and (left := until - monotonic()) > 0:
        try:
            if events is None:
                if lost > REOPENED:
                    sleep(left)
                    break
                events = Events(server, client)
            event = events.next(left)
            if event is not None:
                followed.see(event, heard)
        except Lost:
            if events is not None:
                events.close()
            events, lost = None, lost + 1
            sleep(min(0.2 * lost, left))
    if followed.over:
        sleep(0.05)  # /history is written when the last event has been sent
    return events, lost


def drain(events: Events | None, followed: Followed, heard: Heard) -> None:
    """The last events of a prompt that /history already knows: they end the times of its nodes."""
    until = monotonic() + 0.5
    with contextlib.suppress(Lost):
        while events is not None and not followed.over and (left := until - monotonic()) > 0:
            event = events.next(left)
            if event is not None:
                followed.see(event, heard)


def queue(server: Server, graph: Graph, client: str) -> str:
    """The id that the server gave it."""
    try:
        said = server.post("/prompt", {"prompt": graph, "client_id": client})
    except WrongAnswer as answer:
        if answer.reason == "http-400" and isinstance(answer.said, dict):
            refused = refusal(answer.said)
            raise NotExecuted(refused.why, refused) from answer
        raise
    id = said.get("prompt_id") if isinstance(said, dict) else None
    if not isinstance(id, str) or not id:
        raise NotExecuted("/prompt gave no prompt_id")
    return id


def refusal(said: Mapping[str, Any]) -> Refused:
    """{"error": {...}, "node_errors": {id: {"class_type": ..., "errors": [...]}}}"""
    error, nodes = said.get("error"), said.get("node_errors")
    why = error.get("message", error) if isinstance(error, dict) else error
    found: dict[str, tuple[str, ...]] = {}
    for node, row in nodes.items() if isinstance(nodes, dict) else ():
        told = row.get("errors") if isinstance(row, dict) else None
        errors = told if isinstance(told, list) else ()
        lines = (
            f"{e.get('message', '')}: {e.get('details', '')}" for e in errors if isinstance(e, dict)
        )
        found[str(node)] = tuple(line[:400] for line in lines)
    return Refused(str(why)[:400], found)


def history(server: Server, id: str) -> Mapping[str, Any] | None:
    """What /history has of the prompt; None while it has nothing. A question that fails is asked
    again: a server under load drops some."""
    try:
        said = server.get(f"/history/{quote(id, safe='')}")
    except WrongAnswer:
        raise
    except Unreachable as error:
        if error.reason in ("refused", "dns"):
            raise  # it is gone
        return None
    entry = said.get(id) if isinstance(said, dict) else None
    return entry if isinstance(entry, dict) else None


def ended(followed: Followed, entry: Mapping[str, Any], seconds: float, lost: int) -> Executed:
    outputs, status = entry.get("outputs"), entry.get("status")
    failed = followed.failed
    for kind, data in messages(status):
        if kind in ("execution_error", "execution_interrupted"):
            failed = failed or failure(kind, data)
        if kind == "execution_cached" and isinstance(data.get("nodes"), list):
            followed.cached = followed.cached or tuple(map(str, data["nodes"]))
    return Executed(
        followed.id,
        seconds,
        outputs if isinstance(outputs, dict) else {},
        dict(followed.times),
        followed.cached,
        followed.previews,
        failed,
        lost,
    )


def messages(status: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The events that /history keeps of a prompt: [[kind, data], ...]."""
    rows = status.get("messages") if isinstance(status, dict) else None
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, list) and len(row) == 2 and isinstance(row[1], dict):
            yield str(row[0]), row[1]


def withdraw(server: Server, id: str) -> None:
    """Out of the queue, or stopped if it runs: never anybody else's."""
    with contextlib.suppress(Unreachable, AttributeError, TypeError):
        server.post("/queue", {"delete": [id]})
        running = server.get("/queue").get("queue_running") or ()
        if any(isinstance(item, list) and id in item[:2] for item in running):
            server.post("/interrupt", {"prompt_id": id})


def forget(server: Server, id: str) -> None:
    """Out of the history."""
    with contextlib.suppress(Unreachable):
        server.post("/history", {"delete": [id]})
