"""Can this torch compute on this card, with this driver, in this environment?"""

from collections.abc import Iterator

from doctor import advise
from doctor.check import check
from doctor.checks.causes import tried
from doctor.checks.torch import advised, on_cpu, vendor, version_and_build
from doctor.choice import (
    capability,
    compiled_for,
    cuda_version,
    digits,
    driver_system,
    floor,
    portable,
    runs,
)
from doctor.facts import Facts, Gpu, numbers
from doctor.finding import Finding, Severity

HIDING = {
    "nvidia": ("CUDA_VISIBLE_DEVICES",),
    "amd": ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
}


def built_for_cards(facts: Facts) -> str:
    """Whose cards torch was built for, "" where it does not matter."""
    return "" if facts.torch is None or on_cpu(facts) else vendor(facts.torch.build)


def sees_a_card(facts: Facts) -> bool:
    """Did torch itself say that it can compute on a card?"""
    outcome = tried(facts, "torch")
    return outcome is not None and bool(outcome.detail.get("available"))


def nvidia(facts: Facts) -> list[Gpu]:
    return [gpu for gpu in facts.gpus if gpu.vendor == "nvidia"]


@check("nvidia-driver-missing")
def nvidia_driver_missing(facts: Facts) -> Iterator[Finding]:
    """There is an NVIDIA card, and no driver for it."""
    cards = nvidia(facts)
    if cards and not any(gpu.driver for gpu in cards) and not facts.host.container:
        needed = built_for_cards(facts) == "nvidia"
        yield Finding(
            Severity.ERROR if needed else Severity.WARNING,
            because=(cards[0].name, "nvidia-smi names no driver"),
            values={"gpu": cards[0].name},
            commands=advise.system(facts, "driver"),
        )


@check("docker-no-gpu")
def docker_no_gpu(facts: Facts) -> Iterator[Finding]:
    """torch was built for a card, and the container was given none."""
    meant = built_for_cards(facts)
    theirs = [
        gpu for gpu in facts.gpus if gpu.vendor == meant and (gpu.driver or meant != "nvidia")
    ]
    others = [gpu for gpu in facts.gpus if gpu.vendor != meant]
    if meant == "nvidia" and theirs and without_compute(facts) and not sees_a_card(facts):
        yield Finding(
            Severity.ERROR,
            because=(f"{CAPABILITIES}={facts.environment[CAPABILITIES]}: no compute",),
            values={"container": facts.host.container},
        )
    if meant and facts.host.container and not theirs and not others and not sees_a_card(facts):
        yield Finding(
            Severity.ERROR if facts.comfyui is not None else Severity.WARNING,
            because=(
                f"torch {version_and_build(facts)}",
                f"{facts.host.container}: no GPU visible",
            ),
            values={"container": facts.host.container},
            commands=("docker run --gpus all ...",) if facts.host.container == "docker" else (),
        )


CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"


def without_compute(facts: Facts) -> bool:
    """Was the container given its card for other things than computing (NVIDIA's Container
    Toolkit, driver capabilities; unset means utility and compute)?"""
    given = facts.environment.get(CAPABILITIES, "")
    words = {word.strip() for word in given.split(",")}
    return bool(given and facts.host.container) and not words & {"all", "compute"}


@check("nvidia-driver-too-old")
def nvidia_driver_too_old(facts: Facts) -> Iterator[Finding]:
    """The driver is older than anything that runs the CUDA of this torch."""
    if built_for_cards(facts) != "nvidia" or facts.torch is None or sees_a_card(facts):
        return
    cuda = cuda_version(facts.torch.build)
    least = floor(facts.world, cuda, driver_system(facts)) if cuda else ""
    for gpu in nvidia(facts):
        if gpu.driver and least and numbers(gpu.driver) < numbers(least):
            why, commands = advised(facts)
            yield Finding(
                Severity.ERROR,
                because=(
                    f"driver {gpu.driver} < {least}",
                    f"torch {version_and_build(facts)}",
                    *why,
                ),
                values={"driver": gpu.driver, "least": least, "cuda": cuda},
                commands=(*commands, *advise.system(facts, "driver")),
                fix="install-torch",
            )
            return


def unserved(facts: Facts) -> Iterator[tuple[Gpu, str, tuple[str, ...]]]:
    """(card, its compute capability, codes of the wheel) where the wheel has none for the card."""
    if built_for_cards(facts) != "nvidia" or facts.torch is None:
        return
    for gpu in nvidia(facts):
        level = capability(gpu, facts.world)
        if level and gpu.driver:
            codes = codes_of_wheel(facts)
            machine = [code for code in codes if not code.startswith("compute")]
            code = runs(level, machine, facts.world)
            if codes and not code and not compiles(facts, gpu, level, codes):
                yield gpu, level, codes


def codes_of_wheel(facts: Facts) -> tuple[str, ...]:
    """torch's own list; the table of published wheels where torch was not imported, or does not."""
    outcome = tried(facts, "torch")
    listed = outcome.detail.get("arch_list", ()) if outcome is not None and outcome.ok else ()
    if listed or facts.torch is None:
        return tuple(listed)
    row = compiled_for(facts, facts.torch.version, facts.torch.build)
    if row is None or row.assumed:
        return ()
    return (*(f"sm_{code}" for code in row.sm), *(f"compute_{code}" for code in row.ptx))


def compiles(facts: Facts, gpu: Gpu, level: str, codes: tuple[str, ...]) -> bool:
    """Does the driver compile the wheel's portable code for this card? Only one as new as the
    toolkit does (else cudaErrorUnsupportedPtxVersion, 222)."""
    build = facts.torch.build if facts.torch is not None else ""
    own = next((family for family in facts.world.families if family.build == build), None)
    if own is None or not portable(level, [code for code in codes if code.startswith("compute")]):
        return False
    driver = own.windows if driver_system(facts) == "windows" else own.linux
    return driver == "-" or numbers(gpu.driver) >= numbers(driver)


def too_new(level: str, codes: tuple[str, ...]) -> bool:
    """Newer than the oldest code of the wheel, and still not served by any."""
    oldest = min((int(digits(c)[:-1]), int(digits(c)[-1])) for c in codes if c.startswith("sm"))
    return numbers(level)[:2] > oldest


def not_compiled(facts: Facts, new: bool) -> Iterator[Finding]:
    found = [(gpu, level, codes) for gpu, level, codes in unserved(facts)]
    these = [row for row in found if too_new(row[1], row[2]) == new]
    if these:
        gpu, level, codes = these[0]
        served = len(nvidia(facts)) > len(found)
        why, commands = advised(facts)
        yield Finding(
            Severity.WARNING if served else Severity.ERROR,
            because=(
                f"{gpu.name}: compute capability {level}",
                f"torch {version_and_build(facts)}: {' '.join(codes)}",
                *why,
            ),
            values={"gpu": gpu.name, "capability": level, "torch": version_and_build(facts)},
            commands=commands,
            fix="install-torch",
        )


@check("gpu-too-new-for-torch")
def gpu_too_new_for_torch(facts: Facts) -> Iterator[Finding]:
    """This torch holds no code for a card as new as this."""
    yield from not_compiled(facts, new=True)


@check("gpu-too-old-for-torch")
def gpu_too_old_for_torch(facts: Facts) -> Iterator[Finding]:
    """This torch holds no code any more for a card as old as this."""
    yield from not_compiled(facts, new=False)


def hidden(facts: Facts) -> tuple[str, str] | None:
    """The variable, with its value, that hides every card torch was built for."""
    meant = built_for_cards(facts)
    count = sum(gpu.vendor == meant for gpu in facts.gpus)
    for name in HIDING.get(meant, ()):
        value = facts.environment.get(name)
        if count and value is not None and hides_all(value, count):
            return name, value
    return None


def hides_all(value: str, count: int) -> bool:
    """CUDA reads the list up to its first entry that names no card: nothing before it, no card."""
    first = value.split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return False
    return not first.isdigit() or int(first) >= count


@check("cuda-device-not-visible")
def cuda_device_not_visible(facts: Facts) -> Iterator[Finding]:
    """A variable hides every card from torch."""
    found = hidden(facts)
    if found is not None and not sees_a_card(facts):
        name, value = found
        yield Finding(
            Severity.ERROR,
            because=(f"{name}={value!r}", *(gpu.name for gpu in facts.gpus)),
            values={"variable": name, "value": value},
            commands=(f"set {name}=" if facts.host.os == "windows" else f"unset {name}",),
        )


@check("cuda-driver-state")
def cuda_driver_state(facts: Facts) -> Iterator[Finding]:
    """Card, driver and torch fit, and CUDA still does not start: the driver is in a bad state."""
    cards = [gpu for gpu in nvidia(facts) if gpu.driver]
    if not cards or built_for_cards(facts) != "nvidia":
        return
    outcome = facts.imports.get("torch")
    if outcome is None or not outcome.ok:
        return
    error = outcome.detail.get("cuda_error", "")
    told = hidden(facts) is not None or any(True for _ in nvidia_driver_too_old(facts))
    told = told or without_compute(facts)
    if error and not outcome.detail.get("available") and not told:
        yield Finding(
            Severity.ERROR,
            because=(error, f"{cards[0].name}, driver {cards[0].driver}"),
            values={"gpu": cards[0].name, "driver": cards[0].driver},
        )
