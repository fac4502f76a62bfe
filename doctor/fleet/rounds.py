"""Rounds: slots kept at work, each end told as it comes, and no slot waited for beyond its time.

Pure but for the clock: it knows a cluster by five questions.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic

from doctor.fleet.hand import GRACE
from doctor.fleet.places import DEAD, LATE, Cluster, Lost, Reply, Slot, Work

TICK = 0.5  # seconds between two looks at the clock
LOOK = 5.0  # seconds between two questions which nodes are alive


@dataclass(frozen=True)
class Patience:
    wait: float = 120.0  # seconds until a node must have begun: its queue, and what travels to it
    at_once: int = 256  # tasks under way: what bounds the head's load and the driver's memory
    retries: int = 1  # after anything but an answer


@dataclass(frozen=True)
class Ended:
    slot: Slot
    work: Work
    result: Reply | Lost


@dataclass(frozen=True)
class Under:
    """One task that is under way, and how long its slot has for it, all in all."""

    slot: Slot
    work: Work
    since: float
    patience: float


def rounds(
    cluster: Cluster,
    slots: Sequence[Slot],
    take: Callable[[Slot], Work | None],
    patience: Patience,
) -> Generator[Ended, None, None]:
    """`take` gives a free slot its next work, or None. It is asked again after each end that was
    yielded, so whoever gets an end can give its work to another slot. Cancels on the way out."""
    free = list(slots)
    under: dict[object, Under] = {}
    asked = monotonic()
    try:
        while True:
            free = begun(cluster, free, take, under, patience)
            if not under:
                return
            for handle in cluster.ended(list(under), TICK):
                one, result = under.pop(handle), cluster.result(handle)
                gone = isinstance(result, Lost) and result.state == DEAD
                free += [] if gone else [one.slot]
                yield Ended(one.slot, one.work, result)
            look = monotonic() - asked > LOOK
            asked = monotonic() if look else asked
            for handle, lost in overdue(cluster, under, look):
                one = under.pop(handle)
                cluster.cancel(handle)
                yield Ended(one.slot, one.work, lost)  # a slot that is lost gets no more work
    finally:
        for handle in under:
            cluster.cancel(handle)


def begun(
    cluster: Cluster,
    free: Sequence[Slot],
    take: Callable[[Slot], Work | None],
    under: dict[object, Under],
    patience: Patience,
) -> list[Slot]:
    """Work for the free slots, as far as so many may be under way; the slots that stay free."""
    left = []
    for slot in free:
        work = take(slot) if len(under) < patience.at_once else None
        if work is None:
            left.append(slot)
        else:
            most = patience.wait + work.limit + GRACE
            under[cluster.start(slot, work)] = Under(slot, work, monotonic(), most)
    return left


def overdue(
    cluster: Cluster, under: Mapping[object, Under], look: bool
) -> Iterator[tuple[object, Lost]]:
    """Those whose time is over, and, where it is time to look, those whose node died."""
    now = monotonic()
    late = {handle for handle, one in under.items() if now - one.since > one.patience}
    asked = {one.slot.node for handle, one in under.items() if look or handle in late}
    gone = {node for node in asked if cluster.dead(node)}  # asked before one is called late
    for handle, one in list(under.items()):
        if one.slot.node in gone:
            yield handle, Lost(DEAD, "the node died")
        elif handle in late:
            yield handle, Lost(LATE, f"the node gave no answer within {one.patience:.0f} s")


def again(work: Work) -> Work:
    return replace(work, attempt=work.attempt + 1)
