"""fleet: one question to every node of a Ray cluster, told as the answers come, and one report."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from doctor.fleet import cluster, parcel, told, verdict
from doctor.fleet.cluster import RayCluster
from doctor.fleet.places import CRASHED, Outcome, Slot, Work, whole
from doctor.fleet.rounds import Patience, again, rounds
from doctor.options import BadUsage
from doctor.screen import Screen
from doctor.verbs.patient import Args
from doctor.words import say

LIMITS = {1: 60.0, 2: 180.0, 3: 600.0, 4: 5400.0}  # seconds, several times what a level promises
MOST_LOCAL = 16  # raylets on one machine: each takes some 300 MB


def check(args: Args, screen: Screen) -> int:
    words = ["--level", str(args.level)]
    for name in ("only", "ignore"):
        words += [word for id in getattr(args, name) for word in (f"--{name}", id)]
    limit = args.limit or LIMITS[args.level]
    work = Work("check", ("fleet", "here", "check", *asked(args), *words), limit)
    travels = {"runner": args.level > 2, "without": parcel.INSTALLERS | parcel.PICTURES}
    with connected(args, screen, travels) as there:
        fleet = surveyed(args, screen, there, "check", nodes(there), lambda slot: work)
    return reported(args, screen, fleet)


def asked(args: Args) -> list[str]:
    """The words of every part, whatever it does."""
    words = ["--json"]
    for name in ("comfyui", "python"):
        words += [f"--{name}={getattr(args, name)}"] if getattr(args, name) else []
    return words + [f"--{name}" for name in ("yes", "offline") if getattr(args, name)]


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
            raise BadUsage(f"--{name.replace('_', '-')} {value} is less than {least}")
    if args.html and (Path(args.html).expanduser().is_dir() or args.html.endswith("/")):
        raise BadUsage(f"--html {args.html} is a folder; name a file in it")


def nodes(there: RayCluster) -> list[Slot]:
    found = there.nodes()
    if not found:
        raise BadUsage("No node of that cluster is alive")
    return whole(found)


def surveyed(
    args: Args,
    screen: Screen,
    there: RayCluster,
    act: str,
    slots: Sequence[Slot],
    work_of: Callable[[Slot], Work],
) -> verdict.Fleet:
    """Ask every slot, and tell each answer as it comes."""
    screen.news(say("fleet-asks", screen.lang, count=len(slots)))
    began = time.strftime(ISO, time.gmtime())
    outcomes = []
    for outcome in answers(args, screen, there, slots, work_of):
        outcomes.append(outcome)
        screen.news(told.live(outcome, screen.lang))
        left = len(slots) - len(outcomes)
        screen.progress(say("fleet-left", screen.lang, count=left))
    screen.ticker.clear()
    return verdict.fleet(act, began, outcomes)


ISO = "%Y-%m-%dT%H:%M:%SZ"


def answers(
    args: Args,
    screen: Screen,
    there: RayCluster,
    slots: Sequence[Slot],
    work_of: Callable[[Slot], Work],
) -> Iterator[Outcome]:
    """One outcome for each slot; what was no answer is tried again, where the node lives."""
    todo = {slot: work_of(slot) for slot in slots}
    patience = Patience(args.wait, args.at_once, args.retries)
    for end in rounds(there, slots, lambda slot: todo.pop(slot, None), patience):
        outcome = verdict.outcome(end.slot, end.work, end.result)
        if worth_another(outcome, patience) and not there.dead(end.slot.node):
            screen.news(say("fleet-again", screen.lang, slot=end.slot, why=outcome.why))
            todo[end.slot] = again(end.work)
        else:
            yield outcome


def worth_another(outcome: Outcome, patience: Patience) -> bool:
    return outcome.state == CRASHED and outcome.attempts <= patience.retries


def reported(args: Args, screen: Screen, fleet: verdict.Fleet) -> int:
    screen.lines(told.lines(fleet, screen.lang))
    code = fleet.code
    screen.object(verdict.to_json(fleet, code))
    return code
