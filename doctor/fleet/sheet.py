"""Sheet: a fleet as one HTML file, with the look of a run's page: both languages, no script."""

import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from doctor.fleet import told
from doctor.fleet.outliers import Outlier, device, kinds, speed_of
from doctor.fleet.places import ANSWERED, Outcome
from doctor.fleet.verdict import Fleet, Group, to_json
from doctor.page.markup import (
    both,
    code,
    folded,
    items,
    plainly,
    safe,
    said,
    section,
    table,
    tag,
    terms,
)
from doctor.page.patient import KINDS, finding, mark
from doctor.page.plot import dots
from doctor.page.proof import uri
from doctor.page.whole import framed
from doctor.words import LANGUAGES, say

STATES = {0: "passed", 1: "failed", 4: "not judged"}
CARRIED = 2 << 20  # bytes of JSON that a page carries along; a larger fleet keeps its --json
PLOTTED = 2000  # slots of one plot
VERSIONS = ("gpu", "driver", "torch", "comfyui")


def html(fleet: Fleet, lang: str) -> str:
    """The page of a fleet; `lang` is the language that is shown first."""
    parts = {
        "summary": summary(fleet),
        "findings": section("findings", findings(fleet.groups)),
        "standouts": section("standouts", items(map(standout, fleet.outliers))),
        "missing": section("missing", items(map(missing, fleet.outcomes))),
        "speeds": section("speeds", "".join(speeds(fleet.outcomes))),
        "slots": section("slots", slots(fleet)),
        "raw": section("raw", raw(fleet)),
    }
    state = say(f"html-{STATES.get(fleet.code, 'failed').replace(' ', '-')}", lang)
    opening = f'<p class="faint">{code(f"fleet {fleet.act}")} · {code(fleet.when)}</p>'
    return framed("html-fleet", state, opening, parts, lang)


def summary(fleet: Fleet) -> str:
    state = STATES.get(fleet.code, "failed")
    counts = told.counted(fleet)
    line = both("fleet-sum", all=len(fleet.outcomes), **counts)
    head = f'<p class="verdict {KINDS.get(state, "calm")}">{mark(state)} {line}</p>'
    rows = [(both("html-exit-code"), code(fleet.code))]
    rows += [(both("html-nodes"), code(len({o.slot.node.id for o in fleet.outcomes})))]
    return section("summary", head + terms(rows))


def findings(groups: Sequence[Group]) -> str:
    """Each finding once, with the slots that have it."""
    return "".join(finding(group.row, who(group.slots)) for group in groups)


def who(names: Sequence[str]) -> str:
    """Few as a line, many folded away."""
    line = ", ".join(map(code, names))
    if len(names) <= told.NAMED:
        return tag("p", f"{both('fleet-on')} {line}")
    return folded(both("html-on-many", count=len(names)), tag("p", line))


def standout(one: Outlier) -> str:
    return f"{mark('warning')} " + said({lang: told.unusual(one, lang) for lang in LANGUAGES})


def missing(outcome: Outcome) -> str:
    if outcome.state == ANSWERED and not outcome.why and outcome.code != told.UNJUDGED:
        return ""
    state = STATES[outcome.code or 0] if outcome.state == ANSWERED else "not judged"
    why = said({lang: told.verdict(outcome, lang)[1] for lang in LANGUAGES})
    return f"{mark(state)} {code(outcome.slot)}: {why}"


def speeds(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A plot for each kind of device, every slot a dot, with the median through them."""
    for (name, _), group in sorted(kinds(outcomes, speed_of).items(), key=str):
        rates = [float(one.answer["bench"]["steps_per_second"]) for one in group]
        drawn = dots(
            plainly("html-rates-of", name=name),
            rates[:PLOTTED],
            median(rates),
            plainly("html-slot-number"),
            plainly("html-rate-short"),
        )
        caption = both("html-rates-of", name=name)
        yield f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>"


def slots(fleet: Fleet) -> str:
    """One row for each slot, in the order of the plots."""
    timed = any(o.answer.get("bench") for o in fleet.outcomes)
    known = [name for name in VERSIONS if any(facts(o).get(name) for o in fleet.outcomes)]
    versions = [name for name in known if not (timed and name == "gpu")]  # it is the device then
    names = ["slot", "verdict", *versions, *(["device", "rate-short"] if timed else []), "seconds"]
    heads = [both(f"html-{name}") for name in names]
    rows = (row(outcome, versions, timed) for outcome in fleet.outcomes)
    key = "html-slots-all"
    count = len(fleet.outcomes)
    return table(both(key, count=count), heads, rows, plainly(key, count=count))


def row(outcome: Outcome, versions: Sequence[str], timed: bool) -> list[str]:
    known = outcome.state == ANSWERED and outcome.code in STATES
    state = mark(STATES[outcome.code or 0] if known else "not judged")
    why = "" if known else f" {both('html-state-' + outcome.state)}"
    own = facts(outcome)
    bench = outcome.answer.get("bench")
    speed = [code(device(bench["machine"])), f"{bench['steps_per_second']:.2f}"] if bench else []
    speed = (speed or ["–", "–"]) if timed else []
    cells = [code(own[name]) if own.get(name) else "–" for name in versions]
    return [code(outcome.slot), state + why, *cells, *speed, f"{outcome.seconds:.1f}"]


def facts(outcome: Outcome) -> Mapping[str, Any]:
    found: Mapping[str, Any] = outcome.answer.get("facts") or {}
    return found


def raw(fleet: Fleet) -> str:
    """All of it to take along, as long as that does not outweigh the page."""
    data = json.dumps(to_json(fleet), ensure_ascii=False).encode("utf-8", "backslashreplace")
    size = f"{len(data) / 1e6:.1f} MB" if len(data) > 1e6 else f"{len(data) / 1e3:.0f} kB"
    if len(data) > CARRIED:
        return tag("p", both("html-raw-too-large", size=size))
    link = f'<a download="fleet.json" href="{uri("application/json", data)}">fleet.json</a>'
    return tag("p", f"{link} ({safe(size)}): {both('html-fleet-raw-text')}")
