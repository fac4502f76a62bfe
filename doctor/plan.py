"""Plan: the treatments that would cure some findings, in order of cause; nothing is touched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from doctor import fixes  # noqa: F401  (importing a subject registers its fixes)
from doctor.check import CHECKS
from doctor.facts import Facts, NotKnown
from doctor.finding import Finding
from doctor.fix import FIXES, CannotFix
from doctor.step import Step


@dataclass(frozen=True)
class Treatment:
    """The steps of one fix: made whole or not at all, verified, undone together."""

    fix: str
    cures: tuple[str, ...]  # the findings that should be gone afterwards
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Plan:
    treatments: tuple[Treatment, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)  # fix -> why it does not suit


def prescribe(findings: Sequence[Finding], facts: Facts) -> Plan:
    """Each fix once, in order of cause: a cure of the interpreter before one of its packages."""
    order = list(CHECKS)
    wanted: dict[str, list[str]] = {}
    for finding in sorted(findings, key=lambda finding: order.index(finding.id)):
        if finding.fix:
            wanted.setdefault(finding.fix, []).append(finding.id)
    treatments, refused = [], {}
    for fix, cures in wanted.items():
        try:
            treatments.append(Treatment(fix, tuple(cures), tuple(FIXES[fix](facts))))
        except (CannotFix, NotKnown) as why:
            refused[fix] = str(why)
    return Plan(tuple(treatments), refused)
