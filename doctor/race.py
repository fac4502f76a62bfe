"""Race: several routes to one thing, of which the first that brings it whole wins.

The first route starts alone. Where it fails, falls silent or is slow, a small question goes to all
others at once, and the quickest of those that answer starts beside it. Who failed lately is asked
last.
What a route brings is judged by the caller, who comes back for the next one if it is no good.
"""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Generic, TypeVar

from doctor import remember
from doctor.archive import Refused
from doctor.errand import Errand, remove
from doctor.mirrors import STOPPED, Route, Unreachable

QUIET = 1.5  # seconds without a new byte, after which another route starts beside
SPAN, LEAST = 2.0, 30_000  # seconds in which less than so many bytes per second are slow: likewise
SETTLE = 0.4  # seconds in which answers to the small question count as equally quick
LOOK = 0.25  # seconds between two looks at what has arrived
ANSWER = 6.0  # seconds for the small question
SILENT, SLOW = "silent", "slow"
ABREAST = 3  # routes at once: enough to find one that works, and no storm
T = TypeVar("T")


@dataclass(frozen=True)
class Way(Generic[T]):
    """How a route is used: `ask` says whether it is there at all, `bring` gets the thing."""

    what: str
    ask: Callable[[Route, float], None]
    bring: Callable[[Route, Path, threading.Event], T]


@dataclass
class Lane(Generic[T]):
    """One route on its way, into a folder of its own."""

    route: Route
    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    grown: float = field(default_factory=monotonic)
    seen: deque[tuple[float, int]] = field(default_factory=deque)  # (when, bytes) of the last SPAN
    since: float = field(default_factory=monotonic)

    def lame(self) -> str:
        """ "silent" where nothing more has arrived for a while, "slow" where little has, or ""."""
        now = monotonic()
        if not self.seen or now - self.seen[-1][0] > LOOK:
            size = held(self.folder)
            if size != (self.seen[-1][1] if self.seen else 0):
                self.grown = now
            self.seen.append((now, size))
            while now - self.seen[0][0] > SPAN:
                self.seen.popleft()
        if now - self.grown > QUIET:
            return SILENT
        more = self.seen[-1][1] - self.seen[0][1]
        return SLOW if now - self.since > SPAN and more < LEAST * SPAN else ""


def held(folder: Path) -> int:
    """Bytes in a folder, files that come and go meanwhile not minded."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


@dataclass
class Race(Generic[T]):
    """The routes to one thing: those that wait, are being asked, answered, and run."""

    errand: Errand
    way: Way[T]
    waiting: list[Route]
    late: list[Route]  # failed lately: asked when nobody else is left
    asking: dict[Route, float] = field(default_factory=dict)
    ready: list[tuple[float, int, Route]] = field(default_factory=list)
    lanes: list[Lane[T]] = field(default_factory=list)
    heard: "queue.Queue[Callable[[], tuple[Route, Path, T] | None]]" = field(
        default_factory=queue.Queue
    )
    order: dict[Route, int] = field(default_factory=dict)
    asked_at: float = 0.0

    def next(self) -> tuple[Route, Path, T] | None:
        """The next route that brought it whole; None when there is none left, or no time."""
        while monotonic() < self.errand.until:
            self.start()
            if not (self.lanes or self.asking or self.ready):
                return None
            try:
                event = self.heard.get(timeout=0.05)
            except queue.Empty:
                continue
            if won := event():
                return won
        return None

    def start(self) -> None:
        """Whatever is to be started now."""
        if not (self.waiting or self.asking or self.ready or self.lanes):
            self.waiting, self.late = self.late, []
        self.waiting = list(self.errand.alive(self.waiting))
        if self.waiting and not self.order:
            self.run(self.waiting.pop(0))
            return
        if len(self.lanes) >= ABREAST or not all(lane.lame() for lane in self.lanes):
            return
        self.ask()
        settled = not self.asking or monotonic() - self.asked_at > SETTLE
        if self.ready and settled:
            self.ready.sort()
            self.run(self.ready.pop(0)[2])

    def ask(self) -> None:
        """The small question, to everybody who waits."""
        for route in self.waiting:
            self.order[route] = len(self.order)
            self.asking[route] = self.asked_at = monotonic()
            threading.Thread(target=self.asked, args=(route,), daemon=True).start()
        self.waiting = []

    def asked(self, route: Route) -> None:
        started = monotonic()
        try:
            self.way.ask(route, self.errand.left(min(ANSWER, self.errand.patience.ask)))
        except (Unreachable, Refused) as error:
            failed = error
            self.heard.put(lambda: self.gone(route, failed))
        else:
            took = (monotonic() - started) // (2 * SETTLE)  # as quick: the order of the manifest
            self.heard.put(lambda: self.here(route, took))

    def here(self, route: Route, took: float) -> None:
        del self.asking[route]
        self.ready.append((took, self.order[route], route))

    def gone(self, route: Route, error: Unreachable | Refused) -> None:
        del self.asking[route]
        self.fail(route, error)

    def fail(self, route: Route, error: Unreachable | Refused) -> None:
        self.errand.failed(route, error)
        remember.note(self.errand.environ, route, error.reason)

    def run(self, route: Route) -> None:
        self.order.setdefault(route, len(self.order))
        self.errand.tell(f"{route}: {self.way.what}")
        lane: Lane[T] = Lane(route, self.errand.scratch())
        lane.folder.mkdir(parents=True)
        lane.thread = threading.Thread(target=self.work, args=(lane,), daemon=True)
        self.lanes.append(lane)
        lane.thread.start()

    def work(self, lane: Lane[T]) -> None:
        try:
            found = self.way.bring(lane.route, lane.folder / self.errand.source.name, lane.stop)
        except (Unreachable, Refused) as error:
            failed = error
            self.heard.put(lambda: self.lost(lane, failed))
        except OSError as error:
            broken = Unreachable("disk", lane.route.url, str(error))
            self.heard.put(lambda: self.lost(lane, broken))
        else:
            self.heard.put(lambda: self.won(lane, found))

    def lost(self, lane: Lane[T], error: Unreachable | Refused) -> None:
        if lane in self.lanes:
            self.lanes.remove(lane)
            self.fail(lane.route, error)
        remove(lane.folder)

    def won(self, lane: Lane[T], found: T) -> tuple[Route, Path, T] | None:
        if lane not in self.lanes:
            return None
        self.lanes.remove(lane)
        remember.note(self.errand.environ, lane.route)
        lame = {route: SILENT for route, at in self.asking.items() if monotonic() - at > QUIET}
        lame |= {other.route: why for other in self.lanes if (why := other.lame())}
        for other in self.halt():
            self.late.insert(0, other.route)
            if other.route not in lame:
                self.errand.tell(f"{other.route}: {STOPPED}, {lane.route.name} was faster")
        for route, why in lame.items():
            self.errand.tell(f"{route}: {why}, {lane.route.name} was faster")
            remember.note(self.errand.environ, route, why)
        return lane.route, lane.folder / self.errand.source.name, found

    def halt(self) -> list[Lane[T]]:
        """End those that still run; their folders go with them."""
        halted, self.lanes = self.lanes, []
        for lane in halted:
            lane.stop.set()
        for lane in halted:
            if lane.thread:
                lane.thread.join(3)
            remove(lane.folder)
        return halted


def raced(
    errand: Errand, asked: Sequence[Route], way: Way[T]
) -> Generator[tuple[Route, Path, T], None, None]:
    """Each route that brings it whole, where it lies, and what `bring` returned; best first.

    Close the iterator, and nothing goes on running.
    """
    race = Race(errand, way, *ordered(errand, asked))
    try:
        while found := race.next():
            yield found
    finally:
        race.halt()


def ordered(errand: Errand, asked: Sequence[Route]) -> tuple[list[Route], list[Route]]:
    """(in which order they are asked, who is asked last). Where all failed lately, nobody did."""
    known = remember.load(errand.environ)
    marks = {route: known.get(remember.key(route), {}).get("good") for route in asked}
    numbers = count()
    fresh = [route for route in asked if marks[route] is not False]
    fresh.sort(key=lambda route: (route.between and not marks[route], next(numbers)))
    late = [route for route in asked if marks[route] is False]
    if not fresh:
        return late, []
    for route in late:
        why = known[remember.key(route)]["why"]
        errand.tell(f"{route}: asked last, it failed a moment ago ({why})")
    return fresh, late
