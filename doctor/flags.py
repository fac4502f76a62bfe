"""Launch flags kept for an installation, each with its reason. Pure; launch applies them.

They stand in `.comfy-doctor/flags.json`:

    {"flags": {"--reserve-vram": {"why": ID, "value": "1.0", "because": [], "when": ...}},
     "scripts": {"start-comfyui.sh": {"command": [PYTHON, "main.py"], "given": []}}}

A plain string in place of an object is the reason alone.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from doctor.facts import Facts, Flag, build, plain
from doctor.manifest import FlagCure, World

NAME = "flags.json"
ASKED = "asked"  # the reason of a flag that its owner asked for; never withdrawn


@dataclass(frozen=True)
class Script:
    """A start script that was written here, to be written again when a flag changes."""

    command: tuple[str, ...]  # the interpreter and its flags, then main.py
    given: tuple[str, ...] = ()  # what its owner wants behind that


@dataclass(frozen=True)
class Kept:
    flags: dict[str, Flag] = field(default_factory=dict)
    scripts: dict[str, Script] = field(default_factory=dict)  # path, as it was named


def read(text: str) -> Kept:
    """What flags.json says; nothing where it is damaged."""
    try:
        data = json.loads(text or "{}")
        flags = data.get("flags", {} if "scripts" in data else data)
        rows = {f: {"why": row} if isinstance(row, str) else row for f, row in flags.items()}
        return Kept(build(dict[str, Flag], rows), build(dict[str, Script], data.get("scripts", {})))
    except (ValueError, TypeError, AttributeError):
        return Kept()


def written(kept: Kept) -> str:
    return json.dumps(plain(kept), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def applied(flags: Mapping[str, Flag], given: Sequence[str], world: World) -> dict[str, Flag]:
    """The kept flags that go beside what the owner gives: his word is the stronger one, where he
    names the same flag, or one that main.py does not take together with it."""
    names = {word.partition("=")[0] for word in given if word.startswith("--")}
    barred = {f for row in world.exclusive for f in row.flags if names & set(row.flags)} | names
    return {flag: kept for flag, kept in sorted(flags.items()) if flag not in barred}


def words(flags: Mapping[str, Flag]) -> list[str]:
    """As main.py is given them."""
    return [word for flag, kept in flags.items() for word in (flag, kept.value) if word]


def next_cure(facts: Facts, finding: str) -> FlagCure | None:
    """The first flag against this finding that was not tried yet; None where none is left.

    What an experiment of the runner proved goes before what is only likely, and a flag that
    nothing but an experiment speaks for waits for it. Raises NotKnown where the facts about
    ComfyUI are.
    """
    there = facts.comfyui.flags if facts.comfyui is not None else {}
    proved = {one.cured_by for one in facts.proof.failed}
    left = [row for row in facts.world.flag_cures if row.finding == finding]
    left.sort(key=lambda row: not proved & set(row.experiments))
    fitting = (row for row in left if not is_kept(row, there))
    return next((row for row in fitting if row.faults or applies(row, proved)), None)


def applies(row: FlagCure, proved: Collection[str]) -> bool:
    return not row.experiments or bool(set(row.experiments) & set(proved))


def is_kept(row: FlagCure, flags: Mapping[str, Flag]) -> bool:
    return row.flag in flags and (row.any_value or flags[row.flag].value == row.value)


def tried_since(facts: Facts, finding: str, told_at: str) -> bool:
    """Was a flag against this finding kept after what tells of it was written? Then nobody knows
    yet whether it helps."""
    if facts.comfyui is None:
        return False
    ours = [kept for kept in facts.comfyui.flags.values() if kept.why == finding]
    return any(not kept.when or kept.when >= told_at for kept in ours)


def named_in(faults: Iterable[str], finding: str, world: World) -> Iterator[str]:
    """The lines of a log that speak of this finding."""
    texts = [text for row in world.flag_cures if row.finding == finding for text in row.faults]
    return (line for line in faults if any(re.search(text, line) for text in texts))


def circumstances(facts: Facts) -> dict[str, str]:
    """What a flag's reason depends on; another card, driver or torch may do without it."""
    return {
        "gpu": ", ".join(gpu.name for gpu in facts.gpus),
        "driver": ", ".join(sorted({gpu.driver for gpu in facts.gpus if gpu.driver})),
        "torch": facts.torch.version if facts.torch is not None else "",
    }


def changed(kept: Flag, facts: Facts) -> tuple[str, ...]:
    """How the circumstances differ from those that a flag was kept under."""
    now = circumstances(facts)
    return tuple(
        f"{name} was {was or 'absent'}, is {now[name] or 'absent'}"
        for name, was in kept.where.items()
        if name in now and now[name] != was
    )
