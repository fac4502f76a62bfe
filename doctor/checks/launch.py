"""Would ComfyUI start, and start with the right flags?"""

import re
from collections.abc import Iterator

from doctor import advise, flags
from doctor.check import check
from doctor.checks.verdict import blamed, told
from doctor.choice import cuda_version, supported, without_card
from doctor.facts import UNASKED, Facts, Flag, Unknown, numbers
from doctor.finding import Finding, Severity
from doctor.verdict import BLACK

FLAG, ASYNC = "--disable-cuda-malloc", "cudaMallocAsync"


@check("cuda-malloc-unsupported")
def cuda_malloc_unsupported(facts: Facts) -> Iterator[Finding]:
    """The card does not work with cudaMallocAsync, the allocator ComfyUI chooses by default."""
    if facts.comfyui is None or not facts.comfyui.present or FLAG in facts.comfyui.flags:
        return
    faults, cards = (*allocator_faults(facts), *broke(facts)), listed(facts)
    if works(facts):
        cards = ()  # a trial outweighs a list of names
    if faults or cards:
        forced = "--cuda-malloc" in facts.comfyui.flags
        severity = Severity.WARNING if forced else Severity.INFO  # ComfyUI itself heeds its list
        names = cards or tuple(gpu.name for gpu in facts.gpus if gpu.vendor == "nvidia")
        yield Finding(
            Severity.ERROR if faults else severity,
            because=(*faults, *(f"{name} is on ComfyUI's list" for name in cards)),
            values={"gpu": names[0] if names else "?"},
            commands=(f"{advise.doctor(facts, 'launch')} -- {FLAG}",),
            fix="disable-cuda-malloc",
        )
    elif not skipped(facts.allocators):
        facts.allocators.keys()  # not judged, where there was nothing to try them on


def skipped(tried: object) -> bool:
    """Was it never asked for: by the level, or by whoever made these facts."""
    return isinstance(tried, Unknown) and (tried.skipped or tried is UNASKED)


def works(facts: Facts) -> bool:
    """Was cudaMallocAsync tried on this card, and did it work."""
    return not isinstance(facts.allocators, Unknown) and facts.allocators[ASYNC].ok


def broke(facts: Facts) -> tuple[str, ...]:
    """How cudaMallocAsync failed where torch's own allocator worked; where both fail, it is not
    the allocator."""
    if isinstance(facts.allocators, Unknown) or works(facts) or not facts.allocators["native"].ok:
        return ()
    return (f"tried: {facts.allocators[ASYNC].error}",)


def allocator_faults(facts: Facts) -> tuple[str, ...]:
    texts = [text for row in facts.world.cuda_malloc for text in row.faults]
    lines = facts.comfyui.faults if facts.comfyui is not None else ()
    return tuple(line for line in lines if any(re.search(text, line) for text in texts))


def listed(facts: Facts) -> tuple[str, ...]:
    """Cards on ComfyUI's list, by its own rule: its marker and one of the names are in the name."""
    if facts.torch is None or facts.comfyui is None:
        return ()
    cuda = cuda_version(facts.torch.build)
    return tuple(
        gpu.name
        for gpu in facts.gpus
        for row in facts.world.cuda_malloc
        if cuda and numbers(cuda) < numbers(row.free_from) and row.marker in gpu.name
        if any(name in gpu.name for name in facts.comfyui.cuda_malloc or row.names)
    )


@check("cpu-flag-needed")
def cpu_flag_needed(facts: Facts) -> Iterator[Finding]:
    """torch computes on the CPU here, and ComfyUI starts on it only with --cpu."""
    if facts.comfyui is None or not facts.comfyui.present or facts.torch is None:
        return
    elsewhere = {"--cpu", "--directml"} & facts.comfyui.flags.keys()
    if facts.torch.build != "cpu" or facts.host.os == "macos" or elsewhere:
        return
    if "torch-directml" not in facts.packages and not cards_for_torch(facts):
        yield Finding(
            Severity.INFO,
            because=(f"torch {facts.torch.version}", without_card(facts)),
            commands=(f"{advise.doctor(facts, 'launch')} -- --cpu",),
            fix="start-on-cpu",
        )


def cards_for_torch(facts: Facts) -> tuple[str, ...]:
    return tuple(gpu.name for gpu in facts.gpus if supported(gpu, facts))


@check("black-nan-image")
def black_nan_image(facts: Facts) -> Iterator[Finding]:
    """The last start, or the last proof, turned NaN into a picture: numbers overflowed."""
    proved = blamed(facts, BLACK)
    if proved and not flags.tried_since(facts, BLACK, facts.proof.at):
        yield from told(facts, BLACK, "raise-precision")
    else:
        yield from told_by_log(facts, BLACK, "raise-precision")


@check("gpu-out-of-memory")
def gpu_out_of_memory(facts: Facts) -> Iterator[Finding]:
    """The last start ran out of the card's memory."""
    yield from told_by_log(facts, "gpu-out-of-memory", "spare-card-memory")


@check("port-forbidden")
def port_forbidden(facts: Facts) -> Iterator[Finding]:
    """The system did not let the last start have its port."""
    yield from told_by_log(facts, "port-forbidden", "allowed-port")


@check("listen-address-invalid")
def listen_address_invalid(facts: Facts) -> Iterator[Finding]:
    """The last start was to listen on an address that this machine does not have."""
    yield from told_by_log(facts, "listen-address-invalid", "listen-here")


def told_by_log(facts: Facts, id: str, fix: str) -> Iterator[Finding]:
    """The log of the last start names a fault that a launch flag may cure, and none was kept
    against it since."""
    if facts.comfyui is None or not facts.comfyui.present:
        return
    lines = tuple(flags.named_in(facts.comfyui.faults, id, facts.world))
    if not lines or flags.tried_since(facts, id, facts.comfyui.faults_at):
        return
    cure = flags.next_cure(facts, id)
    words = [word for word in (cure.flag, cure.value) if word] if cure else []
    command = f"{advise.doctor(facts, 'launch')} -- {' '.join(words)}"
    yield Finding(
        Severity.WARNING,
        because=lines[-3:],
        commands=(command,) if cure else (),
        fix=fix if cure else "",
    )


@check("port-in-use")
def port_in_use(facts: Facts) -> Iterator[Finding]:
    """Somebody listens on the port ComfyUI would listen on."""
    if facts.comfyui is None or not facts.port.taken:
        return
    by, number = facts.port.by, str(facts.port.number)
    other = facts.port.free or facts.port.number + 1
    itself = "main.py" in by
    yield Finding(
        Severity.INFO if itself else Severity.ERROR if by else Severity.WARNING,
        because=(f"port {number}: {by or 'the system does not tell whose it is'}",),
        values={"port": number, "by": by or "?"},
        commands=(f"{advise.doctor(facts, 'launch')} -- --port {other}",),
        fix="" if itself else "another-port",
    )


@check("flag-unneeded")
def flag_unneeded(facts: Facts) -> Iterator[Finding]:
    """A launch flag is kept whose cause is gone."""
    gone = unneeded(facts)
    if gone:
        yield Finding(
            Severity.INFO,
            because=tuple(f"{flag}: {why}" for flag, why in gone.items()),
            values={"flags": " ".join(gone)},
            fix="withdraw-flags",
        )


def unneeded(facts: Facts) -> dict[str, str]:
    """Kept flags that may go, each with what changed."""
    if facts.comfyui is None:
        return {}
    told = ((flag, gone(kept, facts)) for flag, kept in facts.comfyui.flags.items())
    return {flag: why for flag, why in told if why}


def gone(kept: Flag, facts: Facts) -> str:
    """What became of the cause of a flag; "" while it stands, or where nobody can tell. A fault
    that only a log tells of is tried anew once the card, its driver or torch is another."""
    match kept.why:
        case "cpu-flag-needed":
            cards = cards_for_torch(facts)
            if not cards or facts.torch is None or facts.torch.build == "cpu":
                return ""
            return f"torch {facts.torch.version} is for {cards[0]}"
        case "port-in-use":
            usual = facts.world.core[0].port
            freed = facts.port.usual and kept.value != str(usual)
            return f"port {usual} is free" if freed else ""
        case "cuda-malloc-unsupported":
            if works(facts) and not allocator_faults(facts):
                return f"{ASYNC} was tried on this card, and works"
            stands = listed(facts) or allocator_faults(facts) or broke(facts)
        case "black-nan-image" | "gpu-out-of-memory":
            faults = facts.comfyui.faults if facts.comfyui is not None else ()
            stands = tuple(flags.named_in(faults, kept.why, facts.world))
        case _:
            return ""
    return "" if stands else "; ".join(flags.changed(kept, facts))
