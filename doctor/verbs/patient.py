"""Which patient the options mean, and what is seen of it: what all verbs share."""

import argparse
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from doctor import advise, locate, machine, report
from doctor.diagnose import diagnose
from doctor.examine import examine
from doctor.facts import Facts, NotKnown, Target, build
from doctor.finding import Diagnosis
from doctor.manifest import world
from doctor.options import BadUsage
from doctor.receipts import Journal, locked
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
    """The doctor's own folder for this installation: in it, in the environment judged, or, for a
    Python of the system, among the user's own state (XDG Base Directory Specification)."""
    if target.comfyui:
        return Path(target.comfyui, ".comfy-doctor")
    if target.layout in ("venv", "conda"):
        return Path(str(target.python)).parent.parent / ".comfy-doctor"
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "comfy-doctor", f"{zlib.crc32(str(target.python).encode()):08x}")


@contextmanager
def opened(args: Args, target: Target) -> Iterator[Journal]:
    """The installation's journal, locked; for a dry run an empty one elsewhere, so that a dry run
    takes nothing back, writes nothing into the patient, and needs no right to."""
    if not args.dry_run:
        with locked(home(target), getattr(args, "patience", 0.0)) as book:
            yield book
    else:
        with tempfile.TemporaryDirectory(prefix="comfy-doctor-dry-") as folder:
            yield Journal(Path(folder, ".comfy-doctor"))


def look(args: Args, screen: Screen, level: int = 2) -> tuple[Facts, Diagnosis]:
    """Examine and diagnose with the options of the command line."""
    facts = examined(args, screen, level)
    return facts, diagnose(facts)


def examined(args: Args, screen: Screen, level: int) -> Facts:
    facts = examine(target(args), level, lambda what: screen.progress(doing(what, screen.lang)))
    screen.ticker.clear()
    return facts


def doing(what: str, lang: str) -> str:
    """An interpreter is looked at, modules are imported in it."""
    return say("looking" if os.sep in what else "trying", lang, what=what)


def command(patient: Target, *words: str) -> str:
    """comfy-doctor on this patient, as a person types it."""
    return advise.doctor(Facts(target=patient, host=machine.host()), *words)


def saved(path: Path) -> Facts:
    """Facts of a file that `check --save` wrote; BadUsage on others."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if "like" in data:
            raise ValueError("it is a test's patient that builds on another one")
        facts: Facts = build(Facts, data.get("facts", data))
        if not isinstance(facts, Facts) or facts.target.why is None:
            raise ValueError("it names no target")
    except (ValueError, TypeError, AttributeError, RecursionError, NotKnown) as error:
        raise BadUsage(f"{path} is no file of saved facts: {str(error)[:200]}.") from error
    return replace(facts, world=world())


def tell(facts: Facts, diagnosis: Diagnosis, screen: Screen) -> None:
    screen.rows(report.first_rows(facts, screen.lang))
    screen.lines(report.findings(diagnosis, facts, screen.lang))
