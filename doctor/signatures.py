"""Signatures: what faults print, as data. manifests/symptoms, read once.

A signature says what a fault prints, whose code must stand last in the traceback, what else the
log must and must not show, and what excludes it. It knows nothing of how the log was written.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from doctor import logfile
from doctor.finding import Severity
from doctor.manifest import Row, read, rows
from manifests import FOLDER

INDENTED = re.compile(r"^\^")  # where a line starts, whatever it is indented by
LISTED = re.compile(r"@(\w+)@")  # any word of a list


@dataclass(frozen=True, kw_only=True)
class Signature(Row):
    """What one fault prints. Any of the patterns will do; all of the conditions must hold."""

    id: str
    patterns: tuple[str, ...]
    examples: tuple[str, ...] = ()  # error strings as programs print them; each must be judged id
    last: tuple[str, ...] = ()  # whose frame must be the last of an application
    through: str = ""  # a regular expression that some "path#function" of it must match
    never: str = ""  # one that no "path#function" of it may match
    first: str = ""  # one that its first "path#function" must match
    deepest: str = ""  # one that its last "path#function" must match
    own: str = ""  # "yes", "no": must the module that is not found be the pack's own?
    when: tuple[str, ...] = ()  # hints of which one must be there
    also: tuple[str, ...] = ()  # hints of which one must be there, besides
    unless: tuple[str, ...] = ()  # hints of which none may be there
    yields_to: tuple[str, ...] = ()  # ids that explain the same lines better
    rest: bool = False  # read only where nothing surer speaks: from whose code fails, and how
    severity: str = ""  # where this form is milder than the id
    confidence: float = 0.9
    decide: tuple[str, ...] = ()  # facts that would decide, where they are not known


@dataclass(frozen=True, kw_only=True)
class Hint(Row):
    """What a line says about the machine or the situation, without being a fault."""

    name: str
    patterns: tuple[str, ...]
    beside: bool = False  # it is about the situation: what stands far away is another one


@dataclass(frozen=True, kw_only=True)
class Aside(Row):
    """What a line says that itself says that it does not matter: no signature is tried on it."""

    patterns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Words(Row):
    """Names that patterns mean by @name@: the list is written once."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Stage(Row):
    """What a fault keeps from working; the stages, and the ids in them, in order of cause."""

    name: str
    severity: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Book:
    """manifests/symptoms, read once."""

    signatures: tuple[Signature, ...]
    hints: tuple[Hint, ...]
    stages: tuple[Stage, ...]
    asides: tuple[Aside, ...] = ()

    @cached_property
    def rank(self) -> Mapping[str, int]:
        ids = (id for stage in self.stages for id in stage.ids)
        return {id: place for place, id in enumerate(ids)}

    @cached_property
    def severity(self) -> Mapping[str, Severity]:
        return {id: Severity[s.severity.upper()] for s in self.stages for id in s.ids}

    @cached_property
    def quiet(self) -> Mapping[str, Sequence[re.Pattern[str]]]:
        """literal -> what makes a line that holds it unimportant."""
        found: dict[str, list[re.Pattern[str]]] = {}
        for pattern in (pattern for one in self.asides for pattern in one.patterns):
            made = re.compile(INDENTED.sub(r"^\\s{0,12}", pattern), re.IGNORECASE)
            for literal in logfile.literals(pattern):
                found.setdefault(literal, []).append(made)
        return found

    @cached_property
    def searches(self) -> Mapping[str, Sequence[tuple[re.Pattern[str], str]]]:
        """literal -> (pattern, signature number or hint) to try on lines that hold it."""
        found: dict[str, list[tuple[re.Pattern[str], str]]] = {}
        owners = [(f"s{n}", one.patterns) for n, one in enumerate(self.signatures)]
        owners += [(f"h{n}", one.patterns) for n, one in enumerate(self.hints)]
        for owner, patterns in owners:
            for pattern in patterns:
                made = re.compile(INDENTED.sub(r"^\\s{0,12}", pattern), re.IGNORECASE)
                for literal in logfile.literals(pattern):
                    found.setdefault(literal, []).append((made, owner))
        return found


@cache
def book() -> Book:
    files = [read(path) for path in sorted((FOLDER / "symptoms").glob("*.toml"))]

    def table(name: str, kind: type[Row]) -> tuple[Row, ...]:
        return tuple(row for file in files if name in file for row in rows(file, name, kind))

    lists = {
        one.name: f"(?:{'|'.join(one.words)})"
        for one in table("lists", Words)
        if isinstance(one, Words)
    }
    for signature in (written for file in files for written in file.get("signatures", ())):
        signature["patterns"] = [
            LISTED.sub(lambda found: lists[found[1]], pattern) for pattern in signature["patterns"]
        ]
    made: dict[str, tuple[Row, ...]] = {
        "signatures": table("signatures", Signature),
        "hints": table("hints", Hint),
        "stages": table("stages", Stage),
        "asides": table("asides", Aside),
    }
    return Book(**made)  # type: ignore[arg-type]
