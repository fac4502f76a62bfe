"""Report: nouns as lines of text and as JSON. Pure: it yields lines, and the screen prints them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement

from doctor import advise
from doctor.check import subject
from doctor.diagnose import verdict
from doctor.facts import Facts, Gpu, NotKnown, Target, Torch, Unknown
from doctor.finding import Diagnosis, Finding, Severity
from doctor.receipts import Receipt
from doctor.words import LANGUAGES, Page, phrase, reasoned, say, told

if TYPE_CHECKING:  # a plan brings installers along, and looking must not wait for them
    from doctor.plan import Plan

NAMED = 4  # more checks than this with one reason are counted and not named
MARKS = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.INFO: "·"}


def first_rows(facts: Facts, lang: str) -> Iterator[tuple[str, str]]:
    """(label, value): which patient and why, then always the four: Python, torch, CUDA, numpy."""
    target = facts.target
    if target.comfyui:
        yield say("installation", lang), target.comfyui
    yield (
        say("interpreter", lang),
        bracketed(target.python or say("none", lang), phrase(target.why, lang), lang),
    )
    yield say("python", lang), known(lambda: python_row(facts), lang)
    yield say("torch", lang), known(lambda: torch_row(facts.torch, lang), lang)
    yield say("cuda", lang), known(lambda: cuda_row(facts, lang), lang)
    yield say("numpy", lang), known(lambda: numpy_row(facts, lang), lang)


def known(row: Any, lang: str) -> str:
    """A row, or why nobody could find it out."""
    try:
        return str(row())
    except NotKnown as why:
        return bracketed("?", phrase(str(why), lang), lang)


def python_row(facts: Facts) -> str:
    python = facts.python
    return f"{python.version} {python.implementation} {python.bits} bit, {facts.target.layout}"


def torch_row(torch: Torch | None, lang: str) -> str:
    if torch is None:
        return say("not-installed", lang)
    return f"{torch.version}, {say('build', lang, build=torch.build)}"


def cuda_row(facts: Facts, lang: str) -> str:
    cards = ", ".join(card_row(gpu, lang) for gpu in facts.gpus) or say("no-card", lang)
    torch = None if isinstance(facts.torch, Unknown) else facts.torch
    return f"{torch.build}; {cards}" if torch and torch.build.startswith("cu") else cards


def card_row(gpu: Gpu, lang: str) -> str:
    driver = gpu.driver or say("no-driver", lang)
    return bracketed(gpu.name, ", ".join(filter(None, (driver, gpu.capability))), lang)


def numpy_row(facts: Facts, lang: str) -> str:
    if "numpy" not in facts.packages:
        return say("not-installed", lang)
    needs = ", ".join(need_numpy_1(facts)) or say("nothing", lang)
    return say("numpy-needs", lang, version=facts.packages["numpy"].version, needs=needs)


def need_numpy_1(facts: Facts) -> Iterator[str]:
    """Distributions whose metadata keeps numpy below 2, whatever it says besides."""
    for name, package in sorted(facts.packages.items()):
        for text in package.requires:
            try:
                wish = Requirement(text)
            except InvalidRequirement:
                continue
            if wish.name.lower() == "numpy" and not wish.specifier.contains("2.4.0"):
                if wish.marker and "extra" in str(wish.marker):
                    continue
                if not wish.specifier.contains("2.0.0") and wish.specifier.contains("1.26.4"):
                    yield name


def findings(diagnosis: Diagnosis, facts: Facts, lang: str) -> Iterator[str]:
    """Worst first. Silence is health, so what passed is only counted."""
    for finding in diagnosis.findings:
        yield from one(finding, facts, lang)
    for finding in diagnosis.ignored:
        yield "  " + labelled(finding.id, say("ignored", lang), lang)
    yield from unjudged(diagnosis, lang)
    loud = {f.id for f in (*diagnosis.findings, *diagnosis.ignored)}
    loud |= {n.id for n in diagnosis.not_judged}
    asked = set(diagnosis.asked)
    yield say("quiet", lang, quiet=len(asked - loud), all=len(asked))
    yield from skipped(diagnosis, lang)


def skipped(diagnosis: Diagnosis, lang: str) -> Iterator[str]:
    """How much was not looked at because nobody asked, and what asks for it."""
    ids = [missing.id for missing in diagnosis.not_judged if missing.skipped]
    online = sum(subject(id) == "network" for id in ids)
    if len(ids) > online:
        yield say("skipped", lang, count=len(ids) - online)
    if online:
        yield say("skipped-online", lang, count=online)


def one(finding: Finding, facts: Facts, lang: str) -> Iterator[str]:
    page = told(finding, lang)
    yield f"{MARKS[finding.severity]} {page.title}  [{finding.id}]"
    yield from (f"    {say('because', lang)}  {phrase(fact, lang)}" for fact in finding.because)
    yield f"    {say('do', lang)}  {page.advice}"
    yield from (f"        {command}" for command in finding.commands)
    by_itself = advise.doctor(facts, "fix", finding.id)
    if finding.fix and by_itself not in finding.commands:
        yield f"    {say('or-run', lang)}  {by_itself}"


def page_lines(id: str, page: Page, lang: str) -> Iterator[str]:
    """The whole page of a finding."""
    yield labelled(id, page.short or page.title, lang)
    yield from filter(None, ["", page.meaning])
    if page.shows:
        yield from ("", say("page-shows", lang), *(f"    {line}" for line in page.shows))
    yield from ("", say("page-cure", lang), f"    {page.advice}")
    for layout, cure in page.cures:
        yield "    " + labelled(say("layout-" + layout, lang), cure, lang)
    if page.avoid:
        yield from ("", say("page-avoid", lang), f"    {page.avoid}")


def unjudged(diagnosis: Diagnosis, lang: str) -> Iterator[str]:
    """One line for each reason, with the checks it silenced."""
    reasons: dict[str, list[str]] = {}
    for missing in diagnosis.not_judged:
        if not missing.skipped:
            reasons.setdefault(missing.why, []).append(missing.id)
    for why, ids in reasons.items():
        named = ", ".join(ids) if len(ids) <= NAMED else say("checks", lang, count=len(ids))
        yield "? " + say("not-judged", lang, ids=named, why=phrase(why, lang))


def conclusion(diagnosis: Diagnosis, facts: Facts, lang: str) -> str:
    """The last line: healthy, or the one next command."""
    if not diagnosis.errors:
        return say("unsure" if verdict(diagnosis) else "healthy", lang)
    if any(f.fix for f in diagnosis.errors):
        command = advise.doctor(facts, "fix")
        return say("sick", lang, count=len(diagnosis.errors), command=command)
    return say("sick-by-hand", lang, count=len(diagnosis.errors))


def planned(plan: "Plan", lang: str, by_hand: Sequence[str] = ()) -> Iterator[str]:
    """The plan under its title, a line apart from what stands above; an empty one for findings
    that were asked for and have no fix says so."""
    yield from ("", say("plan", lang))
    if by_hand and not plan.treatments and not plan.refused:
        yield say("plan-by-hand", lang, ids=", ".join(by_hand))
    else:
        yield from plan_lines(plan, lang)


def tried_lines(rows: Sequence[Mapping[str, Any]], lang: str) -> Iterator[str]:
    """What level 3 and 4 tried: {"name", "verdict", "seconds", "why"}."""
    for row in rows:
        mark = {"passed": "✓", "failed": "✗", "not judged": "?"}[row["verdict"]]
        told = f"{say('level-' + row['name'], lang)} {row['seconds']:.1f} s"
        yield f"{mark} " + reasoned(told, row["why"], lang)


def plan_lines(plan: "Plan", lang: str) -> Iterator[str]:
    """What would be done, fix by fix."""
    for treatment in plan.treatments:
        cures = say("plan-cures", lang, ids=", ".join(treatment.cures)) if treatment.cures else ""
        yield f"{treatment.fix}  {cures}".rstrip()
        for step in treatment.steps:
            parts = str(step).split("; ")
            yield from (f"    {phrase(part, lang, 'steps')}" for part in parts)
            if left_out := getattr(step, "left_out", ()):
                yield say("left-out", lang, names=", ".join(left_out))
    for fix, why in plan.refused.items():
        yield "! " + say("refused", lang, fix=fix, why=phrase(why, lang))
    if not plan.treatments and not plan.refused:
        yield say("plan-empty", lang)


def history_lines(receipts: Sequence[Receipt], lang: str) -> Iterator[str]:
    if not receipts:
        yield say("history-empty", lang)
    for receipt in receipts:
        cost = f"{receipt.seconds:.0f} s, {receipt.kept / 1e6:.0f} MB"
        told = f"{receipt.id}  {receipt.when}  {receipt.state:<11} {receipt.fix} ({cost})"
        yield reasoned(told, receipt.why, lang)
        yield from (f"    {phrase(step, lang, 'steps')}" for step in receipt.steps)
        yield from lost_lines(receipt, lang)


def lost_lines(receipt: Receipt, lang: str, shown: int = 8) -> Iterator[str]:
    """What a roll-back could not bring back, because its copies are damaged."""
    if receipt.lost:
        yield "✗ " + say("stays-lost", lang, count=len(receipt.lost))
        yield from (f"    {path}" for path in receipt.lost[:shown])


def verdict_lines(result: Mapping[str, Any], lang: str) -> Iterator[str]:
    """The gates of a verified render: the failed ones, then how many passed."""
    gates = result["verify"]["gates"]
    for gate in gates:
        if gate["verdict"] == "failed":
            blanks = {key: gate.get(key, "") for key in ("name", "figure", "bound", "why")}
            yield "✗ " + say("gate-failed", lang, **blanks)
    passed = sum(gate["verdict"] == "passed" for gate in gates)
    skipped = sum(gate["verdict"] == "not judged" for gate in gates)
    rest = say("verified-rest", lang, count=skipped) if skipped else ""
    yield say("verified", lang, passed=passed, all=len(gates), rest=rest)


def proof_rows(
    result: Mapping[str, Any], files: Sequence[object], lang: str
) -> Iterator[tuple[str, str]]:
    """The picture with its hash, how fast it was made, and where the report lies."""
    render, bench = result["render"], result["bench"]
    picture, page = files
    yield say("picture", lang), str(picture)
    yield "", f"sha256 {render['sha256']['output']}"
    fit = render.get("measures", {}).get("positive")
    if fit:
        blanks = {"before": f"{fit['input']:.2f}", "after": f"{fit['output']:.2f}"}
        yield "", say("picture-fits", lang, prompt=render["recipe"]["positive"], **blanks)
    yield from (("", phrase(note, lang)) for note in render["notes"])
    settings = bench["settings"]
    yield (
        say("speed", lang),
        say(
            "speed-line",
            lang,
            speed=f"{bench['steps_per_second']:.2f}",
            size=f"{settings['size']}×{settings['size']}",
            sampler=settings["sampler_name"],
            dtype=settings["dtype"],
            runs=len(bench["seconds"]),
            spread=f"{100 * bench['spread'] / bench['median']:.1f}",
        ),
    )
    for doubt in bench["doubts"]:
        yield "", phrase(doubt, lang)
    yield say("page-at", lang), str(page)


def gate_lines(result: Mapping[str, Any], everything: bool, lang: str) -> Iterator[str]:
    """The gates with figure and bound; the samplers that passed together, unless all are wanted,
    and those that could not be judged for one reason together, too."""
    gates = result["verify"]["gates"]
    good = [g for g in gates if g["name"].startswith("sampler ") and g["verdict"] == "passed"]
    together = [] if everything or len(good) < 2 else good
    reasons: dict[str, list[str]] = {}
    for gate in gates:
        if gate["verdict"] == "not judged":
            reasons.setdefault(gate["why"], []).append(gate["name"])
        elif gate not in together:
            yield gate_line(gate, lang)
        elif gate is together[0]:
            worst = max(together, key=lambda g: float(g["figure"]))
            name = say("gate-samplers", lang, count=len(together), name=worst["name"][8:])
            yield gate_line({**worst, "name": name}, lang)
    for why, names in reasons.items():
        yield "? " + labelled(", ".join(names), phrase(why, lang), lang)


def gate_line(gate: Mapping[str, Any], lang: str) -> str:
    mark = "✓" if gate["verdict"] == "passed" else "✗"
    if gate["figure"] is None:
        return f"{mark} " + labelled(gate["name"], phrase(gate["why"], lang), lang)
    sign = "≤" if gate["verdict"] == "passed" else say("gate-over", lang)
    figures = f"{short(gate['figure'])} {sign} {short(gate['bound'])}"
    return f"{mark} " + labelled(gate["name"], figures, lang)


def labelled(label: str, text: str, lang: str) -> str:
    return say("labelled", lang, label=label, text=text)


def bracketed(told: str, why: str, lang: str) -> str:
    return say("bracketed", lang, told=told, why=why)


def short(figure: float | str) -> str:
    """Two digits of a number; "inf" and the like as they are."""
    return figure if isinstance(figure, str) else f"{figure:.2g}"


def finding_json(finding: Finding, lang: str) -> dict[str, Any]:
    page = told(finding, lang)
    return {
        "id": finding.id,
        "severity": finding.severity.word,
        "title": page.title,
        "because": [phrase(fact, lang) for fact in finding.because],
        "advice": page.advice,
        "commands": list(finding.commands),
        "fix": finding.fix or None,
    }


def told_json(finding: Finding, lang: str) -> dict[str, Any]:
    """The same with its words in every language, and its evidence as it was written."""
    pages = {other: told(finding, other) for other in LANGUAGES}
    words = {other: {"title": p.title, "advice": p.advice} for other, p in pages.items()}
    return finding_json(finding, lang) | {"because": list(finding.because), "told": words}


def target_json(target: Target) -> dict[str, Any]:
    return {"comfyui": target.comfyui, "python": target.python, "why": target.why}


def check_json(diagnosis: Diagnosis, facts: Facts, lang: str) -> dict[str, Any]:
    """comfy-doctor.check/1."""
    return {
        "schema": "comfy-doctor.check/1",
        "target": target_json(facts.target),
        "findings": [finding_json(f, lang) for f in diagnosis.findings],
        "ignored": [finding_json(f, lang) for f in diagnosis.ignored],
        "not_judged": [
            {"id": n.id, "why": n.why, "skipped": n.skipped} for n in diagnosis.not_judged
        ],
        "healthy": not diagnosis.errors,
    }


def plan_json(plan: "Plan") -> list[dict[str, Any]]:
    steps = (
        {"fix": t.fix, "cures": list(t.cures), "steps": [str(step) for step in t.steps]}
        for t in plan.treatments
    )
    refused = ({"fix": fix, "refused": why, "steps": []} for fix, why in plan.refused.items())
    return [*steps, *refused]
