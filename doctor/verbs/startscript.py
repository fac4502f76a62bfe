"""launch --script: a start script with the kept flags, for those who double-click."""

import platform
from pathlib import Path

from doctor import journal, report, startscript
from doctor.facts import Target
from doctor.flags import Script
from doctor.options import BadUsage
from doctor.plan import Plan, Treatment
from doctor.screen import Screen
from doctor.step import KeepFlags
from doctor.verbs.patient import Args, home, opened
from doctor.verbs.treatment import agreed, recover
from doctor.words import say


def write_script(args: Args, screen: Screen, patient: Target) -> int:
    """Planned, shown, journaled like any change; it follows the kept flags from then on."""
    name = args.script or startscript.usual_name(platform.system().lower())
    there = Path(str(patient.comfyui), name)
    if there.is_dir():
        raise BadUsage(f"{there} is a folder; --script names the file to write")
    if there.exists() and startscript.MARK not in there.read_text("utf-8", errors="replace"):
        raise BadUsage(f"{there} is there, and not of comfy-doctor: name another file")
    command = (str(patient.python), *patient.flags, "main.py")
    step = KeepFlags(str(home(patient)), scripts={name: Script(command, tuple(args.args))})
    plan = Plan((Treatment("start-script", (), (step,)),))
    screen.lines([say("plan", screen.lang), *report.plan_lines(plan, screen.lang)])
    receipts = []
    with opened(args, patient) as book:
        recover(screen, book)
        if agreed(args, screen, plan):
            receipts = [journal.treat(book, plan.treatments[0], screen.progress)]
            journal.commit(book, receipts[0])
            screen.say("script-written", path=there)
    screen.object({"schema": "comfy-doctor.launch/1", "script": str(there), "receipts": receipts})
    return 0 if receipts or args.dry_run else 1
