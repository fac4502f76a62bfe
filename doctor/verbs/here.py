"""fleet here: one node's part of a fleet, on this machine. What Ray starts there, and what a person
types on a node whose part of the report is in doubt."""

import os
import platform
import signal
import threading
from typing import Any

from doctor import report
from doctor.facts import Facts
from doctor.finding import Diagnosis
from doctor.fleet.hand import MARK
from doctor.fleet.verdict import PART
from doctor.screen import Screen
from doctor.verbs.check import judged
from doctor.verbs.patient import Args
from doctor.verbs.told import versions


def here(args: Args, screen: Screen) -> int:
    """check, run, bench or render, as one object that a fleet is made of."""
    if MARK in os.environ:
        threading.Thread(target=lifeline, daemon=True).start()
    for name in ("comfyui", "python"):
        named = getattr(args, name)
        if named:
            setattr(args, name, os.path.expandvars(os.path.expanduser(named)))
    code, said = ACTS[args.what](args, screen)
    head = {"schema": PART, "act": args.what, "host": platform.node()}
    screen.object(head | said)
    return code


def lifeline() -> None:
    """The worker of Ray holds the other end of stdin; when it is gone, so is who would listen."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def check(args: Args, screen: Screen) -> tuple[int, dict[str, Any]]:
    code, facts, diagnosis, rows = judged(args, screen)
    return code, patient(facts, diagnosis) | {"tried": rows}


def patient(facts: Facts, diagnosis: Diagnosis) -> dict[str, Any]:
    """Small on purpose: a thousand of these are sent to one machine."""
    return {
        "target": report.target_json(facts.target),
        "facts": versions(facts),
        "findings": [report.told_json(finding, "en") for finding in diagnosis.findings],
        "not_judged": [{"id": n.id, "why": n.why} for n in diagnosis.not_judged if not n.skipped],
    }


ACTS = {"check": check}
