"""withdraw: a kept flag that a trial shows to be needless goes before ComfyUI is started with it.

Tried only where the card, its driver or torch is another than when the flag was kept: the trial
takes some seconds, and the same things fail in the same way.
"""

from collections.abc import Mapping
from dataclasses import replace

from doctor import allocators, flags, journal
from doctor.checks.launch import unneeded
from doctor.examine import examine
from doctor.facts import Flag, Refusal, Target, Unknown
from doctor.plan import Treatment
from doctor.receipts import locked
from doctor.screen import Screen
from doctor.step import KeepFlags
from doctor.verbs.patient import command, home
from doctor.words import say, sentence

TRIED = "cuda-malloc-unsupported"  # the finding whose flag a trial can acquit


def withdrawn(patient: Target, kept: Mapping[str, Flag], screen: Screen) -> dict[str, Flag]:
    """The flags that stay; those that go are told, and `undo` brings them back."""
    mine = [flag for flag, row in kept.items() if row.why == TRIED and row.where]
    if not mine:
        return dict(kept)
    facts = examine(patient, 1)
    if not any(flags.changed(kept[flag], facts) for flag in mine):
        return dict(kept)
    screen.progress(say("trying", screen.lang, what=", ".join(allocators.BACKENDS)))
    facts = replace(facts, allocators=allocators.tried(patient))
    screen.ticker.clear()
    gone = {flag: why for flag, why in unneeded(facts).items() if flag in mine}
    if not gone or isinstance(facts.allocators, Unknown):  # only what was tried goes here
        return dict(kept)
    step = KeepFlags(str(home(patient)), drop=tuple(gone))
    try:
        with locked(home(patient)) as book:
            treatment = Treatment("withdraw-flags", ("flag-unneeded",), (step,))
            journal.commit(book, journal.treat(book, treatment, screen.progress))
    except (Refusal, OSError) as error:
        screen.lines(["! " + say("not-withdrawn", screen.lang, why=sentence(error, screen.lang))])
        return dict(kept)
    for flag, why in gone.items():
        undo = command(patient, "undo")
        screen.say("withdrawn", flag=flag, why=why, undo=undo)
    return {flag: row for flag, row in kept.items() if flag not in gone}
