"""Journal: carries out a treatment, and remembers enough to carry it back.

What a kill cut short, the next run follows back by its receipt. One lock for each installation.
"""

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
        take_back(journal, receipt, str(error), progress)
        raise StepFailed(str(error)) from error
    return receipt


def do(journal: Journal, receipt: str, number: int, step: Step, progress: Progress) -> None:
    progress(str(step))
    kept = journal.kept(receipt, number)
    undo = step.inverse(kept, progress)
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
    gone = [receipt.id for receipt in receipts if receipt.state in ("rolled-back", "undone")]
    for receipt in (*gone, *done[:-UNDOABLE]):
        folder = journal.home / "kept" / receipt
        if folder.is_dir() and not any(folder.glob("*/taken-out")):  # what was moved is not ours
            shutil.rmtree(folder)


def take_back(journal: Journal, receipt: str, why: str, progress: Progress) -> None:
    """Roll an open treatment back."""
    for step in inverses(journal, receipt):
        progress(str(step))
        step.do(progress)
    journal.write("rolled-back", receipt, why=why)


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
    return [unpack(event["undo"]) for event in reversed(own)]


def recover(journal: Journal, progress: Progress) -> tuple[Receipt, ...]:
    """Roll back what a kill left open. Call with the lock held, before anything else."""
    left = [receipt for receipt in journal.history() if receipt.state == "open"]
    for receipt in reversed(left):
        refuse_elsewhere(journal, receipt)
        take_back(journal, receipt.id, "it was interrupted", progress)
    return tuple(left)


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
