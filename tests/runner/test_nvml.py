"""What a card tells, by a library that is not there: a driver that answers as NVML does."""

import time

import pytest

from runner import nvml


class Driver:
    """Functions by NVML's names that write into what they are given, and tell 0, or an error."""

    def __init__(self, **numbers):
        self.numbers, self.energy = numbers, 1_000_000

    def __getattr__(self, name):
        if name not in self.numbers:
            raise AttributeError(name)

        def call(handle, *words):
            number = self.numbers[name]
            if isinstance(number, Exception):
                return 3  # NVML_ERROR_NOT_SUPPORTED
            words[-1]._obj.value = number() if callable(number) else number
            return 0

        return call

    def nvmlDeviceGetHandleByUUID(self, uuid, handle):  # noqa: N802
        handle._obj.value = 1
        return 0 if uuid == b"GPU-1234" else 6

    def nvmlDeviceGetComputeRunningProcesses(self, handle, count, rows):  # noqa: N802
        count._obj.value = self.numbers["processes"]
        return 7

    def drawn(self):
        self.energy += 50_000
        return self.energy


@pytest.fixture
def driver():
    driver = Driver(
        processes=3,
        nvmlDeviceGetClockInfo=1410,
        nvmlDeviceGetMaxClockInfo=1980,
        nvmlDeviceGetPowerUsage=349_000,
        nvmlDeviceGetEnforcedPowerLimit=350_000,
        nvmlDeviceGetTemperature=ValueError(),
        nvmlDeviceGetCurrPcieLinkWidth=16,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x4 | 0x20 | 0x1,
    )
    driver.numbers["nvmlDeviceGetTotalEnergyConsumption"] = driver.drawn
    return driver


def test_what_is_told_has_our_units_and_what_is_not_is_left_out(driver):
    told = nvml.Card.of(driver, "GPU-1234").told()
    assert told["clock"] == 1410
    assert told["power"] == pytest.approx(349)
    assert told["link_lanes"] == 16
    assert "temperature" not in told, "not supported"
    assert "link_generation" not in told, "an older driver"


def test_another_card_is_none():
    assert nvml.Card.of(Driver(), "GPU-9999") is None


def test_a_card_is_looked_at_while_something_goes_on(driver, monkeypatch):
    monkeypatch.setattr(nvml, "PAUSE", 0.001)
    with nvml.watched(nvml.Card.of(driver, "GPU-1234")) as looks:
        while len(looks.told) < 4:
            time.sleep(0.001)
    told = looks.to_json(steps=10)
    assert told["slowed"] == ["power cap", "software, for heat"]
    assert told["joules_a_step"] == pytest.approx(50 * (len(looks.told) - 1) / 10)
    assert told["others"] == 2
    assert told["power_limit"] == pytest.approx(350)
    count = len(looks.told)
    time.sleep(0.01)
    assert len(looks.told) == count, "nobody looks any more"


def test_without_a_card_nothing_is_told():
    with nvml.watched(None) as looks:
        pass
    assert looks.to_json(3) is None


def test_a_machine_without_the_library_has_none(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(nvml.ctypes, "CDLL", missing)
    assert nvml.library() is None
