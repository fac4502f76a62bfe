"""node sync: the requirements of ComfyUI, all enabled packs and the user, met together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doctor import advise, report, sync, treat, uv
from doctor.facts import Facts, Refusal
from doctor.finding import Diagnosis
from doctor.fixes.packages import holds
from doctor.options import BadUsage
from doctor.plan import Plan, Treatment
from doctor.screen import Screen
from doctor.step import Packages
from doctor.sync import Conflict, InConflict, Move
from doctor.verbs.patient import Args, look, opened
from doctor.verbs.treatment import agreed, recover, settings, tell_failures, write_lock
from doctor.wishes import Wish
from doctor.words import refused, say


class CannotResolve(Refusal):
    """The resolver gave no answer, and no conflict either."""

    code = 1


def run(args: Args, screen: Screen) -> int:
    facts, diagnosis = look(args, screen)
    if facts.comfyui is None or facts.target.python is None:
        raise refused(BadUsage, "sync-needs-comfyui")
    asked = sync.gather(Path(facts.comfyui.path))
    tell_apart(asked, facts, screen)
    screen.progress(say("resolving", screen.lang))
    try:
        moves = sync.plan(facts.target.python, facts, asked, args.offline)
    except InConflict as why:
        return clash(why.conflict, screen)
    except uv.ResolverFailed as why:
        raise CannotResolve(f"{why}.") from why
    screen.lines([str(move) for move in moves] or [say("sync-nothing", screen.lang)])
    outcome = carried_out(args, screen, facts, diagnosis, moves) if moves else treat.Outcome()
    screen.object(answer(moves, outcome, None))
    return 0 if outcome.receipts or not moves or args.dry_run else 1


def tell_apart(asked: Sequence[Wish], facts: Facts, screen: Screen) -> None:
    """Lines that a resolver is not given are said, so that nobody thinks they were followed; with
    what a person would type for those that name something which is not there."""
    for wish in sync.told_apart(asked):
        if wish.name and wish.name in facts.packages:
            version = facts.packages[wish.name].version
            screen.say("sync-met", where=wish.where, text=wish.text, version=version)
            continue
        screen.say("sync-apart", where=wish.where, text=wish.text)
        if wish.kind in ("address", "editable"):
            words = wish.text.split() if wish.kind == "editable" else [wish.text]
            screen.lines([f"    {advise.pip(facts, 'install', '--no-deps', *words)}"])


def clash(conflict: Conflict, screen: Screen) -> int:
    screen.lines(["✗ " + say("sync-conflict", screen.lang)])
    for wish in conflict.wishes:
        screen.lines([f"    {wish.where}: {wish.text}"])
    for pack in conflict.yielding:
        screen.say("sync-yield", pack=pack)
    screen.lines([f"    {conflict.reasoning}"])
    screen.object(answer([], treat.Outcome(), conflict))
    return 1


def carried_out(
    args: Args, screen: Screen, facts: Facts, diagnosis: Diagnosis, moves: Sequence[Move]
) -> treat.Outcome:
    pins = tuple(f"{move.name}=={move.will}" for move in moves)
    step = Packages(str(facts.target.python), wants=pins, holds=holds(facts), anew=True)
    plan = Plan((Treatment("sync-requirements", (), (step,)),))
    with opened(args, facts.target) as book:
        recover(screen, book)
        plan = treat.settle(plan, facts, book, settings(args), screen.attempt)
        screen.lines(report.plan_lines(plan, screen.lang))
        if not plan.treatments or not agreed(args, screen, plan):
            return treat.Outcome(failed=dict(plan.refused))
        outcome = treat.carry_out(
            plan, book, diagnosis, lambda: look(args, screen), screen.progress
        )
        write_lock(args, screen, book, look(args, screen)[0], plan, outcome)
    tell_failures(screen, outcome)
    return outcome


def answer(
    moves: Sequence[Move], outcome: treat.Outcome, conflict: Conflict | None
) -> dict[str, Any]:
    """comfy-doctor.node/1, of a synchronisation."""
    return {
        "schema": "comfy-doctor.node/1",
        "moves": [
            {"name": m.name, "from": m.was, "to": m.will, "wished": [w.where for w in m.wished]}
            for m in moves
        ],
        "conflict": conflict
        and {
            "wishes": [{"where": w.where, "text": w.text, "pack": w.pack} for w in conflict.wishes],
            "yielding": list(conflict.yielding),
            "reasoning": conflict.reasoning,
        },
        "receipts": list(outcome.receipts),
        "failed": dict(outcome.failed),
    }
