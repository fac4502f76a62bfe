"""node bisect: which pack breaks the start of ComfyUI, found by starting it, unattended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from doctor import packs, trial
from doctor.options import BadUsage
from doctor.screen import Screen
from doctor.trial import Trial
from doctor.verbs.node import Visit, visited
from doctor.verbs.patient import Args
from doctor.words import refused, say


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
    seen: dict[frozenset[str], Trial] = field(default_factory=dict)

    def trial(self, names: Sequence[str]) -> Trial:
        key = frozenset(names)
        if key not in self.seen:
            screen = self.visit.screen
            screen.progress(say("bisect-starting", screen.lang, count=len(names)))
            one = trial.start(self.visit.facts, self.limit, names)
            self.seen[key] = one
            result = say("bisect-bad" if one.error else "bisect-good", screen.lang)
            number, seconds = len(self.seen), f"{one.seconds:.1f}"
            screen.say(
                "bisect-try", number=number, count=len(names), result=result, seconds=seconds
            )
        return self.seen[key]

    def error(self, names: Sequence[str]) -> str:
        """Why a start failed; "" of one that went well."""
        return self.trial(names).error

    def good(self, names: Sequence[str]) -> bool:
        return not self.error(names)


def bisect(args: Args, screen: Screen) -> int:
    """node bisect: 1 where a pack, or ComfyUI itself, breaks the start, or is not imported."""
    visit = visited(args, screen)
    if visit.facts.target.python is None:
        raise refused(BadUsage, "bisect-no-python")
    names = [p.name for p in packs.installed(visit.comfyui) if p.state == "enabled"]
    if args.dry_run:
        screen.say(
            "bisect-would", count=len(names), most=most(len(names)), limit=f"{args.limit:.0f}"
        )
        screen.object({"schema": "comfy-doctor.node/1", "packs": names, "starts": 0})
        return 0
    starts = Starts(visit, args.limit)
    core = starts.error([])
    found = [] if core else list(culprits(names, starts))
    rest = [name for name in names if name not in {one.name for one in found}]
    alone = {} if core else starts.trial(rest).not_imported
    tell(screen, core, found, alone, len(names))
    rows = [{"name": c.name, "with": list(c.others), "error": c.error} for c in found]
    screen.object(
        {
            "schema": "comfy-doctor.node/1",
            "culprits": rows,
            "not_imported": alone,
            "core": core,
            "starts": len(starts.seen),
        }
    )
    return 1 if found or alone or core else 0


def most(count: int) -> int:
    """Starts that one culprit among so many packs can take."""
    return 4 + (count - 1).bit_length() if count else 1


def tell(
    screen: Screen, core: str, found: Sequence[Culprit], alone: Mapping[str, str], count: int
) -> None:
    if core:
        screen.say("bisect-core", error=core)
    elif not found:
        screen.say("bisect-none", count=count)
    for one in found:
        others = say("bisect-with", screen.lang, names=", ".join(one.others)) if one.others else ""
        screen.say("bisect-found", name=one.name, others=others, error=one.error)
    for name, error in alone.items():
        screen.say("bisect-import", name=name, error=error or "?")


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
