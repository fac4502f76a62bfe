"""Which patient the options mean, and what is seen of it: what all verbs share."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from doctor import locate, report
from doctor.diagnose import diagnose
from doctor.examine import examine
from doctor.facts import Facts, Target, build
from doctor.finding import Diagnosis
from doctor.manifest import world
from doctor.options import BadUsage
from doctor.screen import Screen
from doctor.words import say

Args = argparse.Namespace
NOWHERE = (
    "No ComfyUI here. Name one with --comfyui DIR, an interpreter with --python PY,"
    " or make a new one: comfy-doctor setup DIR"
)


def target(args: Args) -> Target:
    """The target of the common options; BadUsage or BadTarget where they name none."""
    if args.comfyui is None and args.python is not None:
        return locate.target(None, args.python)  # an interpreter patient
    folder = locate.folder(args.comfyui, Path.cwd())
    if folder is None:
        raise BadUsage(NOWHERE)
    return locate.target(folder, args.python)


def home(target: Target) -> Path:
    """The doctor's own folder for this installation: in it, or in the environment judged."""
    if target.comfyui:
        return Path(target.comfyui, ".comfy-doctor")
    return Path(str(target.python)).parent.parent / ".comfy-doctor"


def look(args: Args, screen: Screen, level: int = 2) -> tuple[Facts, Diagnosis]:
    """Examine and diagnose with the options of the command line."""
    facts = examined(args, screen, level)
    return facts, diagnose(facts)


def examined(args: Args, screen: Screen, level: int) -> Facts:
    facts = examine(
        target(args), level, lambda what: screen.progress(say("trying", screen.lang, what=what))
    )
    screen.ticker.clear()
    return facts


def saved(path: Path) -> Facts:
    """Facts of a file that `check --save` wrote, or of a test's patient; BadUsage on others."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        facts: Facts = build(Facts, data.get("facts", data))
    except (ValueError, TypeError, AttributeError) as error:
        raise BadUsage(f"{path} is no file of saved facts: {error}") from error
    return replace(facts, world=world())


def tell(facts: Facts, diagnosis: Diagnosis, screen: Screen) -> None:
    screen.rows(report.first_rows(facts, screen.lang))
    screen.lines(report.findings(diagnosis, facts, screen.lang))
