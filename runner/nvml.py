"""NVML: what an NVIDIA card tells of itself while it works: clocks, power, heat, link, company.

By the driver's own library, without a package (NVIDIA, NVML API Reference Guide). A card, a
driver or a platform that does not tell is no error: what is not told is left out.
"""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Told = dict[str, float]
PAUSE = 0.1  # seconds between two looks
SM, DIE = 1, 0  # nvmlClockType_t NVML_CLOCK_SM; nvmlTemperatureSensors_t NVML_TEMPERATURE_GPU
REASONS = {  # nvml.h, nvmlClocksEventReasons: bit -> why the clock is below its highest
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software, for heat",
    0x40: "hardware, for heat",
    0x80: "power brake",
}
ASKED = {  # name of ours -> NVML's function, what it is asked besides, unit of ours
    "clock": ("nvmlDeviceGetClockInfo", (SM,), 1.0),  # MHz
    "clock_most": ("nvmlDeviceGetMaxClockInfo", (SM,), 1.0),
    "power": ("nvmlDeviceGetPowerUsage", (), 1e-3),  # W
    "power_limit": ("nvmlDeviceGetEnforcedPowerLimit", (), 1e-3),
    "temperature": ("nvmlDeviceGetTemperature", (DIE,), 1.0),  # °C
    "link_generation": ("nvmlDeviceGetCurrPcieLinkGeneration", (), 1.0),
    "link_generation_most": ("nvmlDeviceGetMaxPcieLinkGeneration", (), 1.0),
    "link_lanes": ("nvmlDeviceGetCurrPcieLinkWidth", (), 1.0),
    "link_lanes_most": ("nvmlDeviceGetMaxPcieLinkWidth", (), 1.0),
}
WIDE = {  # the same, as 64 bits
    "energy": ("nvmlDeviceGetTotalEnergyConsumption", (), 1e-3),  # J since the driver was loaded
    "reasons": ("nvmlDeviceGetCurrentClocksThrottleReasons", (), 1.0),
}


def library() -> Any:
    """The driver's library, started; None where there is none."""
    names = ("nvml.dll",) if sys.platform == "win32" else ("libnvidia-ml.so.1", "libnvidia-ml.so")
    for name in names:
        with suppress(OSError, AttributeError):
            found = ctypes.CDLL(name)
            if found.nvmlInit_v2() == 0:
                return found
    return None


@dataclass
class Card:
    """One card of the driver's library."""

    library: Any
    handle: Any

    @classmethod
    def of(cls, library: Any, uuid: str) -> "Card | None":
        """The card with that id ("GPU-..."), which torch tells; None if it is not there."""
        handle = ctypes.c_void_p()
        with suppress(AttributeError):
            asked = library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle))
            return cls(library, handle) if asked == 0 else None
        return None

    def told(self) -> Told:
        """What it tells now, by the names above; what it does not tell is not there."""
        found = dict(self.numbers(ASKED, ctypes.c_uint))
        return found | dict(self.numbers(WIDE, ctypes.c_ulonglong))

    def numbers(self, asked: dict[str, Any], kind: Any) -> Iterator[tuple[str, float]]:
        for name, (function, words, unit) in asked.items():
            number = kind()
            with suppress(AttributeError):  # an older driver does not have every function
                call = getattr(self.library, function)
                if call(self.handle, *words, ctypes.byref(number)) == 0:
                    yield name, number.value * unit

    def company(self) -> int | None:
        """How many other processes compute on it; None where that is not told."""
        count = ctypes.c_uint(0)  # room for none: it answers how many there are
        with suppress(AttributeError):
            call = self.library.nvmlDeviceGetComputeRunningProcesses
            if call(self.handle, ctypes.byref(count), None) in (0, 7):  # 7: insufficient size
                return max(0, count.value - 1)
        return None


@dataclass
class Looks:
    """What a card told while something went on."""

    card: Card | None
    told: list[Told] = field(default_factory=list)
    others: int | None = None

    def to_json(self, steps: int) -> dict[str, object] | None:
        """Medians, the highest heat, every reason that was seen, joules a step; None: no card."""
        if not self.told:
            return None
        names = [name for name in ASKED if any(name in one for one in self.told)]
        rows = {name: [one[name] for one in self.told if name in one] for name in names}
        found: dict[str, object] = {name: median(row) for name, row in rows.items()}
        if "temperature" in rows:
            found["temperature_most"] = max(rows["temperature"])
        bits = 0
        for one in self.told:
            bits |= int(one.get("reasons", 0))
        found["slowed"] = [why for bit, why in REASONS.items() if bits & bit]
        first, last = self.told[0].get("energy"), self.told[-1].get("energy")
        if first is not None and last is not None and last > first and steps:
            found["joules_a_step"] = (last - first) / steps
        if self.others is not None:
            found["others"] = self.others
        return found


@contextmanager
def watched(card: Card | None) -> Iterator[Looks]:
    """Look at a card again and again while this lasts, and once before and after."""
    looks, enough = Looks(card), threading.Event()

    def look() -> None:
        while not enough.wait(PAUSE):
            looks.told.append(card.told())  # type: ignore[union-attr]

    if card is None:
        yield looks
        return
    looks.told.append(card.told())
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield looks
    finally:
        enough.set()
        thread.join()
        looks.told.append(card.told())
        looks.others = card.company()


def card_of(device: Any) -> Card | None:
    """The card behind a device of torch; None on the CPU, elsewhere, or where nobody tells."""
    if device.type != "cuda":
        return None
    import torch

    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)  # since torch 2.4
    found = library() if uuid is not None else None
    return None if found is None else Card.of(found, f"GPU-{uuid}")
