"""Is torch there, does it work, and was it built for this machine and its companions?"""

from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from doctor import advise
from doctor.check import check
from doctor.checks.causes import blamed, has_torch, torch_fails, tried
from doctor.checks.comfyui import wanted
from doctor.choice import Family, NoChoice, choose, installed, supported
from doctor.facts import Facts, NotKnown, Package
from doctor.finding import Finding, Severity

COMPANIONS = ("torchvision", "torchaudio")


def advised(facts: Facts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(why, commands) of the torch that fits this machine, as far as that can be told."""
    try:
        family = choose(facts)
    except NoChoice as none:
        return (none.why,), ()
    except NotKnown:
        return (), ()
    return (family.why,), (install(facts, family, *family.pins),)


def install(facts: Facts, family: Family, *words: str) -> str:
    index = ("--index-url", family.index) if family.index else ()
    return advise.pip(facts, "install", *words, *index)


def vendor(build: str) -> str:
    """Whose cards a build is for."""
    return next((v for b, v in VENDORS.items() if build.startswith(b)), "")


VENDORS = {"cu": "nvidia", "rocm": "amd", "xpu": "intel"}


def on_cpu(facts: Facts) -> bool:
    """Does the owner start ComfyUI on the CPU on purpose?"""
    kept = facts.comfyui.flags.get("--cpu") if facts.comfyui is not None else None
    return kept is not None and kept.why != "cpu-flag-needed"  # that one was for want of a card


@check("torch-missing")
def torch_missing(facts: Facts) -> Iterator[Finding]:
    """There is no torch in the interpreter."""
    if not has_torch(facts):
        why, commands = advised(facts)
        yield Finding(
            Severity.ERROR,
            because=(f"no torch in {facts.python.site}", *why),
            commands=commands,
            fix="install-torch",
        )


@check("torch-broken")
def torch_broken(facts: Facts) -> Iterator[Finding]:
    """torch is installed and does not import."""
    package = facts.packages.get("torch", Package(""))
    gone = tuple(f"absent: {name}" for name in package.missing[:5])
    outcome = tried(facts, "torch")
    if facts.torch is None:
        return
    if outcome is None and gone:
        errors: tuple[str, ...] = ()
    else:
        errors = tuple(o.error for module, o in blamed(facts, "torch-broken") if module == "torch")
        if not errors:
            return
    family = installed(facts)
    repair = ("--force-reinstall", "--no-deps", *family.pins[:1]) if family else ()
    yield Finding(
        Severity.ERROR,
        because=(f"torch {facts.torch.version}", *errors, *gone),
        values={"version": facts.torch.version},
        commands=(install(facts, family, *repair),) if family else (),
        fix="install-torch",
    )


@check("torch-crashes")
def torch_crashes(facts: Facts) -> Iterator[Finding]:
    """The interpreter dies or hangs while it imports torch."""
    for _, outcome in blamed(facts, "torch-crashes"):
        family = installed(facts)
        repair = ("--force-reinstall", "--no-deps", *family.pins[:1]) if family else ()
        yield Finding(
            Severity.ERROR,
            because=(f"torch {version_and_build(facts)}", outcome.error, *outcome.trace[-2:]),
            values={"version": version_and_build(facts), "how": outcome.signal or "timeout"},
            commands=(install(facts, family, *repair),) if family else (),
            fix="install-torch",
        )


@check("torch-cpu-build")
def torch_cpu_build(facts: Facts) -> Iterator[Finding]:
    """torch was built for the CPU although the machine has a card that torch has a build for."""
    cards = [gpu for gpu in facts.gpus if gpu.vendor != "apple" and supported(gpu, facts)]
    if facts.torch is not None and facts.torch.build == "cpu" and cards:
        if facts.host.os == "macos" or on_cpu(facts):
            return
        why, commands = advised(facts)
        yield Finding(
            Severity.ERROR,
            because=(f"torch {facts.torch.version}", *(gpu.name for gpu in cards), *why),
            values={"version": facts.torch.version, "gpu": cards[0].name},
            commands=commands,
            fix="install-torch",
        )


@check("wrong-torch-vendor")
def wrong_torch_vendor(facts: Facts) -> Iterator[Finding]:
    """torch was built for the cards of another vendor, or for cards where there is none."""
    meant = vendor(facts.torch.build) if facts.torch is not None else ""
    if not meant or any(gpu.vendor == meant for gpu in facts.gpus) or on_cpu(facts):
        return
    others = [gpu for gpu in facts.gpus if supported(gpu, facts)]
    if others or not facts.host.container:  # a container may just not have been given its card
        why, commands = advised(facts)
        there = tuple(gpu.name for gpu in facts.gpus) or ("no GPU",)
        severe = bool(others) or facts.comfyui is not None
        yield Finding(
            Severity.ERROR if severe else Severity.WARNING,
            because=(f"torch {version_and_build(facts)}", *there, *why),
            values={"build": facts.torch.build if facts.torch else "", "gpu": there[0]},
            commands=commands,
            fix="install-torch",
        )


def version_and_build(facts: Facts) -> str:
    if facts.torch is None:
        return ""
    version, build = facts.torch.version, facts.torch.build
    return version if "+" in version else f"{version} ({build})"


@check("torch-companion-missing")
def torch_companion_missing(facts: Facts) -> Iterator[Finding]:
    """requirements.txt names torchvision or torchaudio, and it is not there."""
    asked = {canonicalize_name(requirement.name) for requirement in wanted(facts)}
    absent = [n for n in COMPANIONS if n in asked and n not in facts.packages]
    if absent and facts.torch is not None:
        yield Finding(
            Severity.ERROR if "torchvision" in absent else Severity.WARNING,
            because=(f"torch {version_and_build(facts)}", f"not installed: {', '.join(absent)}"),
            values={"names": ", ".join(absent), "torch": version_and_build(facts)},
            commands=beside(facts, absent),
            fix="install-torch",
        )


@check("torch-companion-mismatch")
def torch_companion_mismatch(facts: Facts) -> Iterator[Finding]:
    """torchvision or torchaudio was made for another release or another build of torch."""
    if torch_fails(facts):
        return
    wrong = {name: reasons for name in COMPANIONS if (reasons := tuple(misfits(facts, name)))}
    if not wrong and any(name in facts.packages for name in COMPANIONS):
        facts.imports.keys()  # numbers alone do not say that it works
    if wrong:
        yield Finding(
            Severity.ERROR if "torchvision" in wrong else Severity.WARNING,
            because=(
                f"torch {version_and_build(facts)}",
                *(r for rs in wrong.values() for r in rs),
            ),
            values={"names": ", ".join(wrong), "torch": version_and_build(facts)},
            commands=beside(facts, list(wrong)),
            fix="match-companions",
        )


def misfits(facts: Facts, name: str) -> Iterator[str]:
    """Why this companion does not fit: by version, by build, by trying it."""
    package = facts.packages.get(name)
    if package is None or facts.torch is None or package.missing:
        return
    asked, torch = made_for(facts, name, package), facts.torch
    if asked and not SpecifierSet(asked).contains(torch.version.split("+")[0], prereleases=True):
        yield f"{name} {package.version} is made for torch {asked}"
    elif package.build and not same_build(facts, name, package.build, torch.build):
        yield f"{name} {package.version} is built for {package.build}, torch for {torch.build}"
    outcome = tried(facts, name)
    if outcome is not None and not outcome.ok:
        if any(module == name for module, _ in blamed(facts, "torch-companion-mismatch")):
            yield f"{name}: {outcome.error}"
    elif outcome is not None and outcome.detail.get("nms") is False:
        yield f"{name}.ops.nms gives wrong boxes"


def made_for(facts: Facts, name: str, package: Package) -> str:
    """The torch a companion was made for: by its own metadata, else by the table; "" unknown."""
    own = requirement_on_torch(package)
    if own:
        return own
    version = package.version.split("+")[0]
    free = (c.torch for c in facts.world.companions if (c.package, c.version) == (name, version))
    rows = (f"=={r.torch}" for r in facts.world.releases if getattr(r, name) == version)
    return next(free, "") or next(rows, "")


def requirement_on_torch(package: Package) -> str:
    for line in package.requires:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.name.lower() == "torch" and requirement.marker is None:
            return str(requirement.specifier)
    return ""


def same_build(facts: Facts, name: str, build: str, torch: str) -> bool:
    """Do the two builds work together? What was seen to work does, except a CPU companion, whose
    operations are tried on the CPU only and are not there on the card."""
    if build == "cpu" and torch != "cpu":
        return facts.host.os == "macos" or name == "torchaudio"
    outcome = tried(facts, name)
    seen = outcome is not None and outcome.ok
    return seen or (vendor(build), major(build)) == (vendor(torch), major(torch))


def major(build: str) -> str:
    """ "12" of cu126: builds of one CUDA major load each other's libraries."""
    return build[:-1] if build.startswith("cu") else build.split(".")[0]


def beside(facts: Facts, names: list[str]) -> tuple[str, ...]:
    """The command for the companions of the torch that is there, which stays as it is."""
    family = installed(facts)
    if family is None:
        return advised(facts)[1]
    pins = [pin for pin in family.pins if pin.split("==")[0] in names]
    return (install(facts, family, "--no-deps", *pins),) if pins else ()


@check("xformers-mismatch")
def xformers_mismatch(facts: Facts) -> Iterator[Finding]:
    """xformers was built for another torch; ComfyUI then works without it."""
    package = facts.packages.get("xformers")
    if package is None or facts.torch is None or torch_fails(facts):
        return
    asked, torch = requirement_on_torch(package), facts.torch.version.split("+")[0]
    errors: tuple[str, ...] = ()
    unmet = bool(asked) and not SpecifierSet(asked).contains(torch, prereleases=True)
    if not unmet or tried(facts, "xformers") is not None:
        errors = tuple(outcome.error for _, outcome in blamed(facts, "xformers-mismatch"))
    if unmet or errors:
        yield Finding(
            Severity.WARNING,
            because=(
                f"xformers {package.version} asks for torch{asked}",
                f"torch {torch}",
                *errors,
            ),
            values={"xformers": package.version, "torch": version_and_build(facts)},
            commands=(advise.pip(facts, "uninstall", "xformers"),),
            fix="match-xformers",
        )
