"""Did the runner's last proof find the numbers of this machine wrong, and by whose fault?"""

from collections.abc import Iterator

from doctor import advise, flags
from doctor.check import check
from doctor.facts import Facts, Failed
from doctor.finding import Finding, Severity
from doctor.verdict import ATTENTION, DEVICE, NUMBERS, SHAKY, finding_of

TOLD = 3  # gates that are quoted


@check(ATTENTION)
def attention_wrong(facts: Facts) -> Iterator[Finding]:
    """A fast attention kernel gives other numbers here than the plain formula."""
    yield from told(facts, ATTENTION, "plain-attention")


@check(SHAKY)
def render_not_repeatable(facts: Facts) -> Iterator[Finding]:
    """The same render came out otherwise when it was made again."""
    yield from told(facts, SHAKY, "repeatable-kernels")


@check(DEVICE)
def device_computes_wrongly(facts: Facts) -> Iterator[Finding]:
    """The device, or the memory, gives wrong numbers now and then."""
    yield from told(facts, DEVICE)


@check(NUMBERS)
def numbers_wrong(facts: Facts) -> Iterator[Finding]:
    """The last proof's numbers are not ComfyUI's."""
    yield from told(facts, NUMBERS, "wider-numbers")


def told(facts: Facts, id: str, fix: str = "") -> Iterator[Finding]:
    failed = blamed(facts, id)
    if not failed or flags.tried_since(facts, id, facts.proof.at):
        return
    cure = flags.next_cure(facts, id) if fix else None
    launch = f"{advise.doctor(facts, 'launch')} -- {cure.flag}" if cure else ""
    yield Finding(
        Severity.WARNING,
        because=tuple(quoted(one) for one in failed[:TOLD]),
        values={"gate": failed[0].gate, "count": str(len(failed))},
        commands=tuple(filter(None, [launch, advise.doctor(facts, "run")])),
        fix=fix if cure else "",
    )


def blamed(facts: Facts, id: str) -> list[Failed]:
    return [one for one in facts.proof.failed if finding_of(one) == id]


def quoted(failed: Failed) -> str:
    cured = f"; right with {failed.cured_by}" if failed.cured_by else ""
    return f"gate {failed.gate}: {failed.why}{cured}"
