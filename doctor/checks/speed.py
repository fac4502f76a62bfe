"""Was the last benchmark far below what the device itself can do, and why? The runner's experiments
say; each of its causes is a finding here."""

from collections.abc import Iterator

from doctor import advise
from doctor.check import check
from doctor.facts import Facts
from doctor.finding import Finding, Severity


@check("slow-offloading")
def slow_offloading(facts: Facts) -> Iterator[Finding]:
    """Weights did not lie on the card, or more was in use than it has."""
    yield from told(facts, "slow-offloading", Severity.WARNING)


@check("slow-link")
def slow_link(facts: Facts) -> Iterator[Finding]:
    """The link to the card carries far less than it could."""
    yield from told(facts, "slow-link", Severity.WARNING)


@check("slow-clock")
def slow_clock(facts: Facts) -> Iterator[Finding]:
    """The card ran far below its clock while it was timed: power or heat."""
    yield from told(facts, "slow-clock", Severity.WARNING)


@check("slow-attention")
def slow_attention(facts: Facts) -> Iterator[Finding]:
    """No fast attention kernel was at work."""
    yield from told(facts, "slow-attention", Severity.WARNING)


@check("slow-launches")
def slow_launches(facts: Facts) -> Iterator[Finding]:
    """The processor could not ask for work as fast as the card does it."""
    yield from told(facts, "slow-launches", Severity.WARNING)


@check("slow-float32")
def slow_float32(facts: Facts) -> Iterator[Finding]:
    """The card computed in float32 and is much faster in 16 bits."""
    yield from told(facts, "slow-float32", Severity.INFO)


@check("slow-company")
def slow_company(facts: Facts) -> Iterator[Finding]:
    """Other processes used the device while it was timed."""
    yield from told(facts, "slow-company", Severity.INFO)


def told(facts: Facts, id: str, severity: Severity) -> Iterator[Finding]:
    for slow in facts.proof.slow:
        if slow.id == id:
            yield Finding(
                severity, because=(slow.because,), commands=(advise.doctor(facts, "run"),)
            )
