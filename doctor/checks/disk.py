"""Is there room, on disk and in memory?"""

from collections.abc import Iterator

from doctor.check import check
from doctor.facts import Facts
from doctor.finding import Finding, Severity

GB = 1_000_000_000


@check("disk-full")
def disk_full(facts: Facts) -> Iterator[Finding]:
    """A disk that things will be written to has little or no room left."""
    limits = {limit.what: limit for limit in facts.world.limits}
    tight = [d for d in facts.disks if d.what in limits and d.free < limits[d.what].warning]
    if tight:
        full = any(disk.free < limits[disk.what].error for disk in tight)
        yield Finding(
            Severity.ERROR if full else Severity.WARNING,
            because=tuple(
                f"{d.what}, {d.path}: {d.free / GB:.1f} GB of {d.total / GB:.0f} GB free"
                for d in tight
            ),
            values={"path": tight[0].path, "free": f"{tight[0].free / GB:.1f} GB"},
        )


@check("memory-low")
def memory_low(facts: Facts) -> Iterator[Finding]:
    """The machine has less memory than the smallest full-size model takes on the CPU."""
    for limit in facts.world.limits:
        if limit.what == "memory" and facts.host.memory < limit.warning:
            yield Finding(
                Severity.WARNING,
                because=(
                    f"{facts.host.memory / GB:.1f} GB of memory, less than needed: {limit.why}",
                ),
                values={"memory": f"{facts.host.memory / GB:.1f} GB"},
            )
