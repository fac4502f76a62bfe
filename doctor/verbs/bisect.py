"""node bisect: which pack breaks the start of ComfyUI, found by starting it, unattended."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from doctor import flags, packs
from doctor.examine import kept
from doctor.manifest import world
from doctor.options import BadUsage
from doctor.screen import Screen
from doctor.verbs.node import Visit, visited
from doctor.verbs.patient import Args
from doctor.words import say

# Starts, imports everything and ends (comfy/cli_args.py); the other two leave packs out.
TEST, NONE, BUT = "--quick-test-for-ci", "--disable-all-custom-nodes", "--whitelist-custom-nodes"


@dataclass(frozen=True)
class Culprit:
    """A pack that breaks the start, with the others that it takes for that."""

    name: str
    others: tuple[str, ...]
    error: str


@dataclass
class Starts:
    """Starts of ComfyUI with some packs, each set once; what it said when it failed."""

    visit: Visit
    limit: float
    seen: dict[frozenset[str], str] = field(default_factory=dict)

    def error(self, names: Sequence[str]) -> str:
        """The last line of a start that failed; "" of one that went well."""
        key = frozenset(names)
        if key not in self.seen:
            self.seen[key] = self.start(names)
            result = say("bisect-bad" if self.seen[key] else "bisect-good", self.visit.screen.lang)
            number, screen = len(self.seen), self.visit.screen
            screen.say("bisect-try", number=number, count=len(names), result=result)
        return self.seen[key]

    def good(self, names: Sequence[str]) -> bool:
        return not self.error(names)

    def start(self, names: Sequence[str]) -> str:
        target, folder = self.visit.facts.target, self.visit.comfyui
        words = [str(target.python), *target.flags, "main.py", TEST, NONE]
        words += flags.words(flags.applied(kept(Path(folder)).flags, words, world()))
        words += [BUT, *names] if names else []
        try:
            run = subprocess.run(
                words, cwd=folder, capture_output=True, timeout=self.limit, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return f"no end after {self.limit:.0f} s"
        lines = (run.stdout + run.stderr).decode(errors="replace").strip().splitlines()
        return (lines[-1] if lines else f"exit code {run.returncode}") if run.returncode else ""


def start_once(args: Args, screen: Screen, limit: float = 300) -> str:
    """The last line of a start with all enabled packs that failed; "" of one that went well."""
    visit = visited(args, screen)
    names = [p.name for p in packs.installed(visit.comfyui) if p.state == "enabled"]
    return Starts(visit, limit).start(names)


def bisect(args: Args, screen: Screen) -> int:
    visit = visited(args, screen)
    if visit.facts.target.python is None:
        raise BadUsage("bisect starts ComfyUI, and there is no interpreter: comfy-doctor fix")
    names = [p.name for p in packs.installed(visit.comfyui) if p.state == "enabled"]
    starts = Starts(visit, args.limit)
    core = starts.error([])
    found = [] if core else list(culprits(names, starts))
    if core:
        screen.say("bisect-core", error=core)
    elif not found:
        screen.say("bisect-none", count=len(names))
    for one in found:
        others = say("bisect-with", screen.lang, names=", ".join(one.others)) if one.others else ""
        screen.say("bisect-found", name=one.name, others=others, error=one.error)
    rows = [{"name": c.name, "with": list(c.others), "error": c.error} for c in found]
    count = len(starts.seen)
    screen.object(
        {"schema": "comfy-doctor.node/1", "culprits": rows, "core": core, "starts": count}
    )
    return 1 if found or core else 0


def culprits(names: Sequence[str], starts: Starts) -> list[Culprit]:
    """One after the other, until what is left starts."""
    rest, found = list(names), []
    while rest and not starts.good(rest):
        error = starts.error(rest)
        last = first_bad(rest, starts.good)
        name = rest[last]
        others = partners(name, rest[:last], starts)
        found.append(Culprit(name, others, starts.error([name, *others]) or error))
        rest.remove(name)
    return found


def partners(name: str, before: Sequence[str], starts: Starts) -> tuple[str, ...]:
    """Which of the packs before it a pack takes to break the start; none, if it does so alone."""
    others: tuple[str, ...] = ()
    while before and starts.good([name, *others]):
        last = first_bad(before, partial(good_with, starts, (name, *others)))
        others, before = (before[last], *others), before[:last]
    return others


def good_with(starts: Starts, more: Sequence[str], some: Sequence[str]) -> bool:
    return starts.good([*some, *more])


def first_bad(names: Sequence[str], good: Callable[[Sequence[str]], bool]) -> int:
    """The number of the first name with which, and with all before it, the start fails."""
    low, high = 0, len(names)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(names[:middle]) else (low, middle)
    return high - 1
