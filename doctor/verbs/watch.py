"""watch: one ComfyUI from its start to its end, told as it goes, and started once more with the
flag that cures a fault the taxonomy knows."""

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import inf
from types import FrameType
from typing import Any

from doctor import cures, flags, journal, launch, launched
from doctor.api import Server
from doctor.cures import Chosen
from doctor.examine import examine
from doctor.facts import Facts, Flag, Port, Refusal, Target, Unknown
from doctor.launch import Command, Outcome, Running
from doctor.manifest import world
from doctor.mirrors import Unreachable
from doctor.plan import Treatment
from doctor.receipts import locked
from doctor.screen import Screen
from doctor.startup import Startup
from doctor.step import KeepFlags
from doctor.symptoms import Judgement
from doctor.verbs import log
from doctor.verbs.patient import Args, command, home
from doctor.words import say, sentence

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
PATIENCE = 30.0  # seconds to end in, once asked
QUIET, LOUD = 1.0, 15.0  # seconds of silence after which output is judged, and at the latest
TELLING = (b"error", b"exception", b"warning", b"fault")  # without one of these nothing is wrong


class Watch:
    """Starts it, passes its output and our signals on, and says what is to be said."""

    def __init__(
        self, args: Args, patient: Target, kept: Mapping[str, Flag], screen: Screen
    ) -> None:
        self.args, self.patient, self.screen = args, patient, screen
        self.place, self.kept = home(patient), dict(kept)
        self.what = launch.command(patient, flags.words(self.kept), args.args)
        self.state = launched.mine(self.what.listening.url)
        self.running: Running | None = None
        self.asked: list[tuple[int, float]] = []  # signals that came, and when
        self.restarts: list[Chosen] = []
        self.judgement: Judgement | None = None  # of the last failure
        self.looked = 0.0
        self.examined: Facts | None = None

    def run(self) -> int:
        before = {name: self.handle(name) for name in SIGNALS}
        try:
            while True:
                outcome, fault = self.once()
                if fault is None:
                    return self.told(outcome)
                self.take(fault)
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

    def once(self) -> tuple[Outcome, Chosen | None]:
        """One start, to its end, and the flag against what ended it."""
        out = (sys.stderr if self.args.json else sys.stdout).buffer

        def heard(block: bytes) -> None:
            out.write(block)
            out.flush()

        given = {flag: row.why for flag, row in self.kept.items()}
        self.note(state=launched.STARTING, command=self.what.words, flags=given)
        self.running, self.looked = launch.start(self.what, self.place / "launch.log", heard), 0.0
        self.note(pid=self.running.process.pid)
        outcome = self.until_ready(self.running)
        if outcome.ready:
            self.note(state=launched.READY, seconds=outcome.seconds)
            self.screen.lines(ready_lines(self.running, outcome, self.screen.lang))
            self.remember()
        fault = self.serve(self.running)
        code = self.running.end() if fault is not None else self.running.reap()
        if fault is None and code and not self.asked:
            self.judgement = cures.judged(bytes(self.running.tail), code, world())
            self.screen.lines(log.text(self.judgement, self.screen.lang))
            fault = self.choose(self.judgement, live=False)
        return replace(outcome, code=code), fault

    def until_ready(self, running: Running) -> Outcome:
        """A start that takes long is told once, and waited for: it may be fetching a model."""
        outcome = launch.until_ready(running, self.args.limit, lambda: bool(self.asked))
        if outcome.ready or outcome.code is not None or self.asked:
            return outcome
        self.screen.say("still-starting", log=self.place / "launch.log", limit=self.args.limit)
        return launch.until_ready(running, inf, lambda: bool(self.asked))

    def serve(self, running: Running) -> Chosen | None:
        """Until it ends, or a fault shows that a restart cures; that one."""
        while running.process.poll() is None:
            if self.asked and time.monotonic() - self.asked[0][1] > PATIENCE:
                break
            quiet = running.seconds - running.last > QUIET
            if not self.asked and (quiet or running.seconds - self.looked > LOUD):
                fault = self.look(running)
                if fault is not None and not fault.contradicts:
                    return fault
            time.sleep(launch.POLL)
        return None

    def look(self, running: Running) -> Chosen | None:
        """What it printed since the last look, judged."""
        self.looked, output = running.seconds, running.unjudged()
        if not any(word in output.lower() for word in TELLING):
            return None
        judgement = cures.judged(output, None, world())
        fault = self.choose(judgement, live=True)
        if fault is not None:
            self.judgement = judgement
        return fault

    def choose(self, judgement: Judgement, live: bool) -> Chosen | None:
        if self.args.no_restart:
            return None
        tried = [one.symptom.finding.id for one in self.restarts]
        given = (*flags.words(self.kept), *self.args.args)
        fault = cures.choose(judgement, given, world(), card=self.card(), live=live, tried=tried)
        if fault is not None and fault.contradicts:
            words = {"flag": fault.cure.flag, "theirs": fault.contradicts}
            self.screen.lines(["! " + say("restart-against", self.screen.lang, **words)])
            return None if not live else fault
        return fault

    def card(self) -> bool:
        """Is there a card, as far as anybody knows."""
        gpus = self.facts().gpus
        return isinstance(gpus, Unknown) or bool(gpus)

    def facts(self) -> Facts:
        """Looked at once, and only where a fault asks for it."""
        self.examined = self.examined or examine(self.patient, 1)
        return self.examined

    def take(self, fault: Chosen) -> None:
        """The flag joins those given, and those that main.py does not take beside it go."""
        finding = fault.symptom.finding
        self.restarts.append(fault)
        row = Flag(fault.cure.finding, fault.cure.value, (fault.symptom.text.strip()[:240],))
        beside = flags.applied(self.kept, (fault.cure.flag,), world())
        self.kept = {**beside, fault.cure.flag: row}
        self.what = launch.command(self.patient, flags.words(self.kept), self.args.args)
        self.note(state=launched.RESTARTING, restarts=len(self.restarts), findings=(finding.id,))
        shown = " ".join(flags.words({fault.cure.flag: row}))
        self.screen.lines(["! " + say("restarting", self.screen.lang, flag=shown, id=finding.id)])

    def remember(self) -> None:
        """A flag that brought it up is kept for the next start, with its reason: undo knows how."""
        for fault in self.restarts:
            row = self.kept[fault.cure.flag]
            if row.where:
                continue
            row = replace(row, where=flags.circumstances(self.facts()))
            self.kept[fault.cure.flag] = row
            step = KeepFlags(str(self.place), {fault.cure.flag: row})
            try:
                with locked(self.place) as book:
                    journal.commit(
                        book, journal.treat(book, treatment(fault, step), self.screen.progress)
                    )
            except (Refusal, OSError) as error:
                self.screen.lines(
                    [
                        "! "
                        + say(
                            "not-remembered",
                            self.screen.lang,
                            why=sentence(error, self.screen.lang),
                        )
                    ]
                )
                continue
            self.screen.say("remembered", flag=fault.cure.flag, undo=command(self.patient, "undo"))

    def note(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        launched.write(self.place, self.state)

    def told(self, outcome: Outcome) -> int:
        """The end, for people and programs; 130 where it was asked to end."""
        assert self.running is not None
        ids = tuple(s.finding.id for s in self.judgement.symptoms) if self.judgement else ()
        self.note(state=launched.ENDED, code=outcome.code, findings=ids)
        bad = bool(outcome.code) and not self.asked
        key = "ended-badly" if bad else "ended"
        mark = "✗ " if bad else ""
        self.screen.lines([mark + say(key, self.screen.lang, code=outcome.code)])
        found = log.as_json(self.judgement, self.screen.lang)["findings"] if self.judgement else []
        self.screen.object(
            as_json(self.what, self.running.startup, outcome)
            | {"findings": found, "restarts": [restart_json(one) for one in self.restarts]}
        )
        return 130 if self.asked else int(bad)  # main.py's own codes mean other things than ours


def treatment(fault: Chosen, step: KeepFlags) -> Treatment:
    return Treatment(f"launch {fault.cure.flag}", (fault.cure.finding,), (step,))


def restart_json(fault: Chosen) -> dict[str, Any]:
    return {
        "flag": fault.cure.flag,
        "value": fault.cure.value,
        "finding": fault.symptom.finding.id,
        "because": fault.symptom.text,
    }


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
    for name in startup.extras:
        yield "! " + say("node-failed", lang, name=name, why=startup.why.get(name, ""))
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
