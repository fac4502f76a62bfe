"""levels: what `check --level 3` and 4 try besides looking: allocators, a small render, a start of
ComfyUI; then a verified full-size render and the benchmark."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from doctor import allocators, handoff, locate
from doctor.diagnose import diagnose
from doctor.facts import Facts, Refusal
from doctor.finding import Diagnosis, Finding, NotJudged
from doctor.manifest import world
from doctor.screen import Screen
from doctor.verbs.patient import Args
from doctor.verbs.served import NotServed, started
from doctor.words import say

SMALL, START = 20.0, 40.0  # seconds; with what level 2 takes, level 3 keeps its promise of 60
# where nothing hangs: a start that takes longer is told as not judged, and no error


@dataclass
class Tried:
    """What was tried, and what came of it."""

    findings: list[Finding] = field(default_factory=list)
    not_judged: list[NotJudged] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)  # name, verdict, seconds, why


def tried(
    args: Args, facts: Facts, diagnosis: Diagnosis, screen: Screen
) -> tuple[Facts, Diagnosis, list[dict[str, Any]]]:
    """The allocators first: they are facts for the checks. Nothing is started on top of errors."""
    screen.progress(say("trying", screen.lang, what=", ".join(allocators.BACKENDS)))
    facts = replace(facts, allocators=allocators.tried(facts.target))
    diagnosis = diagnose(facts, args.only, args.ignore)
    found = Tried()
    if diagnosis.errors:
        ids = ", ".join(f.id for f in diagnosis.errors)
        why = say("errors-first", screen.lang, ids=ids)
        found.not_judged += [NotJudged(name, why) for name in ("gates", "render", "start")]
    else:
        small(facts, screen, found)
        start(facts, screen, found)
        if args.level >= 4:
            full(facts, screen, found)
    screen.ticker.clear()
    more = (*diagnosis.findings, *found.findings)
    ordered = tuple(sorted(more, key=lambda finding: -finding.severity))
    unjudged = (*diagnosis.not_judged, *found.not_judged)
    return facts, replace(diagnosis, findings=ordered, not_judged=unjudged), found.rows


def small(facts: Facts, screen: Screen, found: Tried) -> None:
    """The runner in the patient: its small gates, then a picture by the model that comes along."""
    ask(facts, screen, found, "gates", ["verify", "--depth", "1"], SMALL)
    with tempfile.TemporaryDirectory(prefix="comfy-doctor-") as folder:
        words = ["render", "--embedded", "--out", str(Path(folder, "render.png"))]
        ask(facts, screen, found, "render", words, SMALL)


def full(facts: Facts, screen: Screen, found: Tried) -> None:
    """All gates, a full-size render and the benchmark."""
    need = next(limit.warning for limit in world().limits if limit.what == "memory")
    if facts.host.memory_free < need:
        why = say("memory-short", screen.lang, need=need // GB, free=facts.host.memory_free // GB)
        found.not_judged.append(NotJudged("prove", why))
        return
    with tempfile.TemporaryDirectory(prefix="comfy-doctor-") as folder:
        words = ["prove", "--synthetic", "sd15", "--out", str(Path(folder, "render.png"))]
        ask(facts, screen, found, "prove", words, 3600.0)


GB = 1_000_000_000


def ask(
    facts: Facts, screen: Screen, found: Tried, name: str, words: list[str], limit: float
) -> None:
    """One command of the runner, as a row: passed, failed or not judged."""
    screen.progress(say(f"level-{name}", screen.lang))
    began = time.monotonic()
    try:
        said = handoff.ask_runner(facts.target, words, lambda event: None, timeout=limit)
    except handoff.HandoffFailed as error:
        found.not_judged.append(NotJudged(name, str(error)))
        found.rows.append(row(name, "not judged", began, str(error)))
        return
    wrong = list(faults(said))
    speed = {"steps_per_second": said["bench"]["steps_per_second"]} if "bench" in said else {}
    verdict = "failed" if wrong else "passed"
    found.rows.append(row(name, verdict, began, ", ".join(wrong)) | speed)


def faults(said: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an answer of the runner: gates that failed, NaN, a picture that does not
    show what was asked for more than the one it began with did."""
    gates = said.get("verify", said).get("gates", ())
    yield from (gate["name"] for gate in gates if gate["verdict"] == "failed")
    yield from said.get("not_finite", ())
    shown = (said.get("measures") or {}).get("positive")
    if shown and not shown["output"] > shown["input"]:
        yield f"shows the prompt {shown['output']:.2f}, began with {shown['input']:.2f}"


def start(facts: Facts, screen: Screen, found: Tried) -> None:
    """ComfyUI started with folders of its own, until it answers, and ended again."""
    folder = facts.target.comfyui
    if folder is None or not locate.is_comfyui(Path(folder)):
        found.not_judged.append(NotJudged("start", say("no-comfyui", screen.lang), skipped=True))
        return
    screen.progress(say("level-start", screen.lang))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="comfy-doctor-") as scratch:
        try:
            with started(facts.target, Path(scratch), "", START, lambda what: None) as place:
                phases = place.seconds
            found.rows.append(row("start", "passed", began, "") | {"phases": phases})
        except NotServed as error:
            tell_start(error, found, began)
        except (OSError, Refusal) as error:
            found.not_judged.append(NotJudged("start", str(error)))


def tell_start(error: NotServed, found: Tried, began: float) -> None:
    """A start that failed is told by its findings; one that nobody knows, or that is slow, as not
    judged."""
    symptoms = error.judgement.symptoms if error.judgement is not None and error.ended else ()
    errors = [s.finding for s in symptoms]
    found.findings += errors
    if not errors:
        found.not_judged.append(NotJudged("start", str(error)))
    found.rows.append(row("start", "failed" if errors else "not judged", began, str(error)))


def row(name: str, verdict: str, began: float, why: str) -> dict[str, Any]:
    seconds = round(time.monotonic() - began, 3)
    return {"name": name, "verdict": verdict, "seconds": seconds, "why": why}
