"""xformers and triton: the release that was built for exactly the torch that is there. Pure."""

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from doctor.facts import Facts


def built_for_this(facts: Facts, package: str) -> str:
    """The requirement that brings it, "xformers==0.0.34"; "" where no build is known for this
    torch on this system. They are made for CUDA alone."""
    if facts.torch is None or not facts.torch.build.startswith("cu"):
        return ""
    torch, system = facts.torch.version.split("+")[0], facts.host.os
    for row in facts.world.accelerators:
        here = (system == "linux" and row.linux) or (system == "windows" and row.windows)
        if row.package == package and here and SpecifierSet(row.torch).contains(torch):
            return f"{package}{row.version}"
    return ""


def triton(facts: Facts) -> str:
    """What torch itself asks for; on Windows, where it asks for none, what was built for it."""
    if facts.host.os == "windows":
        return built_for_this(facts, "triton-windows")
    for line in facts.packages["torch"].requires if "torch" in facts.packages else ():
        try:
            asked = Requirement(line)
        except InvalidRequirement:
            continue
        if asked.name in ("triton", "pytorch-triton", "pytorch-triton-rocm", "pytorch-triton-xpu"):
            return f"{asked.name}{asked.specifier}"
    return ""
