"""The verbs, each from the command line to an exit code. Exit codes: design, schema 1."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from doctor import fetch, handoff, journal, locate, options, report, treat
from doctor.check import CHECKS
from doctor.diagnose import diagnose, verdict
from doctor.examine import examine
from doctor.facts import Facts, Target, build, plain
from doctor.finding import Diagnosis, Finding
from doctor.journal import Busy, Journal, Undoable, locked
from doctor.manifest import world
from doctor.options import BadUsage
from doctor.plan import Plan, prescribe
from doctor.screen import Screen
from doctor.words import language, pages, say

Args = argparse.Namespace
BIG = 500 << 20  # bytes of download that are named before anything else
ROUNDS = 5  # a cure can bring the next finding into view, but not without end


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. Nothing but this catches what nobody expected."""
    words = list(sys.argv[1:] if argv is None else argv)
    screen = Screen(language(), "--json" in words, "--no-color" in words)
    try:
        args = options.parser().parse_args(words)
        if args.verb is None:
            options.parser().print_help()
            return 2
        screen.lang = args.lang or screen.lang
        return VERBS[args.verb](args, screen)
    except EXPECTED as error:
        return refuse(screen, error, 2)
    except handoff.HandoffFailed as error:
        return refuse(screen, error, error.code if error.code in (1, 2, 130) else 1)
    except KeyboardInterrupt:
        screen.complain("")
        screen.say("interrupted")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception:  # noqa: BLE001  (our bug: told, with where the details are)
        return bug(screen)
    finally:
        screen.close()


EXPECTED = (
    BadUsage,
    locate.BadTarget,
    Busy,
    Undoable,
    fetch.BadSource,
    fetch.NotObtained,
    fetch.Refused,
    OSError,
)


def refuse(screen: Screen, error: Exception, code: int) -> int:
    """One clear sentence; with --json, an object that says the same."""
    sentence = str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        sentence = f"{where}{error.strerror or error}."
    screen.complain(sentence)
    screen.object({"schema": "comfy-doctor.error/1", "error": sentence, "exit": code})
    return code


def bug(screen: Screen) -> int:
    folder = Path(tempfile.mkdtemp(prefix="comfy-doctor-bug-"))
    (folder / "report.txt").write_text(traceback.format_exc(), encoding="utf-8")
    screen.lines(traceback.format_exc().splitlines()[-1:])
    screen.say("bug", path=folder / "report.txt")
    return 3


# Looking


def patient(args: Args) -> Target:
    """The target of the common options; BadUsage where there is none."""
    folder = locate.folder(args.comfyui, Path.cwd())
    if args.comfyui is None and args.python is not None:
        folder = None  # --python alone is an interpreter patient
    if folder is None and args.python is None:
        raise BadUsage(NO_TARGET)
    return locate.target(folder, args.python)


NO_TARGET = (
    "No ComfyUI here. Name one with --comfyui DIR, an interpreter with --python PY,"
    " or make a new one: comfy-doctor setup DIR"
)


def look(args: Args, screen: Screen, level: int = 2) -> tuple[Facts, Diagnosis]:
    """Examine and diagnose with the options of the command line."""
    target = patient(args)
    facts = examine(target, level, lambda what: screen.progress(f"import {what}"))
    screen.ticker.clear()
    return facts, diagnose(facts)


def home(target: Target) -> Path:
    """The doctor's own folder for this installation: in it, or in the environment judged."""
    if target.comfyui:
        return Path(target.comfyui, ".comfy-doctor")
    return Path(str(target.python)).parent.parent / ".comfy-doctor"


def check(args: Args, screen: Screen) -> int:
    for id in (*args.only, *args.ignore):
        if id not in CHECKS:
            raise BadUsage(f"There is no check {id}; `comfy-doctor list` names them all")
    if args.facts:
        facts = load_facts(Path(args.facts))
    else:
        facts = examine(patient(args), args.level, lambda what: screen.progress(f"import {what}"))
    diagnosis = diagnose(facts, args.only, args.ignore)
    if args.save:
        saved = {"story": "", "facts": plain(facts), "findings": [f.id for f in diagnosis.findings]}
        Path(args.save).write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
    tell(facts, diagnosis, screen)
    screen.lines([report.conclusion(diagnosis, facts, screen.lang)])
    screen.object(report.check_json(diagnosis, facts, screen.lang))
    return verdict(diagnosis)


def load_facts(path: Path) -> Facts:
    """A file of `check --save`, or facts alone. BadUsage on anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        facts: Facts = build(Facts, data.get("facts", data))
    except (ValueError, TypeError, AttributeError) as error:
        raise BadUsage(f"{path} is no file of saved facts: {error}") from error
    return replace(facts, world=world())


def tell(facts: Facts, diagnosis: Diagnosis, screen: Screen) -> None:
    screen.rows(report.first_rows(facts, screen.lang))
    screen.lines(report.findings(diagnosis, facts, screen.lang))


# Acting


def fix(args: Args, screen: Screen) -> int:
    for id in args.ids:
        if id not in CHECKS:
            raise BadUsage(f"There is no finding {id}; `comfy-doctor list` names them all")
    facts, diagnosis = look(args, screen)
    tell(facts, diagnosis, screen)
    with locked(home(facts.target)) as book:
        result = cure(args, screen, book, facts, diagnosis)
    screen.object(result | {"schema": "comfy-doctor.fix/1"})
    return 1 if result["left"] or result["rolled_back"] else 0


def cure(
    args: Args, screen: Screen, book: Journal, facts: Facts, diagnosis: Diagnosis
) -> dict[str, Any]:
    """Plan, ask, treat, look again; until nothing is left or nothing changes."""
    recover(screen, book)
    wanted = set(getattr(args, "ids", ()))
    done, refused, failed = treat.Outcome(), dict[str, str](), dict[str, str]()
    shown: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        chosen = [f for f in diagnosis.findings if not wanted or f.id in wanted]
        plan = planned(args, screen, book, chosen, facts, {*refused, *failed})
        shown += report.plan_json(plan)
        refused |= plan.refused
        if not plan.treatments or not agreed(args, screen, plan):
            break
        outcome = treat.carry_out(
            plan, book, diagnosis, lambda: look(args, screen), screen.progress
        )
        tell_failures(screen, outcome)
        done, failed = done + outcome, failed | outcome.failed
        facts, diagnosis = look(args, screen)
    if done.cured:
        screen.say("cured", ids=", ".join(done.cured))
    return {
        "plan": shown,
        "receipts": list(done.receipts),
        "cured": list(done.cured),
        "left": [f.id for f in diagnosis.errors if not wanted or f.id in wanted],
        "rolled_back": failed,
        "refused": refused,
    }


def tell_failures(screen: Screen, outcome: treat.Outcome) -> None:
    for name, why in outcome.failed.items():
        screen.lines(["! " + say("rolled-back", screen.lang, fix=name, why=why)])


def planned(
    args: Args,
    screen: Screen,
    book: Journal,
    chosen: Sequence[Finding],
    facts: Facts,
    tried: Collection[str],
) -> Plan:
    """The plan for these findings, made exact and shown; what was tried before is left alone."""
    plan = prescribe([f for f in chosen if f.fix not in tried], facts)
    screen.progress(say("resolving", screen.lang))
    plan = treat.settle(plan, facts, book, settings(args), lambda line: screen.lines([line]))
    if plan.treatments or plan.refused or not tried:
        screen.lines(["", say("plan", screen.lang)])
        screen.lines(report.plan_lines(plan, screen.lang))
    size = treat.sizes(plan)
    if size >= BIG:
        screen.say("download", size=size >> 20)
    return plan


def settings(args: Args) -> treat.Settings:
    return treat.Settings(args.offline, getattr(args, "allow_unproven", False))


def agreed(args: Args, screen: Screen, plan: Plan) -> bool:
    if args.dry_run:
        screen.say("dry-run")
        return False
    if args.yes or screen.ask():
        return True
    screen.say("not-done")
    return False


def recover(screen: Screen, book: Journal) -> None:
    for receipt in journal.recover(book, screen.progress):
        screen.say("recovered", fix=receipt.fix, when=receipt.when)


def undo(args: Args, screen: Screen) -> int:
    target = patient(args)
    with locked(home(target)) as book:
        open_before = [r for r in book.history() if r.state == "open"]
        recover(screen, book)
        if open_before and args.receipt is None:
            receipt = open_before[-1]  # taking back the interrupted one is what was asked
        else:
            receipt = journal.undo(book, args.receipt, screen.progress)
            screen.say("undone", fix=receipt.fix, id=receipt.id)
    screen.object({"schema": "comfy-doctor.undo/1", "undone": receipt.id, "fix": receipt.fix})
    return 0


def history(args: Args, screen: Screen) -> int:
    receipts = Journal(home(patient(args))).history()
    screen.lines(report.history_lines(receipts, screen.lang))
    screen.object({"schema": "comfy-doctor.history/1", "receipts": [plain(r) for r in receipts]})
    return 0


def setup(args: Args, screen: Screen) -> int:
    folder = Path(args.folder).expanduser()
    if not folder.exists() and not args.dry_run:
        folder.mkdir(parents=True)
    args.comfyui, args.ids = str(folder), []
    return fix(args, screen)


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
        arrived = treat.obtain(
            args.source, book, facts.world, settings(args), lambda line: screen.lines([line])
        )
        plan = Plan((treat.node_treatment(facts, arrived, source.name, book),))
        plan = treat.settle(plan, facts, book, settings(args), lambda line: screen.lines([line]))
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


def launch(args: Args, screen: Screen) -> int:
    """main.py in the patient's interpreter with the kept flags; its exit code."""
    target = patient(args)
    folder = Path(str(target.comfyui))
    if target.comfyui is None or not locate.is_comfyui(folder):
        raise BadUsage("launch starts main.py, and there is none: --comfyui DIR")
    if target.python is None:
        raise BadUsage(f"{folder} has no interpreter; comfy-doctor setup makes one")
    from doctor.examine import notes

    kept = {flag: why for flag, why in notes(folder).items() if flag not in args.args}
    words = [target.python, *target.flags, str(folder / "main.py"), *kept, *args.args]
    screen.say("launching", command=" ".join(words))
    for flag, why in kept.items():
        screen.say("kept-flag", flag=flag, why=why)
    if args.dry_run:
        return 0
    return stream(words, folder)


def stream(words: Sequence[str], folder: Path) -> int:
    """Run it as the user would, its output passed through and kept in launch.log."""
    journal.open_home(folder / ".comfy-doctor")
    log = folder / ".comfy-doctor" / "launch.log"
    with log.open("wb") as kept:
        run = subprocess.Popen(
            list(words), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert run.stdout is not None
        try:
            while block := os.read(run.stdout.fileno(), 1 << 16):
                sys.stdout.buffer.write(block)
                sys.stdout.flush()
                kept.write(block)
                kept.flush()
            return run.wait()
        except KeyboardInterrupt:
            run.wait(30)  # the terminal sent the signal to ComfyUI too
            raise
        finally:
            if run.poll() is None:
                run.kill()
                run.wait()


# Proving


def run(args: Args, screen: Screen) -> int:
    """Check, treat, hand off, report."""
    args.ids = []
    facts, diagnosis = look(args, screen)
    tell(facts, diagnosis, screen)
    with locked(home(facts.target)) as book:
        fixed = cure(args, screen, book, facts, diagnosis)
    if args.dry_run:
        screen.object({"schema": "comfy-doctor.run/1", "fix": fixed})
        return 0
    facts, diagnosis = look(args, screen)
    blocking = [f for f in diagnosis.errors if f.id != "comfyui-missing"]
    if blocking or facts.target.python is None:
        screen.say("render-not-tried", ids=", ".join(f.id for f in blocking or diagnosis.errors))
        screen.object(run_json(facts, diagnosis, fixed, {}, [], screen.lang))
        return 1
    if diagnosis.errors:
        why = fixed["refused"].get("get-comfyui", "")
        screen.lines(["! " + say("source-warning", screen.lang, why=why)])
    return prove(args, screen, facts, diagnosis, fixed)


def prove(
    args: Args, screen: Screen, facts: Facts, diagnosis: Diagnosis, fixed: Mapping[str, Any]
) -> int:
    need = world().limits.render_memory
    if facts.host.memory_free < need:
        screen.say("memory-short", need=need >> 30, free=facts.host.memory_free >> 30)
        screen.object(run_json(facts, diagnosis, fixed, {}, [], screen.lang))
        return 4
    out = (
        Path(args.out) if args.out else home(facts.target) / "runs" / time.strftime("%Y%m%d-%H%M%S")
    )
    out.mkdir(parents=True, exist_ok=True)
    picture = out / "render.png"
    if args.checkpoint:
        screen.say("proof-coming-file", checkpoint=args.checkpoint, memory=need >> 30)
    else:
        screen.say("proof-coming", size=SIZE, memory=need >> 30, minutes=MINUTES)
    result = handoff.ask_runner(facts.target, recipe(args, picture), stage(screen))
    files = [picture, out / "report.json"]
    page = run_json(facts, diagnosis, fixed, result, files, screen.lang)
    files[1].write_text(json.dumps(page, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    proved(screen, result, files)
    screen.object(page)
    return 0 if result["verify"]["passed"] and result["render"]["finite"] else 1


SIZE, MINUTES = "64×64", 2


def recipe(args: Args, picture: Path) -> list[str]:
    """The runner's words for what the user asked; what was not asked is the runner's default."""
    words = ["prove", "--out", str(picture.resolve())]
    words += ["--checkpoint", args.checkpoint] if args.checkpoint else ["--synthetic", "sd15"]
    words += ["--image", args.image] if args.image else []
    for name in options.RECIPE:
        value = getattr(args, name.replace("-", "_"))
        words += [f"--{name}={value}"] if value is not None else []
    return words


def stage(screen: Screen) -> Callable[[dict[str, Any]], None]:
    def show(event: dict[str, Any]) -> None:
        screen.progress(f"{event.get('stage', '')} {event.get('done', '')}/{event.get('of', '')}")

    return show


def proved(screen: Screen, result: Mapping[str, Any], files: Sequence[Path]) -> None:
    screen.lines(report.verdict_lines(result, screen.lang))
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
        "schema": "comfy-doctor.run/1",
        "target": report.target_json(facts.target),
        "findings": [report.finding_json(f, lang) for f in diagnosis.findings],
        "fix": dict(fixed),
        "verify": result.get("verify"),
        "render": result.get("render"),
        "bench": result.get("bench"),
        "files": [str(path) for path in files],
    }


# Explaining


def explain(args: Args, screen: Screen) -> int:
    both = pages(screen.lang)
    if args.id not in both:
        raise BadUsage(f"There is no finding {args.id}; `comfy-doctor list` names them all")
    page = both[args.id]
    screen.lines([f"{args.id}: {page.title}", "", *filter(None, [page.meaning]), page.advice])
    screen.object({"schema": "comfy-doctor.explain/1", "id": args.id, **vars(page)})
    return 0


def list_all(args: Args, screen: Screen) -> int:
    both = pages(screen.lang)
    screen.rows((id, page.title) for id, page in both.items())
    found = [{"id": id, "title": page.title} for id, page in both.items()]
    screen.object({"schema": "comfy-doctor.list/1", "findings": found})
    return 0


VERBS: dict[str, Callable[[Args, Screen], int]] = {
    "check": check,
    "fix": fix,
    "undo": undo,
    "history": history,
    "setup": setup,
    "node": node,
    "launch": launch,
    "run": run,
    "explain": explain,
    "list": list_all,
}
