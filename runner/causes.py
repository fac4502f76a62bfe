"""Causes: why a device does far less than its own ceilings allow, told from what was measured.

Pure: from numbers to sentences. The measuring is slowness.py's and nvml.py's. The ids are those of
the doctor's findings, whose pages say what to do.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]
FAR = 0.4  # of a card's own rate of products
SMALL = 0.002  # seconds that a step would take at that rate, below which it fills no device
LANE = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.97e9, 5: 3.94e9, 6: 7.56e9}  # bytes/s; PCI-SIG
NARROW = 0.5  # of what the link could carry
LOW = 0.85  # of the highest clock
FASTER = 1.5  # times as fast in 16 bits: then float32 is a choice that costs
ALIKE = 0.9  # of the plain formula's time: then no fast attention is at work
HOST = 0.8  # of a step's time that the host takes to ask for it
COMPANY = 0.5  # processes that want a core beside ours


@dataclass(frozen=True)
class Cause:
    id: str
    because: str


def far(bench: Json) -> bool:
    """Whether a result of bench is so far below the device's ceiling that causes are asked for.

    Not on a processor: the one cause it has is company, and a doubt says so already.
    """
    share, asked = bench.get("share"), bench.get("flops")
    if share is None or not asked or bench["machine"]["device"] == "cpu":
        return False
    return bool(share < FAR and asked / bench["ceiling"]["flops"] >= SMALL)


def causes(bench: Json) -> Iterator[Cause]:
    """The causes that its measurements show; nothing where the figure is as it should be.

    bench: an object of schema runner.bench/1 with `card` (nvml.py) and `slowness` (slowness.py),
    each of which may be None.
    """
    if not far(bench):
        return
    for id, look in LOOKS.items():
        because = look(bench, bench.get("card") or {}, bench.get("slowness") or {})
        if because:
            yield Cause(id, because)


def link(bench: Json, card: Json, tried: Json) -> str:
    rate = tried.get("link")
    lanes, generation = card.get("link_lanes_most"), card.get("link_generation_most")
    best = LANE.get(int(generation or 0), 0.0) * (lanes or 0)
    if not rate or not best or rate >= NARROW * best:
        return ""
    now = (
        f"{card.get('link_lanes', 0):.0f} lanes of generation {card.get('link_generation', 0):.0f}"
    )
    return f"{rate / 1e9:.1f} GB/s to the card over {now}, where {best / 1e9:.0f} are possible"


def clock(bench: Json, card: Json, tried: Json) -> str:
    now, most, why = card.get("clock"), card.get("clock_most"), card.get("slowed")
    if not now or not most or not why or now >= LOW * most:
        return ""
    drawn = f"{card.get('power', 0):.0f} of {card.get('power_limit', 0):.0f} W"
    return f"{now:.0f} of {most:.0f} MHz ({', '.join(why)}), {drawn}"


def float32(bench: Json, card: Json, tried: Json) -> str:
    half, whole = tried.get("half"), bench["ceiling"]["flops"]
    if bench["settings"]["dtype"] != "float32" or not half or half < FASTER * whole:
        return ""
    return f"products in float16 are {half / whole:.1f} times as fast as in float32 here"


def attention(bench: Json, card: Json, tried: Json) -> str:
    seconds = tried.get("attention") or {}
    chosen, plain = seconds.get("chosen"), seconds.get("plain")
    if not chosen or not plain or chosen < ALIKE * plain:
        return ""
    return f"attention takes {chosen * 1e3:.2f} ms, the plain formula {plain * 1e3:.2f} ms"


def launches(bench: Json, card: Json, tried: Json) -> str:
    asking, whole = tried.get("asking"), tried.get("step")
    if not asking or not whole or asking < HOST * whole:
        return ""
    return f"{asking * 1e3:.1f} of {whole * 1e3:.1f} ms of a step pass in asking for it"


def offloading(bench: Json, card: Json, tried: Json) -> str:
    elsewhere, most, has = tried.get("elsewhere"), bench.get("memory"), tried.get("memory")
    if elsewhere:
        return f"{elsewhere / 1e9:.1f} GB of the weights are not on the device"
    if most and has and most > has:
        return f"{most / 1e9:.1f} GB were in use, and the card has {has / 1e9:.1f}"
    return ""


def company(bench: Json, card: Json, tried: Json) -> str:
    if card.get("others"):
        return f"{card['others']} other processes compute on the card"
    if bench.get("others", 0.0) > COMPANY:
        return f"{bench['others']:.1f} other processes wanted the processor"
    return ""


LOOKS: dict[str, Callable[[Json, Json, Json], str]] = {  # the doctor's finding -> when it is due
    "slow-link": link,
    "slow-clock": clock,
    "slow-float32": float32,
    "slow-attention": attention,
    "slow-launches": launches,
    "slow-offloading": offloading,
    "slow-company": company,
}
