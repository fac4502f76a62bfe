"""fix, setup, undo, history: plan, ask, treat, look again; and the way back."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from doctor import advise, allocators, journal, lock, report, treat, trial
from doctor.check import CHECKS, subject
from doctor.diagnose import diagnose
from doctor.facts import Facts, plain
from doctor.finding import Diagnosis, Finding
from doctor.fixes.torch import python_in
from doctor.lock import Locked
from doctor.options import BadUsage
from doctor.plan import Plan, Treatment, prescribe
from doctor.receipts import Journal, locked, open_home
from doctor.screen import Screen
from doctor.source import Source
from doctor.step import MakeVenv, Packages, Step
from doctor.verbs.patient import Args, home, look, opened, target, tell
from doctor.words import phrase, say

BIG = 500 << 20  # bytes of download that are named before anything else
BEFORE_A_START = treat.HEALTH | {"comfyui"}  # subjects whose errors a start would only repeat
ROUNDS = 5  # a cure can bring the next finding into view, but not without end


def fix(args: Args, screen: Screen) -> int:
    result = fixed(args, screen)
    screen.object(result | {"schema": "comfy-doctor.fix/1"})
    return 1 if result["left"] or result["rolled_back"] else 0


def fixed(args: Args, screen: Screen) -> dict[str, Any]:
    """Look, then treat or rebuild; what the answer of `fix` holds."""
    for id in args.ids:
        if id not in CHECKS:
            raise BadUsage(f"There is no finding {id}; `comfy-doctor list` names them all")
    facts, diagnosis = look(args, screen)
    if "flag-unneeded" in args.ids:
        facts = replace(facts, allocators=allocators.tried(facts.target))
        diagnosis = diagnose(facts)
    tell(facts, diagnosis, screen)
    with opened(args, facts.target) as book:
        if getattr(args, "from_lock", None):
            return rebuild(args, screen, book, facts, diagnosis)
        return cure(args, screen, book, facts, diagnosis)


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
        if shown and not {f.fix for f in chosen if f.fix} - {*refused, *failed}:
            break
        plan = planned(args, screen, book, chosen, facts, {*refused, *failed})
        shown += report.plan_json(plan)
        refused |= plan.refused
        if not plan.treatments or not agreed(args, screen, plan):
            break
        outcome = treat.carry_out(
            plan, book, diagnosis, lambda: look(args, screen), screen.progress
        )
        tell_failures(screen, outcome)
        done, failed = done + outcome, {**failed, **outcome.failed}
        facts, diagnosis = look(args, screen)
        write_lock(args, screen, book, facts, plan, outcome)
    if done.cured:
        screen.say("cured", ids=", ".join(done.cured), undo=advise.doctor(facts, "undo"))
    if rest := [line for f in diagnosis.findings if f.id in done.eased for line in f.because]:
        screen.say("eased", rest="; ".join(rest), undo=advise.doctor(facts, "undo"))
    return {
        "plan": shown,
        "receipts": list(done.receipts),
        "cured": list(done.cured),
        "left": [f.id for f in diagnosis.errors if not wanted or f.id in wanted],
        "rolled_back": failed,
        "refused": refused,
    }


def rebuild(
    args: Args, screen: Screen, book: Journal, facts: Facts, diagnosis: Diagnosis
) -> dict[str, Any]:
    """fix --from-lock: the same environment as elsewhere, by its hashes."""
    recover(screen, book)
    lacking = lock.missing(lock.read(Path(args.from_lock)), facts)
    steps = tuple(rebuilding(facts, lacking)) if lacking else ()
    plan = Plan((Treatment("from-lock", (), steps),) if steps else ())
    screen.progress(say("resolving", screen.lang))
    plan = treat.settle(plan, facts, book, settings(args), screen.attempt)
    screen.lines(report.planned(plan, screen.lang))
    outcome = treat.Outcome()
    if plan.treatments and agreed(args, screen, plan):
        outcome = treat.carry_out(
            plan, book, diagnosis, lambda: look(args, screen), screen.progress
        )
        tell_failures(screen, outcome)
        write_lock(args, screen, book, look(args, screen)[0], plan, outcome)
    return {
        "plan": report.plan_json(plan),
        "receipts": list(outcome.receipts),
        "cured": [],
        "left": [] if outcome.receipts or not lacking else [p.pin for p in lacking],
        "rolled_back": dict(outcome.failed),
        "refused": dict(plan.refused),
    }


def rebuilding(facts: Facts, lacking: Sequence[Locked]) -> Iterator[Step]:
    python = facts.target.python
    if python is None:
        place = Path(str(facts.target.comfyui), ".venv")
        python = str(python_in(place, facts.host.os))
        yield MakeVenv(str(place), facts.maker.executable)
    yield Packages(python, wants=tuple(one.pin for one in lacking), anew=True)


def write_lock(
    args: Args, screen: Screen, book: Journal, facts: Facts, plan: Plan, outcome: treat.Outcome
) -> None:
    """After a success: the environment as it is now, written down."""
    if not outcome.receipts or facts.target.python is None:
        return
    screen.progress(lock.NAME)
    steps = (step for treatment in plan.treatments for step in treatment.steps)
    wheels = (w for step in steps if isinstance(step, Packages) for w in step.wheels or ())
    lock.write(book.home, facts, wheels, args.offline)


def tell_failures(screen: Screen, outcome: treat.Outcome) -> None:
    for name, why in outcome.failed.items():
        screen.lines(
            ["! " + say("rolled-back", screen.lang, fix=name, why=phrase(why, screen.lang))]
        )


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
    plan = treat.settle(plan, facts, book, settings(args), screen.attempt)
    by_hand = [f.id for f in chosen if f.commands and f.id in getattr(args, "ids", ())]
    screen.lines(report.planned(plan, screen.lang, by_hand))
    size = treat.sizes(plan)
    if size >= BIG:
        screen.say("download", size=size >> 20)
    return plan


def settings(args: Args) -> treat.Settings:
    core = getattr(args, "source", None) or ""
    return treat.Settings(args.offline, getattr(args, "allow_unproven", False), core)


def agreed(args: Args, screen: Screen, plan: Plan) -> bool:
    if args.dry_run:
        screen.say("dry-run")
        return False
    return bool(args.yes) or screen.ask()


def recover(screen: Screen, book: Journal) -> None:
    for receipt in journal.recover(book, screen.progress):
        screen.say("recovered", fix=receipt.fix, when=receipt.when)
        screen.lines(report.lost_lines(receipt, screen.lang))


def undo(args: Args, screen: Screen) -> int:
    where = target(args)
    if args.dry_run:
        return would_undo(Journal(home(where)), args, screen)
    with locked(home(where)) as book:
        open_before = [r for r in book.history() if r.state == "open"]
        recover(screen, book)
        if open_before and args.receipt is None:
            receipt = open_before[-1]  # taking back the interrupted one is what was asked
        else:
            receipt = journal.undo(book, args.receipt, screen.progress)
            screen.say("undone", fix=receipt.fix, id=receipt.id)
    screen.object({"schema": "comfy-doctor.undo/1", "undone": receipt.id, "fix": receipt.fix})
    return 0


def would_undo(book: Journal, args: Args, screen: Screen) -> int:
    """undo --dry-run: what it would take back."""
    receipts = [r for r in book.history() if r.state in ("open", "done")]
    chosen = [r for r in receipts if r.id == args.receipt] if args.receipt else receipts[-1:]
    screen.lines(report.history_lines(chosen, screen.lang))
    screen.say("dry-run")
    found = chosen[0].id if chosen else None
    screen.object({"schema": "comfy-doctor.undo/1", "undone": None, "would_undo": found})
    return 0


def history(args: Args, screen: Screen) -> int:
    receipts = Journal(home(target(args))).history()
    screen.lines(report.history_lines(receipts, screen.lang))
    screen.object({"schema": "comfy-doctor.history/1", "receipts": [plain(r) for r in receipts]})
    return 0


def setup(args: Args, screen: Screen) -> int:
    """An empty folder becomes an installation, which is then started once."""
    if not args.folder.strip():  # a variable that is not set, in somebody's script
        raise BadUsage("setup wants the name of a folder: comfy-doctor setup ~/ComfyUI")
    folder = Path(args.folder).expanduser()
    if args.source:
        Source.parse(args.source)  # refuses what is none, before anything is looked at
        args.source = absolute(args.source)
    args.comfyui, args.ids = str(folder), []
    with there(folder, stays=not args.dry_run):
        result = fixed(args, screen)
    bad = bool(result["left"] or result["rolled_back"])
    if args.no_start or args.dry_run:
        result["start"] = {"tried": False, "error": "", "why": "as asked"}
    else:
        result["start"] = started(args, screen, result["left"])
    screen.object(result | {"schema": "comfy-doctor.fix/1"})
    return 1 if bad or result["start"]["error"] else 0


@contextmanager
def there(folder: Path, stays: bool) -> Iterator[None]:
    """A folder that is looked at as the empty one it will be; gone again after a dry run."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadUsage(
            f"{folder} cannot be made a folder ({error.strerror}); name a new or an empty one:"
            " comfy-doctor setup ~/ComfyUI"
        ) from error
    try:
        yield
    finally:
        for one in () if stays else made:
            one.rmdir()


def absolute(source: str) -> str:
    """A path that stays right wherever it is read."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def started(args: Args, screen: Screen, left: Sequence[str]) -> dict[str, Any]:
    """ComfyUI once, with everything imported and no server left behind; its log is kept."""
    if first := [id for id in left if subject(id) in BEFORE_A_START]:
        screen.say("start-not-tried", ids=", ".join(first))
        return {"tried": False, "error": "", "why": f"left: {', '.join(first)}"}
    facts = look(args, screen, 1)[0]
    screen.progress(say("start-once", screen.lang))
    one = trial.start(facts, heard=screen.progress)
    log = home(facts.target) / "launch.log"
    open_home(log.parent)
    log.write_text(one.said, encoding="utf-8")
    seconds = f"{one.seconds:.1f}"
    if one.error:
        screen.say("started-badly", error=one.error, command=f"comfy-doctor log {log}")
    else:
        screen.say("started-well", seconds=seconds, command=advise.doctor(facts, "launch"))
    for name, error in one.not_imported.items():
        screen.say("bisect-import", name=name, error=error or "?")
    return {"tried": True, "error": one.error, "seconds": round(one.seconds, 1), "log": str(log)}
