"""Journal: carries out a treatment, and remembers enough to carry it back.

What a kill cut short, the next run follows back by its receipt. One lock for each installation.
"""

import json
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from doctor import snapshot
from doctor.facts import Refusal, build
from doctor.plan import Treatment
from doctor.receipts import Journal, Receipt
from doctor.step import Packages, PutBack, Restore, Step, StepFailed

UNDOABLE = 5  # treatments that can be undone; older snapshots are removed
UNDO = "undo.json"  # the way back of one step, beside its copies
KINDS = {kind.__name__: kind for kind in get_args(Step)}
Progress = Callable[[str], None]


class Undoable(Refusal):
    """There is nothing to bring back, or it cannot be brought back; the sentence says why."""


def treat(journal: Journal, treatment: Treatment, progress: Progress) -> str:
    """Do the steps of a treatment; on any failure, the ones done are taken back at once.

    Returns the receipt's id; the caller verifies, and then calls `commit` or `take_back`. Raises
    StepFailed (taken back already), or whatever interrupted it (left for `recover`).
    """
    receipt = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(2)
    shown = [str(step) for step in treatment.steps]
    journal.write(
        "begin",
        receipt,
        fix=treatment.fix,
        cures=treatment.cures,
        steps=shown,
        home=str(journal.home.resolve()),
    )
    try:
        for number, step in enumerate(treatment.steps):
            do(journal, receipt, number, step, progress)
    except KeyboardInterrupt:
        take_back(journal, receipt, "it was interrupted", progress)
        raise
    except (StepFailed, OSError, snapshot.SnapshotDamaged) as error:
        raise StepFailed(f"{error}{taken_back(journal, receipt, str(error), progress)}") from error
    return receipt


def taken_back(journal: Journal, receipt: str, why: str, progress: Progress) -> str:
    """Take back, and what is to be said of that, for the end of a sentence: mostly nothing."""
    try:
        gone = take_back(journal, receipt, why, progress)
    except OSError as error:
        return f"; taking it back failed too ({error}), and is tried again by the next command"
    return f"; not brought back: {', '.join(gone[:3])}" if gone else ""


def do(journal: Journal, receipt: str, number: int, step: Step, progress: Progress) -> None:
    """The way back is on the disk twice, beside the copies and in the journal, before the step
    begins: the journal's last line can be lost with the power, and a full disk can cut it."""
    progress(str(step))
    kept = journal.kept(receipt, number)
    undo = step.inverse(kept, progress)
    snapshot.write_whole(kept / UNDO, pack(undo))
    snapshot.flush(kept)
    journal.write("step", receipt, number=number, step=pack(step), undo=pack(undo))
    step.do(progress)
    if isinstance(step, Packages):
        snapshot.settle(kept)


def commit(journal: Journal, receipt: str) -> None:
    journal.write("done", receipt)
    prune(journal)


def prune(journal: Journal) -> None:
    """The rule: what was taken back or undone needs no snapshot; of what was done, the last five
    can be undone, and the last one always can, whatever it holds."""
    receipts = journal.history()
    done = [receipt.id for receipt in receipts if receipt.state == "done"]
    gone = [receipt.id for receipt in receipts if receipt.state not in ("open", "done")]
    for receipt in (*gone, *done[:-UNDOABLE]):
        folder = journal.home / "kept" / receipt
        if folder.is_dir() and not any(folder.glob("*/taken-out")):  # what was moved is not ours
            shutil.rmtree(folder)


def take_back(journal: Journal, receipt: str, why: str, progress: Progress) -> tuple[str, ...]:
    """Roll an open treatment back; what stays lost of it, where its copies are damaged.

    An OSError (a disk that is full now) leaves it open, for the next try.
    """
    gone: list[str] = []
    for step in inverses(journal, receipt):
        progress(str(step))
        try:
            step.do(progress)
        except (StepFailed, snapshot.SnapshotDamaged) as error:
            gone += as_far_as_possible(step, str(error))
    more = {"lost": gone} if gone else {}
    journal.write("damaged" if gone else "rolled-back", receipt, why=why, **more)
    return tuple(gone)


def as_far_as_possible(step: Step, why: str) -> tuple[str, ...]:
    """What is whole comes back all the same: one that blocked for ever would help nobody."""
    try:
        return step.do_what_can_be_done() if isinstance(step, Restore) else (why,)
    except snapshot.SnapshotDamaged:
        return (why,)


def refuse_elsewhere(journal: Journal, receipt: Receipt) -> None:
    """A copied or renamed installation brought its journal along, whose steps name the old place:
    undoing them would change the original."""
    if receipt.home and receipt.home != str(journal.home.resolve()):
        old = Path(receipt.home).parent
        raise Undoable(
            f"{receipt.id} was done at {old}; this folder was copied or moved from there."
            f" Undo it there, or move the folder back."
        )


def needs_snapshot(journal: Journal, receipt: str) -> bool:
    return any(isinstance(step, Restore | PutBack) for step in inverses(journal, receipt))


def inverses(journal: Journal, receipt: str) -> list[Step]:
    """What undoes the steps of a treatment, the last step's first."""
    own = [e for e in journal.events() if e["receipt"] == receipt and e["event"] == "step"]
    packed = {event["number"]: event["undo"] for event in own}
    for copy in (journal.home / "kept" / receipt).glob(f"*/{UNDO}"):
        if copy.parent.name.isdecimal() and int(copy.parent.name) not in packed:
            packed[int(copy.parent.name)] = json.loads(copy.read_text(encoding="utf-8"))
    return [unpack(packed[number]) for number in sorted(packed, reverse=True)]


def recover(journal: Journal, progress: Progress) -> tuple[Receipt, ...]:
    """Roll back what a kill left open. Call with the lock held, before anything else."""
    left = [receipt for receipt in journal.history() if receipt.state == "open"]
    for receipt in reversed(left):
        try:
            refuse_elsewhere(journal, receipt)
        except Undoable as why:  # a copy of a folder in the middle of a treatment
            journal.write("damaged", receipt.id, why="it was interrupted", lost=[str(why)])
            continue
        take_back(journal, receipt.id, "it was interrupted", progress)
    names = {receipt.id for receipt in left}
    return tuple(receipt for receipt in journal.history() if receipt.id in names)


def undo(journal: Journal, receipt: str | None, progress: Progress) -> Receipt:
    """Bring back what a treatment changed, by default the last one; later ones must go first."""
    done = [r for r in journal.history() if r.state == "done"]
    if not done:
        raise Undoable("Nothing was changed that could be undone.")
    chosen = done[-1] if receipt is None else next((r for r in done if r.id == receipt), None)
    if chosen is None:
        raise Undoable(f"There is no treatment {receipt} to undo; `history` lists them.")
    if chosen is not done[-1]:
        raise Undoable(f"{done[-1].id} ({done[-1].fix}) came later: undo that one first.")
    refuse_elsewhere(journal, chosen)
    if not (journal.home / "kept" / chosen.id).is_dir() and needs_snapshot(journal, chosen.id):
        raise Undoable(
            f"{chosen.id} is too old: its snapshot was removed, only the last {UNDOABLE} are held."
        )
    try:
        for step in inverses(journal, chosen.id):
            progress(str(step))
            step.do(progress)
    except (StepFailed, OSError, snapshot.SnapshotDamaged) as error:
        raise Undoable(f"{chosen.id} could not be brought back whole: {error}") from error
    journal.write("undone", chosen.id)
    return chosen


def pack(step: Step) -> list[Any]:
    return [type(step).__name__, asdict(step)]


def unpack(packed: list[Any]) -> Step:
    kind, own = packed
    step: Step = build(KINDS[kind], own)
    return step
