"""Is the card itself well, as far as its driver and the kernel's log tell; was memory enough?"""

import re
from collections.abc import Iterator

from doctor.check import check
from doctor.facts import Facts, Gpu
from doctor.finding import Finding, Severity

GB = 1_000_000_000
FULL = 0.75  # of the card's memory: with so much taken by others no usual model fits
NARROW = 4  # lanes, of a card with at least 16: what a riser or the wrong slot leaves
XID = re.compile(r"NVRM: Xid \([^)]*\): (\d+)")
KILLED = re.compile(r"Kill\w* process \d+ \((\S*(?:python|pip|uv|comfy)\S*)\)", re.IGNORECASE)


@check("gpu-fault")
def gpu_fault(facts: Facts) -> Iterator[Finding]:
    """The driver wrote down a fault of the card since the machine was started."""
    if not any(gpu.vendor == "nvidia" for gpu in facts.gpus):
        return
    kinds = {row.number: row for row in facts.world.xids}
    seen: dict[int, list[str]] = {}
    for line in facts.host.log:
        said = XID.search(line)
        number = int(said[1]) if said else 79 if "fallen off the bus" in line else 0
        if number in kinds:
            seen.setdefault(number, []).append(line)
    if seen:
        severe = any(kinds[number].hardware for number in seen)
        yield Finding(
            Severity.WARNING if severe else Severity.INFO,
            because=tuple(
                f"Xid {number}, {len(lines)} x: {kinds[number].what}; {lines[-1]}"
                for number, lines in seen.items()
            ),
            values={"numbers": ", ".join(map(str, seen))},
        )


def of_cards(facts: Facts, said: dict[Gpu, str]) -> tuple[str, ...]:
    return tuple(f"{gpu.name}: {what}" for gpu, what in said.items())


@check("gpu-ecc-errors")
def gpu_ecc_errors(facts: Facts) -> Iterator[Finding]:
    """The card's memory had errors that could not be corrected."""
    wrong = {gpu: f"{gpu.ecc} uncorrected" for gpu in facts.gpus if gpu.ecc}
    if wrong:
        first = next(iter(wrong))
        yield Finding(
            Severity.WARNING,
            because=of_cards(facts, wrong),
            values={"gpu": first.name, "count": str(first.ecc)},
        )


@check("gpu-slowed")
def gpu_slowed(facts: Facts) -> Iterator[Finding]:
    """The card runs below its clock now: too hot, or too little power."""
    slow = {gpu: ", ".join(gpu.slowed) for gpu in facts.gpus if gpu.slowed}
    if slow:
        first = next(iter(slow))
        yield Finding(Severity.WARNING, of_cards(facts, slow), values={"gpu": first.name})


@check("gpu-link-narrow")
def gpu_link_narrow(facts: Facts) -> Iterator[Finding]:
    """The card hangs on few of its PCIe lanes: models reach it slowly."""
    few = {
        gpu: f"{gpu.lanes} of {gpu.lanes_most} PCIe lanes"
        for gpu in facts.gpus
        if 0 < gpu.lanes <= NARROW and gpu.lanes_most >= 16
    }
    if few:
        first = next(iter(few))
        values = {"gpu": first.name, "lanes": str(first.lanes), "most": str(first.lanes_most)}
        yield Finding(Severity.INFO, of_cards(facts, few), values=values)


@check("gpu-memory-taken")
def gpu_memory_taken(facts: Facts) -> Iterator[Finding]:
    """Other programs hold most of the card's memory before ComfyUI starts."""
    taken = {
        gpu: f"{gpu.used / GB:.1f} of {gpu.memory / GB:.1f} GB are taken"
        for gpu in facts.gpus
        if gpu.memory and gpu.used > FULL * gpu.memory
    }
    every = taken and len(taken) == sum(bool(gpu.memory) for gpu in facts.gpus)
    if every and "main.py" not in facts.port.by:
        gpu = next(iter(taken))
        used, whole = (f"{size / GB:.1f} GB" for size in (gpu.used, gpu.memory))
        values = {"gpu": gpu.name, "used": used, "memory": whole}
        yield Finding(Severity.WARNING, of_cards(facts, taken), values=values)


@check("host-oom-killed")
def host_oom_killed(facts: Facts) -> Iterator[Finding]:
    """The kernel ended a Python for want of memory since the machine was started."""
    if facts.comfyui is None or facts.host.os != "linux":
        return
    lines = [line for line in facts.host.log if KILLED.search(line)]
    if lines:
        yield Finding(Severity.INFO, because=tuple(lines[-3:]))
