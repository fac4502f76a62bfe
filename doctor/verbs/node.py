"""node install, node update: packs fetched over any route, looked over, and brought in whole."""

import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from doctor import advise, fetch, intact, lfs, nodes, packs, registry, report, treat
from doctor.facts import Facts, Refusal
from doctor.finding import Diagnosis
from doctor.mirrors import Unreachable
from doctor.nodes import Coming, Errands, Want
from doctor.options import BadUsage
from doctor.packs import Pack
from doctor.plan import Plan
from doctor.receipts import Journal
from doctor.screen import Screen
from doctor.source import REPOSITORY
from doctor.step import Packages
from doctor.verbs.patient import Args, look, opened
from doctor.verbs.treatment import agreed, recover, settings, tell_failures, write_lock
from doctor.words import phrase, reasoned, refused, say, sentence

AT_ONCE = 4  # packs that are fetched side by side
SCRIPT_LIMIT = 1800  # seconds for an install.py
A = TypeVar("A")
B = TypeVar("B")


@dataclass
class Visit:
    """One run of the command: who is treated, and what could not be done, by pack."""

    args: Args
    screen: Screen
    facts: Facts
    diagnosis: Diagnosis
    failed: dict[str, str] = field(default_factory=dict)
    level: int = 1
    staging: Path = Path()  # where packs arrive; on a dry run, not in the patient

    @property
    def comfyui(self) -> str:
        assert self.facts.comfyui is not None
        return self.facts.comfyui.path

    def look(self) -> tuple[Facts, Diagnosis]:
        return look(self.args, self.screen, self.level)

    def errands(self) -> Errands:
        lock = threading.Lock()

        def tell(line: str) -> None:
            with lock:
                self.screen.attempt(line)

        return Errands(self.facts, os.environ, settings(self.args), tell, self.staging)


def visited(args: Args, screen: Screen) -> Visit:
    facts, diagnosis = look(args, screen, 1)
    if facts.comfyui is None or not facts.comfyui.present:
        raise refused(BadUsage, "node-needs-comfyui")
    return Visit(args, screen, facts, diagnosis)


def install(args: Args, screen: Screen) -> int:
    """node install: several at once; each whole or not at all."""
    if args.name and (len(args.sources) > 1 or not packs.ID.fullmatch(args.name)):
        raise refused(BadUsage, "node-name-of-one")
    wants = [nodes.want(word, args.name or "") for word in dict.fromkeys(args.sources)]
    visit = visited(args, screen)
    with opened(args, visit.facts.target) as book:
        recover(screen, book)
        sweep(visit, book)
        there = {want: early(visit, want) for want in wants}
        visit.failed |= {want.word: why for want, why in there.items() if why}
        if all(there.values()):
            raise refused(BadUsage, "node-all-there", whys="; ".join(there.values()))
        return told(visit, brought(visit, book, [want for want, why in there.items() if not why]))


def early(visit: Visit, want: Want) -> str:
    """Is the place of a pack taken, as far as its name is known before it is fetched."""
    name = want.name or want.id or (want.source.name if want.source else "")
    note = packs.Note(name, "unknown", id=want.id)
    return nodes.taken(visit.comfyui, note, visit.screen.lang)


def sweep(visit: Visit, book: Journal) -> None:
    """What a kill left half fetched. Only ours, and only while nobody else is at work."""
    home = book.home if visit.args.dry_run else packs.beside(visit.comfyui)
    visit.staging = home / "staging"
    shutil.rmtree(visit.staging, ignore_errors=True)


def update(args: Args, screen: Screen) -> int:
    """node update: to the newest commit of its branch, or the newest version."""
    visit = visited(args, screen)
    with opened(args, visit.facts.target) as book:
        recover(screen, book)
        sweep(visit, book)
        chosen = [pack for pack in which(visit, args.packs) if pack.state == "enabled"]
        if not args.packs:
            chosen = [pack for pack in chosen if not pinned(visit, pack)]
        found = at_once(chosen, lambda pack: newer(visit, pack))
        wants: list[Want] = []
        for pack, want in zip(chosen, found, strict=True):
            if isinstance(want, Exception):
                visit.failed[pack.name] = sentence(want, screen.lang)
            elif want is None:
                screen.say("node-current", name=pack.name)
            else:
                wants.append(want)
        return told(visit, brought(visit, book, wants))


def which(visit: Visit, words: Sequence[str]) -> list[Pack]:
    """The packs that the words name; all, where none is named."""
    there = packs.installed(visit.comfyui)
    if not words:
        return [pack for pack in there if pack.kind != "file"]
    chosen = {word: packs.chosen(there, word) for word in words}
    for word, found in chosen.items():
        if not found:
            names = ", ".join(pack.name for pack in there) or "-"
            raise refused(BadUsage, "node-no-such", name=word, names=names)
    return list(dict.fromkeys(pack for found in chosen.values() for pack in found))


def pinned(visit: Visit, pack: Pack) -> bool:
    """Does it stand on a tag or a commit that somebody chose. Said; moved only when it is named."""
    fixed = pack.kind == "git" and not pack.ref
    if fixed:
        visit.screen.say("node-pinned", name=pack.name, commit=pack.commit[:12])
    return fixed


def newer(visit: Visit, pack: Pack) -> Want | None:
    """What an update would fetch; None where the pack is at its newest. Raises Refusal."""
    if pack.kind == "registry":
        release = registry.release(pack.id, "", os.environ, offline=visit.args.offline)
        want = Want(pack.name, pack.id, release.version, replaces=pack)
        return unedited(visit, pack, want) if release.version != pack.version else None
    if not pack.url:
        raise refused(BadUsage, "node-no-source", name=pack.name)
    ref = f"@{pack.ref}" if pack.ref else ""
    source = fetch.Source.parse(f"{pack.url}{ref}")
    if source.kind != REPOSITORY:
        raise refused(BadUsage, "node-was-archive", name=pack.name)
    commit = fetch.newest(
        source,
        visit.staging,
        visit.facts.world,
        environ=os.environ,
        offline=visit.args.offline,
        say=visit.errands().say,
    )
    want = Want(pack.name, source=source, replaces=pack)
    return unedited(visit, pack, want) if commit != pack.commit else None


def unedited(visit: Visit, pack: Pack, want: Want) -> Want:
    """Somebody's own edits are never replaced unasked."""
    found = intact.verify(pack, packs.notes(visit.comfyui).get(pack.name), os.environ)
    changed = (*found.edited, *found.missing)
    if changed and not visit.args.discard_edits:
        files = ", ".join(changed[:5])
        raise refused(BadUsage, "node-has-edits", name=pack.name, files=files)
    return want


@dataclass(frozen=True)
class Brought:
    """What came of some wants: packs that were fetched, those that went live, and how."""

    coming: tuple[Coming, ...] = ()
    live: tuple[Coming, ...] = ()
    plan: Plan = field(default_factory=Plan)
    outcome: treat.Outcome = field(default_factory=treat.Outcome)


def brought(visit: Visit, book: Journal, wants: Sequence[Want]) -> Brought:
    """Fetch, look over, plan all together, ask, do; then say what came of it."""
    errands, screen = visit.errands(), visit.screen
    coming: list[Coming] = []
    for want, found in zip(wants, at_once(wants, errands.bring), strict=True):
        if isinstance(found, Exception):
            visit.failed[want.word] = sentence(found, screen.lang)
        else:
            coming.append(found)
    coming = [one for one in coming if admitted(visit, one)]
    plan, outcome = planned(visit, book, coming)
    for one in coming:
        fetch.remove(one.path)  # whatever did not go live
    gone_in = [one for one in coming if outcome.receipts and one.note.name not in visit.failed]
    visit.failed |= dict(outcome.failed)
    tell_failures(screen, outcome)
    for name, why in visit.failed.items():
        if name not in outcome.failed:
            screen.lines(
                [f"✗ {why}" if why.startswith(name) else "✗ " + reasoned(name, why, screen.lang)]
            )
    for one in gone_in:
        tell_arrival(visit, one)
    if gone_in:
        screen.say("node-done", undo=advise.doctor(visit.facts, "undo"))
    return Brought(tuple(coming), tuple(gone_in), plan, outcome)


def told(visit: Visit, done: Brought) -> int:
    visit.screen.object(answer(visit, done))
    undone = done.coming and not done.live and not visit.args.dry_run
    return 1 if visit.failed or undone else 0


def admitted(visit: Visit, one: Coming) -> bool:
    """May it go live: nothing malicious is known of it, and its place is free. Tells suspicions."""
    lines = (line for f in one.findings for line in report.one(f, visit.facts, visit.screen.lang))
    visit.screen.lines(lines)
    why = "" if one.want.replaces else nodes.taken(visit.comfyui, one.note, visit.screen.lang)
    if one.blocked and not visit.args.allow_malware:
        why = next("; ".join(f.because) for f in one.findings if f.id == "node-known-malware")
    if why:
        visit.failed[one.want.word] = why
        fetch.remove(one.path)
    elif not (one.path / "__init__.py").exists():
        visit.screen.say("node-no-init", name=one.note.name)
    return not why


def planned(visit: Visit, book: Journal, coming: Sequence[Coming]) -> tuple[Plan, treat.Outcome]:
    screen, extra = visit.screen, {}
    for one in coming:
        if one.want.replaces:
            note = packs.notes(visit.comfyui).get(one.note.name)
            extra[one.note.name] = intact.verify(one.want.replaces, note, os.environ).extra
    screen.progress(say("resolving", screen.lang))
    plan, refused = nodes.settled(
        visit.facts, coming, extra, book, settings(visit.args), screen.attempt
    )
    visit.failed |= refused
    if not plan.treatments:
        return Plan(), treat.Outcome()
    screen.lines(report.planned(plan, screen.lang))
    if not agreed(visit.args, screen, plan):
        return plan, treat.Outcome()
    moves = any(isinstance(step, Packages) for t in plan.treatments for step in t.steps)
    if moves:
        visit.level = 2  # packages move: whether torch still loads is looked at before and after
        visit.facts, visit.diagnosis = visit.look()
    outcome = treat.carry_out(plan, book, visit.diagnosis, visit.look, screen.progress)
    if moves:
        write_lock(visit.args, screen, book, visit.look()[0], plan, outcome)
    return plan, outcome


def tell_arrival(visit: Visit, one: Coming) -> None:
    screen, note = visit.screen, one.note
    path = packs.custom_nodes(visit.comfyui) / note.name
    proof = "" if note.proven else say("unproven", screen.lang, why=phrase(note.why, screen.lang))
    what = note.commit[:12] or note.version or "-"
    screen.say("node-in", name=note.name, path=path, commit=what, route=note.route, proof=proof)
    if left := lfs.pointers(path):
        names = ", ".join(one.name for one in left[:5])
        screen.say("node-lfs", name=note.name, count=len(left), names=names)
    if (path / "install.py").exists():
        if visit.args.run_install_scripts:
            run_script(visit, path)
        else:
            command = f"{visit.facts.target.python} install.py"
            screen.say("node-script", name=note.name, path=path / "install.py", command=command)


def run_script(visit: Visit, folder: Path) -> None:
    """install.py, as Manager runs it: in its folder, by the patient's interpreter."""
    target = visit.facts.target
    words = [str(target.python), *target.flags, "install.py"]
    visit.screen.say("node-script-runs", path=folder / "install.py")
    visit.screen.lines(shown(folder / "install.py"))
    if not (visit.args.yes or visit.screen.ask()):
        visit.screen.say("not-done")
        return
    try:
        run = subprocess.run(words, cwd=folder, capture_output=True, timeout=SCRIPT_LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        visit.failed[folder.name] = f"install.py: {error}"
        return
    visit.screen.lines(run.stdout.decode(errors="replace").splitlines()[-20:])
    if run.returncode:
        last = run.stderr.decode(errors="replace").strip().splitlines()[-1:]
        visit.failed[folder.name] = f"install.py ended with {run.returncode}: {' '.join(last)}"


def shown(script: Path, most: int = 60) -> list[str]:
    """What is about to run, before anybody agrees to it."""
    lines = script.read_text("utf-8", errors="replace").splitlines()
    more = [f"    │ … {len(lines) - most} more lines"] if len(lines) > most else []
    return [*(f"    │ {line}" for line in lines[:most]), *more]


def at_once(asked: Sequence[A], work: Callable[[A], B]) -> list[B | Exception]:
    """What the work makes of each, a few at a time, in order. Ctrl-C need not wait for any."""
    found: dict[int, B | Exception] = {}
    numbers, ended = iter(range(len(asked))), queue.Queue[None]()

    def go() -> None:
        for number in iter(lambda: next(numbers, -1), -1):
            try:
                found[number] = work(asked[number])
            except Exception as error:  # noqa: BLE001  (handed to the caller, below)
                found[number] = error
            ended.put(None)

    for _ in range(min(AT_ONCE, len(asked))):
        threading.Thread(target=go, daemon=True).start()
    for _ in asked:
        ended.get()
    for one in found.values():
        if isinstance(one, Exception) and not isinstance(one, (Refusal, Unreachable, OSError)):
            raise one  # our bug
    return [found[number] for number in range(len(asked))]


def answer(visit: Visit, done: Brought) -> dict[str, Any]:
    """comfy-doctor.node/1, of an installation."""
    rows = [pack_json(visit, one, one in done.live) for one in done.coming]
    alone = rows[0] if len(rows) == 1 else {}
    return {
        "schema": "comfy-doctor.node/1",
        **alone,
        "packs": rows,
        "plan": report.plan_json(done.plan),
        "receipts": list(done.outcome.receipts),
        "failed": visit.failed,
    }


def pack_json(visit: Visit, one: Coming, installed: bool) -> dict[str, Any]:
    path = packs.custom_nodes(visit.comfyui) / one.note.name
    return {
        "name": one.note.name,
        "path": str(path),
        "id": one.note.id,
        "version": one.note.version,
        "commit": one.note.commit,
        "route": one.note.route,
        "proven": one.note.proven,
        "why": one.note.why,
        "installed": installed,
        "pointers": [p.name for p in lfs.pointers(path)] if installed else [],
        "findings": [report.finding_json(f, visit.screen.lang) for f in one.findings],
        "install_script": (path / "install.py").exists(),
    }
