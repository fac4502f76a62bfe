"""Symptoms: the text of a log as findings, by the signatures in manifests/symptoms."""

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from doctor import logfile, traceback
from doctor.finding import Finding, Severity
from doctor.logfile import Line
from doctor.signatures import Book, Hint, Signature
from doctor.traceback import Trace

MOST = 200  # matches of one signature that are kept; a log repeats itself
TRIES = 50_000  # lines one pattern is tried on, so that a hostile log costs bounded time
NEAR = 400  # lines within which one signature may exclude another
QUIET = 12  # lines within which a warning may: what is said at start explains no error far below
BESIDE = 80  # lines within which a hint about the situation counts


@dataclass
class Match:
    """A signature that spoke on a line."""

    line: Line
    captures: Mapping[str, str]
    trace: Trace | None = None


@dataclass
class Reading:
    """What was seen of a log; bounded, however long the log is."""

    matches: dict[int, list[Match]] = field(default_factory=dict)  # number of signature ->
    counts: dict[int, int] = field(default_factory=dict)
    hints: dict[str, list[str]] = field(default_factory=dict)  # name -> what it caught, distinct
    beside: dict[str, list[int]] = field(default_factory=dict)  # name -> where, in order, sparsely
    strange: list[tuple[Line, Trace | None]] = field(default_factory=list)  # errors of any kind
    traces: list[Trace] = field(default_factory=list)  # the last one is still open
    lines: int = 0

    def trace_at(self, number: int) -> Trace | None:
        trace = self.traces[-1] if self.traces else None
        return trace if trace is not None and trace.covers(number) else None


STRANGE = re.compile(
    r"^(?:\S{0,60}\.)?[A-Z]\w{0,60}(?:Error|Exception|Interrupt|Exit)\b(?::|$)"
    r"|^(?:fatal|error|ERROR|FATAL|CRITICAL)\b ?:"
)
FRAMES = ('file "', ".py:", "traceback (most", "stack trace")
STRANGERS = ("error", "exception", "fatal", "interrupt", "critical", "exit")


def scan(stream: BinaryIO, signatures: Book) -> Reading:
    """Read a log to its end, in a stream."""
    seen, tries = Reading(), dict[re.Pattern[str], int]()
    literals = {*signatures.searches, *signatures.quiet, *FRAMES, *STRANGERS}
    sieve = logfile.Sieve(literals, FRAMES)
    for block in logfile.blocks(stream):
        for line, held in sieve.lines(block, seen.lines + 1):
            if any(p.search(line.text) for one in held for p in signatures.quiet.get(one, ())):
                continue
            if not line.joined:
                follow(seen, line)
            attempt(seen, line, signatures, held, tries)
        seen.lines += block.count(b"\n") + (not block.endswith(b"\n"))
    return seen


def follow(seen: Reading, line: Line) -> None:
    """Keep up with tracebacks, and with errors whatever they say."""
    if line.contained:
        seen.hints.setdefault("container", [""])
    if traceback.starts(line.text):
        seen.traces.append(Trace(line.number, line.number, whole=True))
        adopt(seen)
    for path, function in traceback.frames(line.text):
        if not seen.traces or line.number - seen.traces[-1].end > traceback.NEAR:
            seen.traces.append(Trace(line.number, line.number))
            adopt(seen)
        seen.traces[-1].add(line.number, path, function)
    del seen.traces[:-50]
    if STRANGE.search(line.text) and len(seen.strange) < MOST:
        seen.strange.append((line, seen.trace_at(line.number)))


def adopt(seen: Reading) -> None:
    """ComfyUI prints the message first and the traceback after it."""
    new = seen.traces[-1]
    for many in seen.matches.values():
        last = many[-1] if many else None
        if last is None or not new.covers(last.line.number):
            continue
        if last.trace is None or traceback.heads(last.line.text):
            last.trace = new


def attempt(
    seen: Reading,
    line: Line,
    signatures: Book,
    held: Sequence[str],
    tries: dict[re.Pattern[str], int],
) -> None:
    """Try what the literals that the line holds call for, each once."""
    searches = (search for one in held for search in signatures.searches.get(one, ()))
    for pattern, owner in dict.fromkeys(searches):
        if tries.get(pattern, 0) > TRIES:
            continue
        found = pattern.search(line.text)
        tries[pattern] = tries.get(pattern, 0) + 1
        if found is None:
            continue
        if owner[0] == "h":
            take(seen, line, signatures.hints[int(owner[1:])], found)
            continue
        many = seen.matches.setdefault(int(owner[1:]), [])
        if many and many[-1].line.number == line.number:
            continue
        seen.counts[int(owner[1:])] = seen.counts.get(int(owner[1:]), 0) + 1
        if len(many) < MOST:
            captures = {k: v for k, v in found.groupdict().items() if v}
            many.append(Match(line, captures, seen.trace_at(line.number)))


def take(seen: Reading, line: Line, hint: Hint, found: re.Match[str]) -> None:
    caught = seen.hints.setdefault(hint.name, [])
    text = next((group for group in found.groups() if group), "")
    if len(caught) < MOST and text not in caught:
        caught.append(text)
    lines = seen.beside.setdefault(hint.name, []) if hint.beside else [line.number]
    if not lines or line.number - lines[-1] > BESIDE // 4:
        lines.append(line.number)


def modules(seen: Reading) -> list[str]:
    """The modules that could not be imported."""
    many = (match for matches in seen.matches.values() for match in matches)
    return [match.captures["module"] for match in many if "module" in match.captures]


@dataclass(frozen=True)
class Symptom:
    """A finding in a log: what it rests on, and how sure that is."""

    finding: Finding
    line: int
    text: str
    confidence: float
    times: int
    decide: tuple[str, ...]  # facts that would tell it from its neighbours, and are not known
    rest: bool = False  # no rule knows the words: read from whose code failed, or which program


@dataclass(frozen=True)
class Judgement:
    symptoms: tuple[Symptom, ...]  # what blocks the start first
    not_known: tuple[Line, ...]  # errors that no signature knows
    hints: Mapping[str, str]
    lines: int


Said = tuple[Signature, Match, int]  # who spoke, where, and how often


def judge(seen: Reading, signatures: Book, hints: Mapping[str, str]) -> Judgement:
    """Findings of what was seen, in the light of the hints of the log or of facts."""
    spoken = dict(speaking(seen, signatures, hints))
    said: dict[str, list[Said]] = {}
    others = [(signatures.signatures[n], lines) for n, (lines, _) in spoken.items()]
    for index, (_, held) in spoken.items():
        signature = signatures.signatures[index]
        for match in held:
            if not outdone(signature, match.line.number, others, signatures):
                times = seen.counts[index] if match is held[0] else 0
                said.setdefault(signature.id, []).append((signature, match, times))
    if spoken and not said:  # each left it to another, in a ring: to the earliest cause, as of two
        first = min(spoken, key=lambda n: signatures.rank[signatures.signatures[n].id])
        signature, held = signatures.signatures[first], spoken[first][1]
        said[signature.id] = [(signature, held[0], seen.counts[first])]
    symptoms = [told(id, many, signatures, hints) for id, many in said.items()]
    symptoms.sort(key=lambda symptom: order(symptom, signatures))
    known = [match for _, held in spoken.values() for match in held]
    return Judgement(tuple(symptoms), tuple(unknown(seen, known)), hints, seen.lines)


def order(symptom: Symptom, signatures: Book) -> tuple[int, bool, int, int]:
    """Worst first; a warning that is mostly an error after those that never are; by cause."""
    id, severity = symptom.finding.id, symptom.finding.severity
    milder = Severity.INFO < severity < signatures.severity[id]
    return -severity, milder, signatures.rank[id], symptom.line


def speaking(
    seen: Reading, signatures: Book, hints: Collection[str]
) -> Iterator[tuple[int, tuple[Sequence[int], Sequence[Match]]]]:
    """Each signature whose conditions hold somewhere: its number, and the lines, in order."""
    for index, many in seen.matches.items():
        held = [m for m in many if holds(signatures.signatures[index], m, here(seen, m, hints))]
        if held:
            yield index, ([match.line.number for match in held], held)


def here(seen: Reading, match: Match, hints: Collection[str]) -> Collection[str]:
    """The hints that count on a line: of those about a situation, what stands near."""
    line = match.line.number
    return {n for n in hints if n not in seen.beside or near(line, seen.beside[n], BESIDE)}


def holds(signature: Signature, match: Match, hints: Collection[str]) -> bool:
    last = match.trace.last if match.trace is not None else "none"
    paths = match.trace.paths if match.trace is not None else []
    return (
        (not signature.last or last in signature.last)
        and (not signature.when or any(name in hints for name in signature.when))
        and (not signature.also or any(name in hints for name in signature.also))
        and not any(name in hints for name in signature.unless)
        and (not signature.through or any(re.search(signature.through, path) for path in paths))
        and not (signature.never and any(re.search(signature.never, path) for path in paths))
        and (not signature.first or first_is(signature.first, match.trace))
        and (not signature.deepest or bool(re.search(signature.deepest, "".join(paths[-1:]))))
        and signature.own in ("", "yes" if own(match) else "no")
    )


def own(match: Match) -> bool:
    """Is the module that was not found a part of the pack that asked for it?"""
    pack = match.captures.get("pack") or (match.trace.pack if match.trace is not None else "")
    module = match.captures.get("module", "")
    return bool(pack) and module.startswith(f"{pack}.")


def first_is(pattern: str, trace: Trace | None) -> bool:
    return trace is not None and trace.whole and bool(re.search(pattern, "".join(trace.paths[:1])))


def outdone(
    signature: Signature,
    line: int,
    others: Sequence[tuple[Signature, Sequence[int]]],
    signatures: Book,
) -> bool:
    """Does a better explanation stand near? Where each of two yields, the earlier cause stays."""
    for other, lines in others:
        if other.id == signature.id or not yields(signature, other, signatures):
            continue
        mutual = yields(other, signature, signatures)
        if mutual and signatures.rank[signature.id] < signatures.rank[other.id]:
            continue
        grave = severity(other, signatures) >= Severity.ERROR
        if near(line, lines, NEAR if grave else QUIET):
            return True
    return False


def yields(signature: Signature, other: Signature, signatures: Book) -> bool:
    """Does it leave the line to the other? "*": to anybody. Where one of the two is a reading of
    last resort the surer one stays; to all others noise explains nothing."""
    if signature.rest:
        return other.confidence > signature.confidence
    if severity(other, signatures) <= Severity.INFO:
        return False
    if other.rest:
        return other.confidence > signature.confidence
    return "*" in signature.yields_to or other.id in signature.yields_to


def severity(signature: Signature, signatures: Book) -> Severity:
    mild = signature.severity
    return Severity[mild.upper()] if mild else signatures.severity[signature.id]


def near(line: int, lines: Sequence[int], most: int = NEAR) -> bool:
    at = bisect_left(lines, line - most)
    return at < len(lines) and lines[at] <= line + most


def told(
    id: str,
    said: Sequence[Said],
    signatures: Book,
    hints: Mapping[str, str],
) -> Symptom:
    """One finding for all the lines that say the same; it rests on the surest, then the first."""
    signature, match, _ = min(said, key=rests_on)
    values = dict(match.captures)
    if match.trace is not None and match.trace.pack:
        values.setdefault("pack", match.trace.pack)
    finding = Finding(
        severity(signature, signatures),
        because=tuple(evidence(match, hints)),
        values=values,
        id=id,
    )
    return Symptom(
        finding,
        match.line.number,
        without_addresses(match.line.text)[:300],
        signature.confidence,
        max(1, sum(count for _, _, count in said)),
        tuple(fact for fact in signature.decide if fact not in hints),
        signature.rest,
    )


def rests_on(one: Said) -> tuple[float, bool, int]:
    """The surest, then what says more than that there is a traceback, then the first."""
    signature, match, _ = one
    return -signature.confidence, traceback.starts(match.line.text), match.line.number


def evidence(match: Match, hints: Mapping[str, str]) -> Iterator[str]:
    yield without_addresses(match.line.text.strip())[:240]
    if match.trace is not None and match.trace.last == "node":
        yield f"custom_nodes/{match.trace.pack}"
    for name in ("gpu", "torch", "capability", "python"):
        if name in hints:
            yield f"{name}: {hints[name]}"


ADDRESS = re.compile(r"(?:https?|ftp|git|ssh)://[^\s'\"<>)\]]{1,2000}")


def without_addresses(text: str) -> str:
    """An address in a log may be anybody's: it is never repeated."""
    return ADDRESS.sub("<address>", text)


def unknown(seen: Reading, known: Sequence[Match]) -> Iterator[Line]:
    """Errors that stand in no traceback, and on no line, that a signature spoke of."""
    known_lines, known_traces = set[int](), set[int]()
    for match in known:
        known_lines.update(range(match.line.number - 3, match.line.number + 4))
        if match.trace is not None:
            known_traces.add(id(match.trace))
    told = set[str]()
    for line, trace in seen.strange:
        kind = re.sub(r"\d+", "0", line.text)
        if line.number in known_lines or id(trace) in known_traces or kind in told:
            continue
        told.add(kind)
        yield line


def nearest(text: str, candidates: Mapping[str, str], most: int = 3) -> list[str]:
    """Ids whose words are most like these: rare words count more."""
    words = {id: stems(text) for id, text in candidates.items()}
    ours = stems(text)
    often: dict[str, int] = {}
    for many in words.values():
        for word in many:
            often[word] = often.get(word, 0) + 1
    scores = {id: sum(1 / often[word] for word in many & ours) for id, many in words.items()}
    best = sorted(scores, key=lambda id: -scores[id])[:most]
    return [id for id in best if scores[id] > 0.2]


def stems(text: str) -> set[str]:
    """Beginnings of words, so that certificate and certificates are one."""
    return {word[:8] for word in re.findall(r"[a-z_]{4,}", text.lower())}
