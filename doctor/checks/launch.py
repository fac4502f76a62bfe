"""Would ComfyUI start, and start with the right flags?"""

import re
from collections.abc import Iterator

from doctor import advise
from doctor.check import check
from doctor.choice import cuda_version
from doctor.facts import Facts, numbers
from doctor.finding import Finding, Severity

FLAG = "--disable-cuda-malloc"


@check("cuda-malloc-unsupported")
def cuda_malloc_unsupported(facts: Facts) -> Iterator[Finding]:
    """The card does not work with cudaMallocAsync, the allocator ComfyUI chooses by default."""
    if facts.comfyui is None or not facts.comfyui.present or FLAG in facts.comfyui.flags:
        return
    faults = tuple(
        line
        for line in facts.comfyui.faults
        if any(re.search(text, line) for row in facts.world.cuda_malloc for text in row.faults)
    )
    cards = listed(facts)
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


@check("port-in-use")
def port_in_use(facts: Facts) -> Iterator[Finding]:
    """Somebody listens on the port ComfyUI would listen on."""
    if facts.comfyui is None or not facts.port.taken:
        return
    by, number = facts.port.by, str(facts.port.number)
    itself = "main.py" in by
    yield Finding(
        Severity.INFO if itself else Severity.ERROR if by else Severity.WARNING,
        because=(f"port {number}: {by or 'the system does not tell whose it is'}",),
        values={"port": number, "by": by or "?"},
        commands=(f"{advise.doctor(facts, 'launch')} -- --port {facts.port.number + 1}",),
    )
