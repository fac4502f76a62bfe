"""node: custom nodes, fetched over any route and proven before they go live."""

from pathlib import Path

from doctor import fetch, report, treat
from doctor.journal import locked
from doctor.options import BadUsage
from doctor.plan import Plan
from doctor.screen import Screen
from doctor.verbs.patient import Args, home, look
from doctor.verbs.treatment import agreed, recover, settings, tell_failures
from doctor.words import say


def node(args: Args, screen: Screen) -> int:
    """node install: fetched and proven, then requirements and folder in one treatment."""
    facts, diagnosis = look(args, screen)
    if facts.comfyui is None or not facts.comfyui.present:
        raise BadUsage("A node pack needs a ComfyUI to go into: --comfyui DIR")
    source = fetch.Source.parse(args.source)
    taken = Path(facts.comfyui.path, "custom_nodes", source.name)
    if taken.exists():
        raise BadUsage(f"{taken} is there already; nothing was changed")
    with locked(home(facts.target)) as book:
        recover(screen, book)
        arrived = treat.obtain(args.source, book, facts.world, settings(args), screen.attempt)
        plan = Plan((treat.node_treatment(facts, arrived, source.name, book),))
        plan = treat.settle(plan, facts, book, settings(args), screen.attempt)
        screen.lines(report.plan_lines(plan, screen.lang))
        outcome = treat.Outcome()
        if plan.treatments and agreed(args, screen, plan):
            outcome = treat.carry_out(
                plan, book, diagnosis, lambda: look(args, screen), screen.progress
            )
    return node_result(screen, plan, outcome, arrived, taken)


def node_result(
    screen: Screen, plan: Plan, outcome: treat.Outcome, arrived: fetch.Arrived, taken: Path
) -> int:
    tell_failures(screen, outcome)
    if outcome.receipts:
        proof = "" if arrived.proven else say("unproven", screen.lang, why=arrived.why)
        screen.say(
            "node-in",
            name=taken.name,
            path=taken,
            commit=arrived.commit[:12],
            route=arrived.route.name,
            proof=proof,
        )
    screen.object(
        {
            "schema": "comfy-doctor.node/1",
            "name": taken.name,
            "path": str(taken),
            "commit": arrived.commit,
            "route": arrived.route.name,
            "proven": arrived.proven,
            "plan": report.plan_json(plan),
            "receipts": list(outcome.receipts),
            "failed": dict(outcome.failed) | dict(plan.refused),
        }
    )
    return 0 if outcome.receipts else 1
