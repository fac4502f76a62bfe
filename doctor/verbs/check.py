"""check: examine and diagnose, and change nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from doctor import report
from doctor.check import CHECKS
from doctor.diagnose import diagnose, verdict
from doctor.facts import Facts, Unknown, plain
from doctor.finding import Diagnosis
from doctor.manifest import world
from doctor.options import BadUsage
from doctor.receipts import Journal
from doctor.screen import Screen
from doctor.verbs.patient import Args, examined, home, saved, tell
from doctor.verbs.sharing import shared
from doctor.words import say


def check(args: Args, screen: Screen) -> int:
    code, facts, diagnosis, rows = judged(args, screen)
    if args.save:
        save(Path(args.save), facts, diagnosis, screen)
    if args.junit or args.metrics:
        from doctor.verbs.told import of_check

        of_check(args, diagnosis, facts, rows)
    tell(facts, diagnosis, screen)
    if not args.facts:
        tell_interrupted(facts, screen)
    screen.lines([report.conclusion(diagnosis, facts, screen.lang)])
    screen.lines(report.tried_lines(rows, screen.lang))
    tried = {"tried": rows} if rows else {}
    screen.object(report.check_json(diagnosis, facts, screen.lang) | tried)
    return code


def judged(args: Args, screen: Screen) -> tuple[int, Facts, Diagnosis, list[dict[str, Any]]]:
    """The exit code, what it rests on, and what level 3 tried. Tells progress, and no result."""
    for id in (*args.only, *args.ignore):
        if id not in CHECKS:
            raise BadUsage(f"There is no check {id}; `comfy-doctor list` names them all")
    facts = saved(Path(args.facts)) if args.facts else examined(args, screen, args.level)
    if args.network and not args.facts:
        facts = replace(facts, network=reached(args, screen))
    diagnosis = diagnose(facts, args.only, args.ignore)
    rows: list[dict[str, Any]] = []
    if args.level >= 3 and not args.facts:
        from doctor.verbs import levels  # brings the network along; looking does not wait for it

        facts, diagnosis, rows = levels.tried(args, facts, diagnosis, screen)
    failed = any(row["verdict"] == "failed" for row in rows)
    return 1 if failed else verdict(diagnosis), facts, diagnosis, rows


def reached(args: Args, screen: Screen) -> Any:
    """What is within reach; requests is loaded for it, and for nothing else here."""
    if args.offline:
        return Unknown("nothing is asked offline", skipped=True)
    from doctor import network

    screen.progress(say("asking-network", screen.lang))
    return network.look(world())


def save(path: Path, facts: Facts, diagnosis: Diagnosis, screen: Screen) -> None:
    """The shape of a test's patient: this very file can become one."""
    whole = {
        "story": "",
        "facts": plain(facts),
        "findings": [finding.id for finding in diagnosis.findings],
    }
    path.write_text(json.dumps(shared(whole, screen), indent=2) + "\n", encoding="utf-8")


def tell_interrupted(facts: Facts, screen: Screen) -> None:
    """A treatment that a kill cut short is worth knowing about, and not ours to touch here."""
    for receipt in Journal(home(facts.target)).history():
        if receipt.state == "open":
            screen.say("left-open", fix=receipt.fix, when=receipt.when)
