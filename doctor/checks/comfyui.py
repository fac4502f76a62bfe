"""Is ComfyUI there, and are the packages its requirements.txt names?"""

import ntpath
import posixpath
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from doctor import advise
from doctor.check import check
from doctor.checks.causes import has_torch
from doctor.facts import Facts
from doctor.finding import Finding, Severity

TORCH_FAMILY = frozenset({"torch", "torchvision", "torchaudio"})  # judged in checks/torch.py
FRONTEND = "comfyui-frontend-package"
PLATFORMS = {
    "linux": ("linux", "Linux"),
    "windows": ("win32", "Windows"),
    "macos": ("darwin", "Darwin"),
}


def wanted(facts: Facts) -> Iterator[Requirement]:
    """The lines of requirements.txt that name a package and hold for this interpreter.

    Options, comments, bare addresses and lines nobody can read are passed over.
    """
    if facts.comfyui is None or not facts.comfyui.present:
        return
    platform = surroundings(facts)
    for line in facts.comfyui.requirements:
        text = line.split(" #")[0].strip()
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate(platform):
            yield requirement


def surroundings(facts: Facts) -> dict[str, str]:
    """The values of environment markers in the patient, not in the doctor."""
    sys_platform, system = PLATFORMS.get(facts.host.os, ("", ""))
    return {
        "python_version": ".".join(facts.python.version.split(".")[:2]),
        "python_full_version": facts.python.version,
        "implementation_name": facts.python.implementation,
        "os_name": "nt" if facts.host.os == "windows" else "posix",
        "sys_platform": sys_platform,
        "platform_system": system,
        "platform_machine": facts.host.machine,
    }


def missing(facts: Facts) -> tuple[Requirement, ...]:
    """Requirements that are not there; torch's own, and numpy beside it, are told elsewhere."""
    elsewhere = TORCH_FAMILY | ({"numpy"} if has_torch(facts) else set())
    return tuple(
        requirement
        for requirement in wanted(facts)
        if (name := canonicalize_name(requirement.name)) not in elsewhere
        and name not in facts.packages
    )


def mismatched(facts: Facts) -> Iterator[tuple[Requirement, str, bool]]:
    """(requirement, installed version, is it older than asked for?) where they do not agree."""
    for requirement in wanted(facts):
        package = facts.packages.get(canonicalize_name(requirement.name))
        if package is None or requirement.url or not version(package.version):
            continue
        if not requirement.specifier.contains(package.version, prereleases=True):
            asked = [
                v for s in requirement.specifier if (v := version(s.version.removesuffix(".*")))
            ]
            here = Version(package.version)
            yield requirement, package.version, any(here < least for least in asked)


def version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def outside(wish: Requirement, here: str) -> bool:
    """Is an installed version none of those asked for? One that cannot be read is not judged."""
    return bool(version(here)) and not wish.specifier.contains(here, prereleases=True)


def install(facts: Facts, id: str) -> tuple[str, ...]:
    """What a person types. pip by hand only where the whole torch family is there: else pip would
    fetch what is missing of it from the default index, and with it another torch."""
    asked = {canonicalize_name(requirement.name) for requirement in wanted(facts)}
    if facts.comfyui is None or not (asked & TORCH_FAMILY) <= facts.packages.keys():
        return (advise.doctor(facts, "fix", id),)
    join = ntpath.join if facts.host.os == "windows" else posixpath.join
    return (advise.pip(facts, "install", "-r", join(facts.comfyui.path, "requirements.txt")),)


@check("comfyui-missing")
def comfyui_missing(facts: Facts) -> Iterator[Finding]:
    """The folder holds no ComfyUI (yet)."""
    if facts.comfyui is not None and not facts.comfyui.present:
        what = "the folder is empty" if facts.comfyui.empty else "no main.py in it"
        repository = facts.world.core[0].repository
        yield Finding(
            Severity.ERROR,
            because=(f"{facts.comfyui.path}: {what}",),
            values={"path": facts.comfyui.path},
            commands=(advise.line(facts, "git", "clone", repository, facts.comfyui.path),),
            fix="get-comfyui",
        )


@check("core-requirement-missing")
def core_requirement_missing(facts: Facts) -> Iterator[Finding]:
    """Packages of requirements.txt are not in the interpreter that runs ComfyUI."""
    absent = missing(facts)
    lenient = {row.package for row in facts.world.lenient}
    names = [requirement.name for requirement in absent]
    if absent and names != [FRONTEND]:
        soft = all(canonicalize_name(name) in lenient for name in names)
        yield Finding(
            Severity.WARNING if soft else Severity.ERROR,
            because=(
                f"{len(absent)} of {len(tuple(wanted(facts)))} are not in {facts.python.site}",
                ", ".join(map(str, absent)),
            ),
            values={"count": str(len(absent)), "names": shortened(names)},
            commands=install(facts, "core-requirement-missing"),
            fix="install-requirements",
        )


@check("core-requirement-version")
def core_requirement_version(facts: Facts) -> Iterator[Finding]:
    """A package of requirements.txt has another version than the one asked for."""
    lenient = {row.package for row in facts.world.lenient}
    told_elsewhere = TORCH_FAMILY | {"numpy", FRONTEND}
    wrong = [
        (requirement, here, older and canonicalize_name(requirement.name) not in lenient)
        for requirement, here, older in mismatched(facts)
        if canonicalize_name(requirement.name) not in told_elsewhere
    ]
    if wrong:
        yield Finding(
            Severity.ERROR if any(severe for _, _, severe in wrong) else Severity.WARNING,
            because=tuple(
                f"{req.name} {here}, asked for {req.specifier}" for req, here, _ in wrong
            ),
            values={"names": shortened([requirement.name for requirement, _, _ in wrong])},
            commands=install(facts, "core-requirement-version"),
            fix="install-requirements",
        )


@check("frontend-package-missing")
def frontend_package_missing(facts: Facts) -> Iterator[Finding]:
    """ComfyUI's web page is a package of its own, and it alone is not installed."""
    if [requirement.name for requirement in missing(facts)] == [FRONTEND]:
        yield Finding(
            Severity.ERROR,
            because=(f"{FRONTEND} is not in {facts.python.site}",),
            commands=install(facts, "frontend-package-missing"),
            fix="install-requirements",
        )


@check("frontend-version-mismatch")
def frontend_version_mismatch(facts: Facts) -> Iterator[Finding]:
    """The web page is older than the version this ComfyUI asks for."""
    for requirement, here, older in mismatched(facts):
        if canonicalize_name(requirement.name) == FRONTEND and older:
            yield Finding(
                Severity.WARNING,
                because=(f"{FRONTEND} {here}, asked for {requirement.specifier}",),
                values={"here": here, "asked": str(requirement.specifier)},
                commands=install(facts, "frontend-version-mismatch"),
                fix="install-requirements",
            )


def shortened(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
