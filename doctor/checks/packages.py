"""Do the installed packages fit each other, this interpreter and this system?"""

import re
from collections.abc import Iterator

from packaging.utils import canonicalize_name

from doctor import advise
from doctor.check import check
from doctor.checks.causes import (
    blamed,
    brought,
    built_for,
    numpy_row,
    opencvs,
    said,
    tried,
    versions,
)
from doctor.checks.comfyui import wanted
from doctor.choice import least
from doctor.facts import Facts, Import, Package, numbers
from doctor.finding import Finding, Severity

OF_A_BUILD = re.compile(r"torch|torchvision|torchaudio|xformers|triton|nvidia-.*")  # of one index
WITHOUT = ("numpy", "pillow", "safetensors")  # nothing renders without these


@check("numpy-missing")
def numpy_missing(facts: Facts) -> Iterator[Finding]:
    """torch is there and numpy is not."""
    if facts.torch is not None and "numpy" not in facts.packages:
        yield Finding(
            Severity.ERROR,
            because=(f"torch {facts.torch.version}", f"numpy ∉ {facts.python.site}"),
            commands=(advise.pip(facts, "install", "numpy"),),
            fix="install-numpy",
        )


@check("numpy-broken")
def numpy_broken(facts: Facts) -> Iterator[Finding]:
    """numpy is installed and does not import."""
    for _, outcome in blamed(facts, "numpy-broken"):
        if "numpy" in facts.packages and not facts.imports["numpy"].ok:
            yield Finding(
                Severity.ERROR,
                because=(f"numpy {facts.packages['numpy'].version}", outcome.error),
                commands=(again(facts, "numpy"),),
                fix="install-numpy",
            )
            return


@check("numpy2-abi")
def numpy2_abi(facts: Facts) -> Iterator[Finding]:
    """A compiled module was built for the other major version of numpy."""
    sick = made_for_another_numpy(facts)
    if sick:
        numpy, built = facts.packages["numpy"].version, out_of_step(facts)
        yield Finding(
            Severity.ERROR,
            because=(f"numpy {numpy}", *(f"{m}: {outcome.error}" for m, outcome in sick.items())),
            values={
                "modules": ", ".join(f"{m}{versions(facts, m)}" for m in sick),
                "built": " / ".join(sorted(set(built.values()))),
                "numpy": numpy,
            },
            commands=tuple(dict.fromkeys(align(facts, m, built[m]) for m in sick if m != "torch")),
            fix="align-numpy",
        )


def made_for_another_numpy(facts: Facts) -> dict[str, Import]:
    """The modules that fail because of numpy's major version, torch's own bridge among them."""
    sick = dict(blamed(facts, "numpy2-abi"))
    torch = tried(facts, "torch")
    bridge = torch.detail.get("numpy_bridge", "") if torch is not None else ""
    numpy = tried(facts, "numpy")
    if bridge and "numpy" in facts.packages and numpy is not None and numpy.ok:
        sick["torch"] = Import(False, bridge)
    return sick


def out_of_step(facts: Facts) -> dict[str, str]:
    """Module -> the major version of numpy it was built for, where that is not the one here."""
    sick = made_for_another_numpy(facts)
    here = facts.packages["numpy"].version if sick else ""
    return {m: built_for(facts, said(outcome)) or other(here) for m, outcome in sick.items()}


def other(numpy: str) -> str:
    return "2" if numbers(numpy)[0] == 1 else "1"


def align(facts: Facts, module: str, built: str) -> str:
    """A newer build of the module; numpy goes down only where no newer build is known."""
    row, names = numpy_row(facts, module), list(brought(facts, module)) or [module]
    if built == "2":
        return advise.pip(facts, "install", "numpy>=2")
    if row is not None and not row.first_good and numbers(facts.python.version) < (3, 13):
        return advise.pip(facts, "install", "numpy>=1.26,<2")
    wish = f">={row.first_good}" if row is not None and row.first_good else ""
    return advise.pip(facts, "install", "--upgrade", *(f"{name}{wish}" for name in names))


@check("numpy-too-old")
def numpy_too_old(facts: Facts) -> Iterator[Finding]:
    """numpy is older than this ComfyUI needs."""
    if facts.comfyui is None or not facts.comfyui.present or "numpy" not in facts.packages:
        return
    here, floor = facts.packages["numpy"].version, least(facts, "numpy")
    asked = [s for r in wanted(facts) if r.name == "numpy" for s in r.specifier]
    lows = [s.version for s in asked if s.operator in (">=", "==")]
    lowest = max([*lows, floor], key=numbers)
    wish = f">={lowest}"
    if numbers(here) < numbers(lowest):
        yield Finding(
            Severity.ERROR,
            because=(f"numpy {here}, asked for {wish}",),
            values={"numpy": here, "asked": wish},
            commands=(advise.pip(facts, "install", f"numpy{wish}"),),
            fix="install-numpy",
        )


@check("numpy-removed-alias")
def numpy_removed_alias(facts: Facts) -> Iterator[Finding]:
    """A module uses a name that this numpy no longer has."""
    for module, outcome in blamed(facts, "numpy-removed-alias"):
        yield Finding(
            Severity.WARNING,
            because=(f"{module}: {outcome.error}",),
            values={"module": f"{module}{versions(facts, module)}"},
            commands=(advise.pip(facts, "install", "--upgrade", *brought(facts, module)),),
        )


@check("opencv-conflict")
def opencv_conflict(facts: Facts) -> Iterator[Finding]:
    """Several opencv distributions overwrite one another's cv2 folder."""
    there = opencvs(facts)
    if len(there) > 1:
        outcome = tried(facts, "cv2")
        fails = outcome is not None and not outcome.ok
        told = any(module == "cv2" for module, _ in blamed(facts, "numpy2-abi")) if fails else False
        error = (f"cv2: {outcome.error}",) if outcome is not None and fails else ()
        yield Finding(
            Severity.ERROR if fails and not told else Severity.WARNING,
            because=(*(f"{name} {package.version}" for name, package in there.items()), *error),
            values={"names": ", ".join(there), "count": str(len(there))},
            commands=(advise.doctor(facts, "fix", "opencv-conflict"),),
            fix="one-opencv",
        )


@check("package-files-corrupt")
def package_files_corrupt(facts: Facts) -> Iterator[Finding]:
    """Files that a package's own list names are absent or cut short."""
    needed = {canonicalize_name(requirement.name) for requirement in wanted(facts)} | set(WITHOUT)
    damaged = damaged_packages(facts)
    if damaged:
        names = ", ".join(f"{name} {package.version}" for name, package in damaged.items())
        ours = any(comes_again(facts, name) for name in damaged)
        doctor = (advise.doctor(facts, "fix", "package-files-corrupt"),) if ours else ()
        yield Finding(
            Severity.ERROR if hurts(facts, set(damaged), needed) else Severity.WARNING,
            because=tuple(f"{n}: {lost(p)}" for n, p in damaged.items()),
            values={"names": names},
            commands=(*doctor, again(facts, *damaged)),
            fix="install-again" if ours else "",
        )


def damaged_packages(facts: Facts) -> dict[str, Package]:
    """Installed packages that lack files, or the list of them; torch has a finding of its own."""
    clash = opencvs(facts) if len(opencvs(facts)) > 1 else {}
    return {
        name: package
        for name, package in facts.packages.items()
        if (package.missing or not package.record) and name not in clash and name[:1] not in "~-"
        if name != "torch" or not package.missing
    }


def comes_again(facts: Facts, name: str) -> bool:
    """Would its name and version bring the very same from an index, and could it be undone? Not a
    build of another index, nor what came from a folder, a file or git; nor what is there twice,
    has no list of its files, or lies outside of this environment."""
    package = facts.packages[name]
    named = package.version and "+" not in package.version and not package.source
    inside = not package.location or within(facts.python.prefix, package.location)
    once = package.record and not package.again
    return bool(named and inside and once and not OF_A_BUILD.fullmatch(name))


def within(folder: str, path: str) -> bool:
    """Does a path of either kind of system lie below a folder; .venv2 is not below .venv."""
    return path.startswith(folder) and path[len(folder.rstrip("/\\")) :][:1] in ("/", "\\")


def lost(package: Package) -> str:
    return ", ".join(package.missing[:3]) or "no RECORD, so pip can neither replace nor remove it"


def hurts(facts: Facts, damaged: set[str], needed: set[str]) -> bool:
    """Is one of them needed to start or to render, or seen to fail?"""
    if any(facts.packages[name].missing for name in damaged & needed):
        return True
    return tried(facts, "numpy") is not None and any(blamed(facts, "package-files-corrupt"))


def again(facts: Facts, *names: str) -> str:
    """The same versions once more, and nothing else with them."""
    listed = all(facts.packages[name].record for name in names)  # or pip refuses to replace them
    over = "--force-reinstall" if listed else "--ignore-installed"
    pins = (word for name in names for word in pin(name, facts.packages[name]))
    return advise.pip(facts, "install", over, "--no-deps", *pins)


def pin(name: str, package: Package) -> tuple[str, ...]:
    """What brings this package as it is: from where it came, or its version."""
    if package.source:
        editable = package.source.startswith("-e ")
        return tuple(package.source.split(" ", 1)) if editable else (f"{name} @ {package.source}",)
    return (f"{name}=={package.version}" if package.version else name,)


@check("system-lib-missing")
def system_lib_missing(facts: Facts) -> Iterator[Finding]:
    """A library of the operating system that a module needs is not there."""
    for module, outcome in blamed(facts, "system-lib-missing"):
        library = re.search(r"lib[\w.+-]+\.so[\d.]*", said(outcome))
        yield Finding(
            Severity.ERROR if module in ("torch", "numpy", "cv2") else Severity.WARNING,
            because=(f"{module}: {outcome.error}",),
            values={"module": module, "library": library[0] if library else "?"},
            commands=advise.system(facts, library[0] if library else ""),
        )


@check("glibcxx-glibc-too-old")
def glibcxx_glibc_too_old(facts: Facts) -> Iterator[Finding]:
    """A module was built for a newer C or C++ library than this system has."""
    for module, outcome in blamed(facts, "glibcxx-glibc-too-old"):
        yield Finding(
            Severity.ERROR if module == "torch" else Severity.WARNING,
            because=(f"{module}: {outcome.error}", f"{facts.host.name}, {facts.host.libc}"),
            values={"module": module, "system": facts.host.name},
        )


@check("windows-dll-missing")
def windows_dll_missing(facts: Facts) -> Iterator[Finding]:
    """Windows does not find or cannot start a DLL that a module needs."""
    for module, outcome in blamed(facts, "windows-dll-missing"):
        yield Finding(
            Severity.ERROR if module == "torch" else Severity.WARNING,
            because=(f"{module}: {outcome.error}",),
            values={"module": module},
        )


@check("mounted-noexec")
def mounted_noexec(facts: Facts) -> Iterator[Finding]:
    """The disk that holds the packages is mounted so that no library on it may be loaded."""
    lost = dict(blamed(facts, "mounted-noexec"))
    if lost:
        yield Finding(
            Severity.ERROR,
            because=tuple(f"{m}: {outcome.error}" for m, outcome in list(lost.items())[:3]),
            values={"site": facts.python.site},
        )


@check("extension-for-another-torch")
def extension_for_another_torch(facts: Facts) -> Iterator[Finding]:
    """A compiled add-on was built for another torch; ComfyUI works without it."""
    for module, outcome in blamed(facts, "extension-for-another-torch"):
        yield Finding(
            Severity.WARNING,
            because=(f"{module}{versions(facts, module)}: {outcome.error}",),
            commands=(advise.pip(facts, "uninstall", *brought(facts, module)),)
            if brought(facts, module)
            else (),
        )


@check("onnxruntime-gpu")
def onnxruntime_gpu(facts: Facts) -> Iterator[Finding]:
    """onnxruntime does not import."""
    for module, outcome in blamed(facts, "onnxruntime-gpu"):
        there = versions(facts, module)
        yield Finding(
            Severity.WARNING,
            because=(f"{module}{there}: {outcome.error}",),
            commands=(advise.pip(facts, "install", "--upgrade", *brought(facts, module)),),
        )


@check("import-fails")
def import_fails(facts: Facts) -> Iterator[Finding]:
    """An installed module does not import, for a reason no other finding names."""
    needed = {canonicalize_name(requirement.name) for requirement in wanted(facts)} | set(WITHOUT)
    for module, outcome in blamed(facts, "import-fails"):
        hurts = bool(needed & brought(facts, module).keys())
        yield Finding(
            Severity.ERROR if hurts else Severity.WARNING,
            because=(f"{module}{versions(facts, module)}: {outcome.error}",),
            values={"module": module},
            commands=tuple(again(facts, name) for name in brought(facts, module)),
        )
