"""fleet: one question to every node of a Ray cluster, told as the answers come, and one report."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from doctor.fleet import cluster, parcel, told, verdict
from doctor.fleet.cluster import RayCluster
from doctor.fleet.places import CRASHED, Node, Outcome, Slot, Work, devices, whole
from doctor.fleet.rounds import Patience, again, rounds
from doctor.fleet.sheet import html
from doctor.options import BadUsage, recipe_words
from doctor.screen import Screen
from doctor.step import Write
from doctor.verbs.patient import Args
from doctor.words import phrase, say

LIMITS = {1: 60.0, 2: 180.0, 3: 600.0, 4: 5400.0}  # seconds, several times what a level promises
LIMIT = 3600.0  # seconds for a proof, or a timing
MOST_LOCAL = 16  # raylets on one machine: each takes some 300 MB
LIGHT = parcel.INSTALLERS | parcel.PICTURES
ISO = "%Y-%m-%dT%H:%M:%SZ"
Slots = Callable[[Sequence[Node]], list[Slot]]


def check(args: Args, screen: Screen) -> int:
    words = [f"--level={args.level}"]
    for name in ("only", "ignore"):
        words += [word for id in getattr(args, name) for word in (f"--{name}", id)]
    work = part(args, "check", words, LIMITS[args.level])
    deep = args.level > 2
    travels = {"runner": deep, "without": parcel.INSTALLERS if deep else LIGHT}
    return asked_of_all(args, screen, work, whole, travels)


def run(args: Args, screen: Screen) -> int:
    words = [f"--{n}={getattr(args, n)}" for n in ("image", "checkpoint") if getattr(args, n)]
    work = part(args, "run", [*words, *recipe_words(args)], LIMIT)
    without = frozenset() if args.yes else parcel.INSTALLERS
    return asked_of_all(args, screen, work, devices, {"runner": True, "without": without})


def bench(args: Args, screen: Screen) -> int:
    names = ("model", "steps", "size", "batch", "runs", "device")
    words = [f"--{n}={getattr(args, n)}" for n in names if getattr(args, n) is not None]
    work = part(args, "bench", words, LIMIT)
    return asked_of_all(args, screen, work, devices, {"runner": True, "without": LIGHT})


def part(args: Args, act: str, words: Sequence[str], limit: float) -> Work:
    return Work(act, ("fleet", "here", act, *common(args), *words), args.limit or limit)


def common(args: Args) -> list[str]:
    """The words of every part, whatever it does."""
    words = ["--json"]
    for name in ("comfyui", "python"):
        words += [f"--{name}={getattr(args, name)}"] if getattr(args, name) else []
    return words + [f"--{name}" for name in ("yes", "offline") if getattr(args, name)]


def asked_of_all(
    args: Args, screen: Screen, work: Work, slots_of: Slots, travels: Mapping[str, Any]
) -> int:
    """One work for every slot; its report, and its exit code."""
    with connected(args, screen, travels) as there:
        slots = slots_of(nodes(there))
        if not args.dry_run:
            fleet = surveyed(args, screen, there, work, slots)
    if args.dry_run:
        return planned(screen, [str(slot) for slot in slots], work.words)
    return reported(args, screen, fleet)


@contextmanager
def connected(args: Args, screen: Screen, travels: Mapping[str, Any]) -> Iterator[RayCluster]:
    refuse_bad_input(args)
    screen.progress(say("fleet-joining", screen.lang))
    with tempfile.TemporaryDirectory(prefix="comfy-doctor-fleet-") as name:
        folder = Path(name, "parcel")
        folder.mkdir()
        if args.installed:
            parcel.bare(folder)
        else:
            parcel.packed(folder, **travels)
        address = args.address or "auto"
        with cluster.joined(address, args.local or 0, folder, args.installed or "") as there:
            screen.ticker.clear()
            yield there


def refuse_bad_input(args: Args) -> None:
    if args.local is not None and not 1 <= args.local <= MOST_LOCAL:
        raise BadUsage(f"--local {args.local} is not between 1 and {MOST_LOCAL}")
    if args.local is not None and args.address:
        raise BadUsage("--local starts a cluster, --address names one; give one of them")
    for name, least in (("limit", 1), ("wait", 1), ("retries", 0), ("at_once", 1)):
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value >= least):
            raise BadUsage(f"--{name.replace('_', '-')} {value} is not a number from {least} on")
    html = getattr(args, "html", None)
    if html and (Path(html).expanduser().is_dir() or html.endswith("/")):
        raise BadUsage(f"--html {html} is a folder; name a file in it")


def nodes(there: RayCluster) -> list[Node]:
    found = there.nodes()
    if not found:
        raise BadUsage("No node of that cluster is alive")
    return found


def planned(screen: Screen, slots: Sequence[str], words: Sequence[str]) -> int:
    """What a dry run shows: who would be asked, and what; nothing was started there."""
    screen.say("fleet-plan", count=len(slots))
    screen.lines(f"    {slot}" for slot in slots)
    screen.lines([f"    comfy-doctor {' '.join(words)}"])
    screen.object({"schema": verdict.PLAN, "slots": list(slots), "words": list(words)})
    return 0


def surveyed(
    args: Args, screen: Screen, there: RayCluster, work: Work, slots: Sequence[Slot]
) -> verdict.Fleet:
    """Ask every slot, and tell each answer as it comes."""
    screen.news(say("fleet-asks", screen.lang, count=len(slots)))
    began, outcomes = time.strftime(ISO, time.gmtime()), []
    for outcome in answers(args, screen, there, work, slots):
        outcomes.append(outcome)
        screen.news(told.live(outcome, screen.lang))
        if count := len(slots) - len(outcomes):
            screen.progress(say("fleet-left", screen.lang, count=count))
    screen.ticker.clear()
    return verdict.fleet(work.key, began, outcomes)


def answers(
    args: Args, screen: Screen, there: RayCluster, work: Work, slots: Sequence[Slot]
) -> Iterator[Outcome]:
    """One outcome for each slot; what was no answer is tried again, where the node lives."""
    todo = dict.fromkeys(slots, work)
    patience = Patience(args.wait, args.at_once, args.retries)
    with closing(rounds(there, slots, lambda slot: todo.pop(slot, None), patience)) as ends:
        for end in ends:
            outcome = verdict.outcome(end.slot, end.work, end.result)
            more = outcome.state == CRASHED and outcome.attempts <= patience.retries
            if more and not there.dead(end.slot.node):
                why = phrase(outcome.why, screen.lang)
                screen.news(say("fleet-again", screen.lang, slot=end.slot, why=why))
                todo[end.slot] = again(end.work)
            else:
                yield outcome


def reported(args: Args, screen: Screen, fleet: verdict.Fleet) -> int:
    screen.lines(told.lines(fleet, screen.lang))
    answer = verdict.to_json(fleet)
    if args.html:
        Write(str(Path(args.html).expanduser()), html(fleet, screen.lang)).do(lambda what: None)
        screen.say("page-written", path=args.html)
    screen.object(answer)
    return fleet.code
