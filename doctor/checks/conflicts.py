"""Do the installed packages fit one another, by their own metadata and by trying the heavy ones?

What concerns torch's own family is told in checks/torch.py, what ComfyUI itself asks for in
checks/comfyui.py: one cause, one finding.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from doctor import advise
from doctor.accelerators import triton
from doctor.check import check
from doctor.checks.causes import blamed, torch_fails, versions
from doctor.checks.comfyui import TORCH_FAMILY, missing, outside, surroundings, wanted
from doctor.facts import Facts
from doctor.finding import Finding, Severity

FAMILIES = {  # finding -> the distributions whose being out of step it is about
    "hf-stack-conflict": frozenset(
        {"transformers", "tokenizers", "huggingface-hub", "diffusers", "accelerate", "safetensors"}
    ),
    "protobuf-conflict": frozenset({"protobuf"}),
    "pydantic-conflict": frozenset({"pydantic", "pydantic-core"}),
}
TOLD = frozenset().union(TORCH_FAMILY, *FAMILIES.values())
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
JUDGED_ELSEWHERE = TORCH_FAMILY | {"xformers"}  # what these ask of torch


class Unmet(NamedTuple):
    by: str  # the distribution that asks
    wish: Requirement
    here: str  # the version that is there; "" where none is

    def __str__(self) -> str:
        return f"{self.by}: {self.wish.name}{self.wish.specifier} ({self.here or 'not installed'})"


def unmet(facts: Facts, about: frozenset[str], but: bool = False) -> Iterator[Unmet]:
    """Requirements between installed packages that do not hold, on those named in `about` (with
    `but`, on all others). What is told of ComfyUI's own requirements, or of numpy, is left out."""
    own: set[str] = {canonicalize_name(r.name) for r in missing(facts)}
    own |= {"numpy"} - facts.packages.keys()
    platform = surroundings(facts)
    for name, package in facts.packages.items():
        for line in package.requires:
            said = NAME.match(line)
            other = canonicalize_name(said[0]) if said else ""
            if (other in about) == but or other in own or "extra ==" in line or name[:1] == "~":
                continue
            wish = holding(line, platform)
            there = facts.packages.get(other)
            if wish is None or (there and not outside(wish, there.version)):
                continue
            yield Unmet(name, wish, there.version if there else "")


def holding(line: str, platform: dict[str, str]) -> Requirement | None:
    """The requirement, where one can be read and its marker holds in the patient."""
    try:
        wish = Requirement(line)
    except InvalidRequirement:
        return None
    return wish if wish.marker is None or wish.marker.evaluate(platform) else None


def out_of_step(facts: Facts, id: str) -> Iterator[Finding]:
    """One family: what its metadata says, and what failed to import because of it."""
    said = tuple(map(str, unmet(facts, FAMILIES[id])))
    failed = tuple(blamed(facts, id)) if not hasattr(facts.imports, "refuse") else ()
    needed = {canonicalize_name(requirement.name) for requirement in wanted(facts)}
    hurts = any(module.replace("_", "-") in needed for module, _ in failed)
    if said or failed:
        there = sorted(FAMILIES[id] & facts.packages.keys())
        yield Finding(
            Severity.ERROR if hurts else Severity.WARNING,
            because=(
                *(f"{m}{versions(facts, m)}: {outcome.error}" for m, outcome in failed),
                *said[:8],
            ),
            commands=(advise.pip(facts, "install", "--upgrade", *there),),
        )


@check("hf-stack-conflict")
def hf_stack_conflict(facts: Facts) -> Iterator[Finding]:
    """transformers, tokenizers, huggingface_hub and diffusers are out of step."""
    yield from out_of_step(facts, "hf-stack-conflict")


@check("protobuf-conflict")
def protobuf_conflict(facts: Facts) -> Iterator[Finding]:
    """A package was made for another protobuf."""
    yield from out_of_step(facts, "protobuf-conflict")


@check("pydantic-conflict")
def pydantic_conflict(facts: Facts) -> Iterator[Finding]:
    """pydantic and its compiled half are of different versions."""
    yield from out_of_step(facts, "pydantic-conflict")


@check("requirement-unmet")
def requirement_unmet(facts: Facts) -> Iterator[Finding]:
    """Installed packages ask for others that are not there, or not in that version."""
    rest = [one for one in unmet(facts, TOLD, but=True) if one.by != "torch" or not no_torch(facts)]
    if rest:
        names = sorted({one.by for one in rest})
        wishes = sorted({f"{one.wish.name}{one.wish.specifier}" for one in rest})
        yield Finding(
            Severity.WARNING,
            because=tuple(map(str, rest[:8])),
            values={"names": ", ".join(names[:6]), "count": str(len(rest))},
            commands=(advise.pip(facts, "install", *wishes[:8]),),
        )


def no_torch(facts: Facts) -> bool:
    """Is torch broken, so that what it lacks is told with it?"""
    return not hasattr(facts.imports, "refuse") and torch_fails(facts)


@check("package-twice")
def package_twice(facts: Facts) -> Iterator[Finding]:
    """One package is installed twice: in two folders, or in one with two records of itself."""
    twice = {name: p for name, p in facts.packages.items() if p.again and name[:1] not in "~-"}
    if twice:
        yield Finding(
            Severity.WARNING,
            because=tuple(
                f"{name}: {p.version} in {p.location}, {', '.join(p.again)}"
                for name, p in list(twice.items())[:8]
            ),
            values={"names": ", ".join(list(twice)[:6])},
        )


@check("triton-missing")
def triton_missing(facts: Facts) -> Iterator[Finding]:
    """sageattention is installed, and the triton that it compiles with is not."""
    wants = [n for n in ("sageattention", "sageattn3") if n in facts.packages]
    there = [n for n in facts.packages if n.startswith(("triton", "pytorch-triton"))]
    if wants and not there:
        fitting = triton(facts)  # where none is built for this torch, what wants it can go
        ways = ("install", fitting) if fitting else ("uninstall", *wants)
        yield Finding(
            Severity.WARNING,
            because=(f"{wants[0]} {facts.packages[wants[0]].version}", "triton ∉ packages"),
            commands=(advise.pip(facts, *ways),),
            fix="match-triton",
        )


@check("triton-compile-env")
def triton_compile_env(facts: Facts) -> Iterator[Finding]:
    """triton is installed for a card, and there is no C compiler or no Python.h for it."""
    there = [n for n in facts.packages if n.startswith(("triton", "pytorch-triton"))]
    lacking = [
        what
        for what, is_there in (("C compiler", facts.host.compiler), ("Python.h", headers(facts)))
        if there and not is_there
    ]
    if lacking and facts.gpus and facts.host.os == "linux":
        name = there[0]
        yield Finding(
            Severity.INFO,
            because=(f"{name} {facts.packages[name].version}", *(f"no {w}" for w in lacking)),
            commands=advise.system(facts, "compiler"),
        )


def headers(facts: Facts) -> bool:
    return facts.python.headers
