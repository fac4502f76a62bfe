"""watch: one ComfyUI from its start to its end, told as it goes."""

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from types import FrameType
from typing import Any

from doctor import launch, launched
from doctor.api import Server
from doctor.facts import Port, Target
from doctor.launch import Command, Outcome, Running
from doctor.mirrors import Unreachable
from doctor.screen import Screen
from doctor.startup import Startup
from doctor.verbs.patient import Args, command, home
from doctor.words import say

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
PATIENCE = 30.0  # seconds to end in, once asked


class Watch:
    """Starts it, passes its output and our signals on, and says what is to be said."""

    def __init__(self, args: Args, patient: Target, what: Command, screen: Screen) -> None:
        self.args, self.patient, self.what, self.screen = args, patient, what, screen
        self.place = home(patient)
        self.state = launched.mine(what.listening.url)
        self.running: Running | None = None
        self.asked: list[tuple[int, float]] = []  # signals that came, and when

    def run(self) -> int:
        before = {name: self.handle(name) for name in SIGNALS}
        try:
            return self.told(self.once())
        finally:
            if self.running is not None:
                self.running.reap()
            for name, handler in before.items():
                if handler is not None:
                    signal.signal(getattr(signal, name), handler)

    def handle(self, name: str) -> Any:
        number = getattr(signal, name, None)
        return signal.signal(number, self.got) if number is not None else None

    def got(self, number: int, frame: FrameType | None) -> None:
        """Pass it on; who asks twice does not want to wait."""
        if self.running is not None:
            again = bool(self.asked)
            kind = getattr(signal, "SIGHUP", None)
            wanted = signal.SIGTERM if number == kind else number
            self.running.signal(getattr(signal, "SIGKILL", wanted) if again else wanted)
        self.asked.append((number, time.monotonic()))

    def once(self) -> Outcome:
        """One start, to its end."""
        out = (sys.stderr if self.args.json else sys.stdout).buffer

        def heard(block: bytes) -> None:
            out.write(block)
            out.flush()

        self.note(state=launched.STARTING, command=self.what.words)
        self.running = launch.start(self.what, self.place / "launch.log", heard)
        self.note(pid=self.running.process.pid)
        outcome = self.until_ready(self.running)
        if outcome.ready:
            self.note(state=launched.READY, seconds=outcome.seconds)
            self.screen.lines(ready_lines(self.running, outcome, self.screen.lang))
        return replace(outcome, code=self.serve(self.running))

    def until_ready(self, running: Running) -> Outcome:
        """A start that takes long is told once, and waited for: it may be fetching a model."""
        outcome = launch.until_ready(running, self.args.limit, lambda: bool(self.asked))
        if outcome.ready or outcome.code is not None or self.asked:
            return outcome
        self.screen.say("still-starting", log=self.place / "launch.log", limit=self.args.limit)
        return launch.until_ready(running, inf, lambda: bool(self.asked))

    def serve(self, running: Running) -> int:
        """Until it ends, by itself or because it was asked to; its exit code."""
        while running.process.poll() is None:
            if self.asked and time.monotonic() - self.asked[0][1] > PATIENCE:
                break
            time.sleep(launch.POLL)
        return running.reap()

    def note(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        launched.write(self.place, self.state)

    def told(self, outcome: Outcome) -> int:
        """The end, for people and programs; 130 where it was asked to end."""
        assert self.running is not None
        self.note(state=launched.ENDED, code=outcome.code)
        bad = bool(outcome.code) and not self.asked
        key = "ended-badly" if bad else "ended"
        mark = "✗ " if bad else ""
        self.screen.lines([mark + say(key, self.screen.lang, code=outcome.code)])
        self.screen.object(as_json(self.what, self.running.startup, outcome))
        return 130 if self.asked else int(bad)  # main.py's own codes mean other things than ours


def as_json(what: Command, startup: Startup, outcome: Outcome) -> dict[str, Any]:
    """comfy-doctor.launch/1."""
    return {
        "schema": "comfy-doctor.launch/1",
        "command": list(what.words),
        "url": what.listening.url,
        "ready": outcome.ready,
        "seconds": outcome.seconds,
        "code": outcome.code,
        "phases": [{"name": p.name, "seconds": p.seconds} for p in startup.phases],
        "nodes": [
            {"name": n.name, "seconds": n.seconds, "failed": n.failed, "why": n.why}
            for n in startup.nodes.values()
        ],
    }


def ready_lines(running: Running, outcome: Outcome, lang: str) -> Iterator[str]:
    """How it came up: phases, what is slow, what failed, what it can load, where it answers."""
    startup = running.startup
    told = (f"{say('phase-' + p.name, lang)} {p.seconds:.1f} s" for p in startup.phases)
    yield "· " + say("phases", lang, phases=", ".join(told))
    for node in startup.slowest():
        yield "· " + say("node-slow", lang, name=node.name, seconds=f"{node.seconds:.1f}")
    for node in startup.failed:
        why = node.why or say("no-reason", lang)
        yield "! " + say("node-failed", lang, name=node.name, why=why)
    if (count := checkpoints(running.command.listening.url)) is not None:
        yield "· " + say("models-listed", lang, count=count)
    seconds = f"{outcome.seconds:.1f}"
    yield "✓ " + say("ready", lang, url=running.command.listening.url, seconds=seconds)


def checkpoints(url: str) -> int | None:
    """How many checkpoints it lists; None where it does not say."""
    try:
        found = Server(url, patience=5.0).get("/models/checkpoints")
    except Unreachable:
        return None
    return len(found) if isinstance(found, list) else None


def tell_port(taken: Port, patient: Target, screen: Screen) -> int:
    """Nothing is started on a port that somebody has."""
    screen.lines(["✗ " + say("port-taken", screen.lang, port=taken.number, by=taken.by or "?")])
    other = command(patient, "launch", "--", "--port", str(taken.number + 1))
    screen.lines([f"    {other}"])
    screen.object(
        {"schema": "comfy-doctor.launch/1", "ready": False, "code": None}
        | {"findings": [{"id": "port-in-use", "because": [f"{taken.number}: {taken.by}"]}]}
    )
    return 1
