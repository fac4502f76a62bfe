"""node list, verify, disable, enable, remove: packs that are there."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from doctor import advise, intact, nodes, packs, report, treat
from doctor.options import BadUsage
from doctor.packs import Pack
from doctor.plan import Plan, Treatment
from doctor.screen import Screen, aligned
from doctor.startup import NodeStart
from doctor.verbs.node import Visit, visited, which
from doctor.verbs.patient import Args, opened
from doctor.verbs.treatment import agreed, recover, tell_failures
from doctor.words import reasoned, refused, say


def show(args: Args, screen: Screen) -> int:
    """node list: source, commit, state, and how each fared when ComfyUI was last started."""
    visit = visited(args, screen)
    there, started = packs.installed(visit.comfyui), packs.last_starts(visit.comfyui)
    if not there:
        screen.say("node-none")
    screen.lines(listed(there, started, screen.lang))
    rows = [{**asdict(pack), "last_start": fared(started.get(pack.name))} for pack in there]
    screen.object({"schema": "comfy-doctor.node/1", "packs": rows})
    return 0


def listed(there: Sequence[Pack], started: Mapping[str, NodeStart], lang: str) -> Iterator[str]:
    """One line for each pack, in columns; below it why it was not imported at the last start."""
    lines = [cells(pack, started.get(pack.name), lang) for pack in there]
    for pack, line in zip(there, aligned(lines), strict=True):
        yield line
        last = started.get(pack.name)
        if pack.state == "enabled" and last and last.failed:
            yield f"    {say('node-not-imported', lang)}  {last.why or '?'}"


def cells(pack: Pack, last: NodeStart | None, lang: str) -> tuple[str, ...]:
    """Mark and name, state, what it is, seconds of its last import, whence it came."""
    enabled = pack.state == "enabled"
    mark = "✗" if enabled and last and last.failed else " " if enabled else "-"
    what = " ".join(
        filter(None, (say(f"kind-{pack.kind}", lang), pack.commit[:12] or pack.version))
    )
    seconds = f"{last.seconds:.1f} s" if enabled and last else ""
    return f"{mark} {pack.name}", say(f"node-{pack.state}", lang), what, seconds, pack.source


def fared(start: NodeStart | None) -> dict[str, Any] | None:
    if start is None:
        return None
    return {"seconds": start.seconds, "failed": start.failed, "error": start.why}


def verify(args: Args, screen: Screen) -> int:
    """node verify: 1 where a pack was edited or has lost files; what nobody can tell is said."""
    visit = visited(args, screen)
    known, rows = packs.notes(visit.comfyui), []
    for pack in which(visit, args.packs):
        screen.progress(pack.name)
        found = intact.verify(pack, known.get(pack.name), os.environ)
        screen.lines(verdict(pack, found, screen.lang))
        rows.append({"name": pack.name, "state": found.state, **asdict(found)})
    screen.object({"schema": "comfy-doctor.node/1", "packs": rows})
    return 1 if any(row["state"] == "edited" for row in rows) else 0


def verdict(pack: Pack, found: intact.Integrity, lang: str) -> list[str]:
    mark = {"intact": "✓", "edited": "✗", "not judged": "?"}[found.state]
    told = f"{mark} {pack.name}  {say('node-' + found.state.replace(' ', '-'), lang)}"
    lines = [reasoned(told, found.why, lang)]
    for word in ("edited", "missing", "extra"):
        for name in getattr(found, word)[:20]:
            lines.append(f"    {say('file-' + word, lang)}  {name}")
    return lines


def disable(args: Args, screen: Screen) -> int:
    return moved(args, screen, "enabled", nodes.disable)


def enable(args: Args, screen: Screen) -> int:
    return moved(args, screen, "disabled", nodes.enable)


def remove(args: Args, screen: Screen) -> int:
    return moved(args, screen, "", nodes.remove)


def moved(args: Args, screen: Screen, state: str, how: Callable[[str, Pack], Treatment]) -> int:
    """Each pack a treatment of its own; one that cannot be moved does not keep the others."""
    visit = visited(args, screen)
    chosen = which(visit, args.packs)
    right = [pack for pack in chosen if not state or pack.state == state]
    for pack in chosen:
        if pack not in right:
            screen.say("node-is-so", name=pack.name, state=say(f"node-{pack.state}", screen.lang))
    twice = {pack.name for pack in right if sum(p.name == pack.name for p in right) > 1}
    if twice:
        raise refused(BadUsage, "node-twice", names=", ".join(sorted(twice)))
    plan = Plan(tuple(how(visit.comfyui, pack) for pack in right))
    outcome = carried_out(visit, plan)
    screen.object(moved_json(plan, outcome))
    undone = len(outcome.receipts) < len(plan.treatments) and not args.dry_run
    return 1 if outcome.failed or undone else 0


def carried_out(visit: Visit, plan: Plan) -> treat.Outcome:
    """Shown, asked, done, and verified by looking again."""
    args, screen = visit.args, visit.screen
    if not plan.treatments:
        return treat.Outcome()
    with opened(args, visit.facts.target) as book:
        recover(screen, book)
        screen.lines(report.planned(plan, screen.lang))
        if not agreed(args, screen, plan):
            return treat.Outcome()
        outcome = treat.carry_out(plan, book, visit.diagnosis, visit.look, screen.progress)
    tell_failures(screen, outcome)
    if outcome.receipts:
        screen.say("node-done", undo=advise.doctor(visit.facts, "undo"))
    return outcome


def moved_json(plan: Plan, outcome: treat.Outcome) -> dict[str, Any]:
    return {
        "schema": "comfy-doctor.node/1",
        "plan": report.plan_json(plan),
        "receipts": list(outcome.receipts),
        "failed": dict(outcome.failed),
    }
