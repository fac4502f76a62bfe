"""Is there room, on disk and in memory?"""

from collections.abc import Iterator

from doctor.check import check
from doctor.facts import Disk, Facts
from doctor.finding import Finding, Severity

GB = 1_000_000_000


@check("disk-full")
def disk_full(facts: Facts) -> Iterator[Finding]:
    """A disk that things will be written to has little or no room left."""
    limits = {limit.what: limit for limit in facts.world.limits}
    tight = [d for d in facts.disks if d.what in limits and d.free < limits[d.what].warning]
    files = limits["entries"]
    crowded = [d for d in facts.disks if 0 <= d.entries < files.warning]
    if tight or crowded:
        full = any(disk.free < limits[disk.what].error for disk in tight)
        full = full or any(disk.entries < files.error for disk in crowded)
        yield Finding(
            Severity.ERROR if full else Severity.WARNING,
            because=(
                *(
                    f"{d.what}, {d.path}: {d.free / GB:.1f} GB of {d.total / GB:.0f} GB free"
                    for d in tight
                ),
                *(f"{d.what}, {d.path}: room for {d.entries} more files" for d in crowded),
            ),
            values={"path": (*tight, *crowded)[0].path, "free": room(*tight, *crowded)},
        )


def room(disk: Disk, *_: Disk) -> str:
    """Of the first: bytes, or the number of files where these are what it lacks."""
    many = disk.free > 50 * GB
    return f"{disk.entries}" if many and disk.entries >= 0 else f"{disk.free / GB:.1f} GB"


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


@check("windows-paging-file")
def windows_paging_file(facts: Facts) -> Iterator[Finding]:
    """Windows has no paging file worth the name: it then refuses memory that looks free."""
    if facts.host.os != "windows":
        return
    limit = next(limit for limit in facts.world.limits if limit.what == "paging")
    if facts.host.swap < limit.warning:
        yield Finding(
            Severity.WARNING,
            because=(f"paging files: {facts.host.swap / GB:.1f} GB; {limit.why}",),
        )
