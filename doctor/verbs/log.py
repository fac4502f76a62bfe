"""log: what a log of ComfyUI, pip, uv, git or docker says is wrong, what blocks the start first."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from doctor import hints, report, signatures, symptoms
from doctor.facts import Facts
from doctor.finding import Severity
from doctor.logfile import Line
from doctor.manifest import world
from doctor.screen import Screen
from doctor.symptoms import Judgement, Symptom
from doctor.verbs.patient import Args, examined, saved
from doctor.words import pages, say, told


def log(args: Args, screen: Screen) -> int:
    """Read, judge, tell. 0: no error in it; 1: errors; 4: errors that nothing here knows."""
    if args.file == "-":
        judgement = judged(sys.stdin.buffer, args, screen)
    else:
        with Path(args.file).open("rb") as file:
            judgement = judged(file, args, screen)
    screen.lines(text(judgement, screen.lang))
    screen.object(as_json(judgement, screen.lang))
    return code(judgement)


def judged(stream: BinaryIO, args: Args, screen: Screen) -> Judgement:
    book = signatures.book()
    seen = symptoms.scan(stream, book)
    here = hints.of_log(seen.hints, symptoms.modules(seen), world())
    facts = patient(args, screen)
    if facts is not None:
        here = hints.together(here, hints.of_facts(facts), world())
    return symptoms.judge(seen, book, here)


def patient(args: Args, screen: Screen) -> Facts | None:
    """The facts that go with the log: saved ones, or those of an installation that is named."""
    if args.facts:
        return saved(Path(args.facts))
    if args.comfyui or args.python:
        return examined(args, screen, 2)
    return None


def code(judgement: Judgement) -> int:
    if any(s.finding.severity is Severity.ERROR for s in judgement.symptoms):
        return 1
    loud = any(s.finding.severity is Severity.WARNING for s in judgement.symptoms)
    return 4 if judgement.not_known and not loud else 0


def text(judgement: Judgement, lang: str) -> Iterator[str]:
    """What blocks the start first, what is harmless in a line each, what is not known last."""
    for symptom in judgement.symptoms:
        if symptom.finding.severity is not Severity.INFO:
            yield from one(symptom, lang)
    for symptom in judgement.symptoms:
        if symptom.finding.severity is Severity.INFO:
            yield head(symptom, lang)
    for line, ids in unknown(judgement):
        told = symptoms.without_addresses(line.text)[:200]
        yield "? " + say("log-not-known", lang, line=line.number, text=told)
        yield f"    {say('log-nearest', lang, ids=', '.join(ids) or '-')}"
    if code(judgement) == 0:
        nothing = not judgement.symptoms and not judgement.not_known
        yield say("log-nothing" if nothing else "log-no-error", lang, lines=judgement.lines)


def head(symptom: Symptom, lang: str) -> str:
    mark = report.MARKS[symptom.finding.severity]
    title = told(symptom.finding, lang).title
    return f"{mark} {title}  [{symptom.finding.id}, {where(symptom, lang)}]"


def where(symptom: Symptom, lang: str) -> str:
    times = say("log-times", lang, times=symptom.times) if symptom.times > 1 else ""
    return say("log-line", lang, line=symptom.line) + times


def one(symptom: Symptom, lang: str) -> Iterator[str]:
    page = told(symptom.finding, lang)
    yield head(symptom, lang)
    yield from (f"    {say('because', lang)}  {fact}" for fact in symptom.finding.because)
    yield f"    {say('do', lang)}  {page.advice}"
    if symptom.rest:
        yield f"    {say('log-rest', lang)}"
    if symptom.decide:
        yield f"    {say('log-decide', lang, facts=deciding(symptom, lang))}"


def deciding(symptom: Symptom, lang: str) -> str:
    return "; ".join(say(f"decides-{fact}", lang) for fact in symptom.decide)


def unknown(judgement: Judgement) -> Iterator[tuple[Line, list[str]]]:
    """Where other findings explain the log, what is left over is told and does not count."""
    known: Mapping[str, str] = {
        id: " ".join((id.replace("-", " "), page.title, page.meaning, *page.shows))
        for id, page in pages("en").items()
    }
    for line in judgement.not_known[:5]:
        yield line, symptoms.nearest(line.text, known)


def as_json(judgement: Judgement, lang: str) -> dict[str, Any]:
    """comfy-doctor.log/1."""
    return {
        "schema": "comfy-doctor.log/1",
        "findings": [
            report.finding_json(s.finding, lang)
            | {
                "line": s.line,
                "text": s.text,
                "confidence": s.confidence,
                "times": s.times,
                "last_resort": s.rest,
                "would_decide": [say(f"decides-{fact}", lang) for fact in s.decide],
            }
            for s in judgement.symptoms
        ],
        "not_known": [
            {
                "line": line.number,
                "text": symptoms.without_addresses(line.text)[:300],
                "nearest": ids,
            }
            for line, ids in unknown(judgement)
        ],
        "lines": judgement.lines,
        "healthy": code(judgement) == 0,
    }
