"""fleet here: one node's part of a fleet, on this machine. What Ray starts there, and what a person
types on a node whose part of the report is in doubt."""

import json
import os
import platform
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from doctor import handoff, report
from doctor.facts import Facts, build
from doctor.finding import Diagnosis
from doctor.fleet.hand import MARK
from doctor.fleet.verdict import PART
from doctor.options import recipe_words
from doctor.screen import Screen
from doctor.verbs.check import judged
from doctor.verbs.patient import Args, target
from doctor.verbs.told import versions

Said = tuple[int, dict[str, Any]]
PATIENCE = 1800.0  # seconds for the parts of one machine that treat the same installation in turn
PATHS = ("comfyui", "python", "image", "checkpoint")


def here(args: Args, screen: Screen) -> int:
    """check, run, bench or render, as one object that a fleet is made of."""
    if MARK in os.environ:
        threading.Thread(target=lifeline, daemon=True).start()
    for name in PATHS:
        named = getattr(args, name)
        if named:
            setattr(args, name, os.path.expandvars(os.path.expanduser(named)))
    code, said = ACTS[args.what](args, screen)
    screen.object({"schema": PART, "act": args.what, "host": platform.node()} | said)
    return code


def lifeline() -> None:
    """The worker of Ray holds the other end of stdin; when it is gone, so is who would listen."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def check(args: Args, screen: Screen) -> Said:
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


class Kept(Screen):
    """A screen that keeps the object, which goes to the fleet and not to a person."""

    said: Mapping[str, Any] = {}

    def object(self, data: dict[str, Any]) -> None:
        self.said = data


def run(args: Args, screen: Screen) -> Said:
    """The whole of `run`, which leaves its report and its picture in a folder of the part."""
    from doctor.verbs import page  # pictures are loaded for it, and for nothing else here
    from doctor.verbs import run as whole_run

    args.patience = PATIENCE
    kept = Kept(screen.lang, as_json=True, no_color=True)
    with tempfile.TemporaryDirectory(prefix="comfy-doctor-") as folder:
        args.out = folder
        code = whole_run.run(args, kept)
        file = Path(folder, page.REPORT)
        whole = json.loads(file.read_text(encoding="utf-8")) if file.exists() else kept.said
    facts = versions(build(Facts, whole["facts"])) if "facts" in whole else {}
    names = ("target", "findings", "not_judged", "fix", "render", "bench")
    said = {name: whole.get(name) for name in names} | {"verify": gates(whole.get("verify"))}
    return code, {name: part for name, part in said.items() if part} | {"facts": facts}


def gates(verify: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of a hundred gates how many passed, and those that did not."""
    if not verify:
        return {}
    counts = Counter(gate["verdict"] for gate in verify["gates"])
    failed = [gate for gate in verify["gates"] if gate["verdict"] == "failed"]
    return {"passed": verify["passed"], "counts": dict(counts), "failed": failed}


def bench(args: Args, screen: Screen) -> Said:
    words = ["bench", "--model", args.model, f"--steps={args.steps or 10}"]
    words += [f"--{name}={getattr(args, name)}" for name in ("size", "batch", "runs")]
    return asked(args, "bench", [*words, *device(args)])


def render(args: Args, screen: Screen) -> Said:
    words = ["render", "--images", *(str(Path(file).resolve()) for file in args.images)]
    model = ["--checkpoint", args.checkpoint] if args.checkpoint else ["--embedded"]
    words += ["--out", str(Path(args.out).resolve()), *model, *recipe_words(args)]
    return asked(args, "many", [*words, *device(args)])


def asked(args: Args, name: str, words: list[str]) -> Said:
    """One answer of the runner in the patient; 1 where it is there and says that it is wrong."""
    said = handoff.ask_runner(target(args), words, lambda event: None, timeout=10**6)
    return 0 if said.get("finite", True) else 1, {name: said}


def device(args: Args) -> list[str]:
    return [f"--device={args.device}"] if args.device else []


ACTS = {"check": check, "run": run, "bench": bench, "render": render}
