"""run: check, treat, then the proof: a verified img2img render in the patient's interpreter."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from doctor import handoff, options, preview, report
from doctor.diagnose import diagnose
from doctor.facts import Facts, Unknown, plain
from doctor.finding import Diagnosis
from doctor.manifest import world
from doctor.options import BadUsage
from doctor.screen import Screen
from doctor.snapshot import write_whole
from doctor.verbs import page
from doctor.verbs.patient import Args, home, look, opened, tell
from doctor.verbs.sharing import shared
from doctor.verbs.treatment import cure
from doctor.verdict import proof_of
from doctor.words import say


def run(args: Args, screen: Screen) -> int:
    """Check, treat, hand off, report."""
    args.ids = []
    refuse_bad_input(args)
    facts, diagnosis = look(args, screen)
    tell(facts, diagnosis, screen)
    before = facts, diagnosis
    with opened(args, facts.target) as book:
        if book.waited:  # for what another one did here
            facts, diagnosis = look(args, screen)
        fixed = cure(args, screen, book, facts, diagnosis)
    if args.dry_run:
        unproved(args, screen, facts, diagnosis, fixed)
        return 1 if diagnosis.errors else 0
    facts, diagnosis = look(args, screen)
    if fixed["receipts"]:
        fixed = {**fixed, "before": state(*before)}
    blocking = [f for f in diagnosis.errors if f.id != "comfyui-missing"]
    if blocking or facts.target.python is None:
        screen.say("render-not-tried", ids=", ".join(f.id for f in blocking or diagnosis.errors))
        unproved(args, screen, facts, diagnosis, fixed)
        return 1
    if diagnosis.errors:
        screen.lines(["! " + say("source-warning", screen.lang)])
    return prove(args, screen, facts, diagnosis, fixed)


def prove(
    args: Args, screen: Screen, facts: Facts, diagnosis: Diagnosis, fixed: Mapping[str, Any]
) -> int:
    need = next(limit.warning for limit in world().limits if limit.what == "memory")
    if facts.host.memory_free < need:
        screen.say("memory-short", need=need // GB, free=facts.host.memory_free // GB)
        unproved(args, screen, facts, diagnosis, fixed)
        return 4
    out = (
        Path(args.out) if args.out else home(facts.target) / "runs" / time.strftime("%Y%m%d-%H%M%S")
    )
    out.mkdir(parents=True, exist_ok=True)
    picture = out / "render.png"
    if args.checkpoint:
        screen.say("proof-coming-file", checkpoint=args.checkpoint, memory=need // GB)
    else:
        screen.say("proof-coming", size=SIZE, memory=need // GB, minutes=MINUTES)
    try:
        words = [*recipe(args, picture), "--lang", screen.lang]
        words += ["--glimpses"] if screen.easel.way else []
        result = handoff.ask_runner(facts.target, words, stage(screen))
    except BaseException:
        with suppress(OSError):
            out.rmdir()  # only where nothing came to lie in it
        raise
    screen.ticker.clear()
    facts = replace(facts, proof=proof_of(result, time.strftime(ISO, time.gmtime())))
    known, diagnosis = diagnosis, diagnose(facts)
    html = Path(args.html).expanduser() if args.html else out / page.PAGE
    files = [picture, out / page.REPORT, html]
    answer = run_json(facts, diagnosis, fixed, result, files, screen.lang)
    kept = shared(answer | more_json(facts, diagnosis, screen.lang), screen)
    write_whole(files[1], kept)
    page.keep_pictures(out)
    page.write(html, kept, screen.lang, files[1])
    proved(screen, result, (picture, html))
    told = {finding.id for finding in known.findings}
    for finding in diagnosis.findings:
        if finding.id not in told:
            screen.lines(report.one(finding, facts, screen.lang))
    screen.object(answer)
    return 0 if result["verify"]["passed"] and result["render"]["finite"] else 1


def unproved(
    args: Args, screen: Screen, facts: Facts, diagnosis: Diagnosis, fixed: Mapping[str, Any]
) -> None:
    """The answer of a run that came to no render; its page and its report where they were named."""
    answer = run_json(facts, diagnosis, fixed, {}, [], screen.lang)
    if args.html or (args.out and not args.dry_run):
        kept = shared(answer | more_json(facts, diagnosis, screen.lang), screen)
        if args.out and not args.dry_run:
            write_whole(Path(args.out) / page.REPORT, kept)
        if args.html:
            page.write(Path(args.html).expanduser(), kept, screen.lang)
            screen.say("page-written", path=args.html)
    screen.object(answer)


def state(facts: Facts, diagnosis: Diagnosis) -> dict[str, Any]:
    """What a treatment is compared with: findings with their severity, packages with versions."""
    there = {} if isinstance(facts.packages, Unknown) else facts.packages
    return {
        "findings": {f.id: f.severity.word for f in diagnosis.findings},
        "packages": {name: {"version": package.version} for name, package in there.items()},
    }


GB = 1_000_000_000
COLUMNS = 24  # of a picture on a terminal; two and their margin fit into 60
ISO = "%Y-%m-%dT%H:%M:%SZ"
SIZE, MINUTES = "64×64", 1  # of the golden input picture; measured: 0.7 min


def recipe(args: Args, picture: Path) -> list[str]:
    """The runner's words for what the user asked; what was not asked is the runner's default."""
    words = ["prove", "--out", str(picture.resolve())]
    words += ["--trace", str(picture.resolve().with_name(page.TRACE))]
    words += ["--checkpoint", whole(args.checkpoint)] if args.checkpoint else []
    words += [] if args.checkpoint else ["--embedded"]
    words += ["--image", whole(args.image)] if args.image else []
    return words + options.recipe_words(args)


def whole(path: str) -> str:
    """The runner works in a folder of its own: paths are said in full."""
    return str(Path(path).expanduser().resolve())


def refuse_bad_input(args: Args) -> None:
    """What can be judged before anything is looked at or installed is judged before."""
    for name in ("image", "checkpoint"):
        path = getattr(args, name)
        if path is not None and not Path(path).expanduser().is_file():
            raise BadUsage(f"--{name}: there is no file {path or 'with an empty name'}")
    if args.html and (Path(args.html).expanduser().is_dir() or args.html.endswith("/")):
        raise BadUsage(f"--html {args.html} is a folder; name a file in it")
    limits = {"steps": (1, 10_000), "denoise": (0, 1), "width": (8, 16_384), "height": (8, 16_384)}
    for name, (least, most) in limits.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise BadUsage(f"--{name} {value} is not between {least} and {most}")
    for name in ("positive", "negative"):
        try:
            (getattr(args, name) or "").encode()
        except UnicodeEncodeError as error:
            raise BadUsage(f"--{name} is not text: {error.reason}") from error


def stage(screen: Screen) -> Callable[[dict[str, Any]], None]:
    def show(event: dict[str, Any]) -> None:
        name = say(f"stage-{event['stage']}", screen.lang)
        small = preview.told(event["picture"]) if "picture" in event else None
        screen.step(f"{name} {event['done']}/{event['of']}", event["stage"], small)

    return show


def proved(screen: Screen, result: Mapping[str, Any], files: Sequence[Path]) -> None:
    screen.lines(report.gate_lines(result, screen.verbose, screen.lang))
    screen.lines(report.verdict_lines(result, screen.lang))
    screen.picture(page.shown(files[0].parent, COLUMNS))
    good = result["verify"]["passed"] and result["render"]["finite"]
    screen.rows(report.proof_rows(result, files, screen.lang))
    screen.lines([("✓ " if good else "✗ ") + say("all-well" if good else "not-well", screen.lang)])


def run_json(
    facts: Facts,
    diagnosis: Diagnosis,
    fixed: Mapping[str, Any],
    result: Mapping[str, Any],
    files: Sequence[Path],
    lang: str,
) -> dict[str, Any]:
    """comfy-doctor.run/1."""
    return {
        "schema": page.SCHEMA,
        "target": report.target_json(facts.target),
        "findings": [report.finding_json(f, lang) for f in diagnosis.findings],
        "fix": dict(fixed),
        "verify": result.get("verify"),
        "render": result.get("render"),
        "bench": result.get("bench"),
        "files": [str(path) for path in files],
    }


def more_json(facts: Facts, diagnosis: Diagnosis, lang: str) -> dict[str, Any]:
    """What report.json holds besides: when, all facts, and the findings in every language."""
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "findings": [report.told_json(f, lang) for f in diagnosis.findings],
        "not_judged": [{"id": n.id, "why": n.why} for n in diagnosis.not_judged if not n.skipped],
        "facts": plain(facts),
    }
