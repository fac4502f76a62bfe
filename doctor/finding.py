"""Finding: one thing worth telling the owner of an installation, and its opposite, NotJudged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class Severity(IntEnum):
    """In JSON: error, warning, info."""

    INFO = 1
    WARNING = 2
    ERROR = 3

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """The words (title, advice) are the page of its id, in manifests/pages, in both languages."""

    severity: Severity
    because: tuple[str, ...]  # the facts that say so, each with its numbers
    values: Mapping[str, str] = field(default_factory=dict)  # fill the blanks of the page
    commands: tuple[str, ...] = ()  # what a person types, on this layout
    fix: str = ""  # the fix that would do it for them
    id: str = ""  # diagnose() fills this in


@dataclass(frozen=True)
class NotJudged:
    """A check that could not look. Silence means healthy, so this must not be silent."""

    id: str
    why: str
    skipped: bool = False  # the user asked not to look


@dataclass(frozen=True)
class Diagnosis:
    """Worst first among equals in order of cause."""

    findings: tuple[Finding, ...]
    not_judged: tuple[NotJudged, ...]
    ignored: tuple[Finding, ...] = ()  # told, and not counted
    asked: tuple[str, ...] = ()  # the checks that were run

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity is Severity.ERROR)
