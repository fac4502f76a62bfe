"""Told: a fleet as lines for a person. Pure; in one language, the words in manifests/words.toml."""

from collections import Counter
from collections.abc import Iterator, Sequence

from doctor.fleet.outliers import Outlier
from doctor.fleet.places import ANSWERED, Outcome
from doctor.fleet.verdict import Fleet, Group
from doctor.words import phrase, say

NAMED = 6  # slots that one line names; the others are counted
MARKS = {"error": "✗", "warning": "!", "info": "·"}
UNJUDGED = 4  # the exit code
VERDICTS = {0: ("✓", "fleet-good"), 1: ("✗", "fleet-bad"), 4: ("?", "fleet-unjudged")}


def live(outcome: Outcome, lang: str) -> str:
    """One slot, as soon as it is known."""
    mark, told = verdict(outcome, lang)
    ids = [row["id"] for row in outcome.answer.get("findings", ()) if row["severity"] == "error"]
    rest = [told + (f": {', '.join(ids)}" if ids else "")]
    bench = outcome.answer.get("bench")
    rest += [say("fleet-rate", lang, rate=f"{bench['steps_per_second']:.2f}")] if bench else []
    return f"{mark} {outcome.slot}  {'  '.join(rest)}  ({outcome.seconds:.1f} s)"


def verdict(outcome: Outcome, lang: str) -> tuple[str, str]:
    """A mark and a word; why, where there is no judgement."""
    if outcome.state == ANSWERED and outcome.code in VERDICTS:
        mark, key = VERDICTS[outcome.code]
        why = outcome.why or (unseen(outcome) if outcome.code == UNJUDGED else "")
        return mark, say(key, lang) + (f": {phrase(why, lang)}" if why else "")
    return "?", ended(outcome.state, outcome.why, lang)


def unseen(outcome: Outcome) -> str:
    """Why something was not judged, as the first of the checks put it."""
    return next((str(row["why"]) for row in outcome.answer.get("not_judged", ())), "")


def ended(state: str, why: str, lang: str) -> str:
    """How a slot ended that gave no answer."""
    return say(f"fleet-{state}", lang, why=phrase(why, lang))


def lines(fleet: Fleet, lang: str) -> Iterator[str]:
    """The report: findings with who has them, who stands out, who was not judged, the sum."""
    for group in fleet.groups:
        yield from finding(group, lang)
    for outlier in fleet.outliers:
        yield "! " + unusual(outlier, lang)
    for outcome in fleet.outcomes:
        if outcome.state != ANSWERED or outcome.why or outcome.code == UNJUDGED:
            mark, why = verdict(outcome, lang)
            yield f"{mark} {outcome.slot}: {why}"
    yield conclusion(fleet, lang)


def finding(group: Group, lang: str) -> Iterator[str]:
    row = group.row
    title = row["told"][lang]["title"]
    yield f"{MARKS[row['severity']]} {title}  [{row['id']}]"
    yield f"    {say('fleet-on', lang)}  {named(group.slots, lang)}"
    yield f"    {say('do', lang)}  {row['told'][lang]['advice']}"


def unusual(one: Outlier, lang: str) -> str:
    blanks = {"slots": named(one.slots, lang), "name": one.name, "count": one.siblings}
    value, usual = (v[:16] if one.kind == "pixels" else v for v in (one.value, one.usual))
    return say(f"fleet-{one.kind}", lang, value=value, usual=usual, **blanks)


def named(slots: Sequence[str], lang: str) -> str:
    shown = ", ".join(slots[:NAMED])
    rest = len(slots) - NAMED
    return say("fleet-and-more", lang, shown=shown, count=rest) if rest > 0 else shown


def conclusion(fleet: Fleet, lang: str) -> str:
    counts = counted(fleet)
    mark = "✓" if counts["good"] == len(fleet.outcomes) else "✗" if counts["bad"] else "?"
    return f"{mark} " + say("fleet-sum", lang, all=len(fleet.outcomes), **counts)


def counted(fleet: Fleet) -> dict[str, int]:
    """good, bad, and unjudged: all others, whatever became of them."""
    found = Counter("good" if o.good else "bad" if o.bad else "unjudged" for o in fleet.outcomes)
    return {name: found[name] for name in ("good", "bad", "unjudged")}
