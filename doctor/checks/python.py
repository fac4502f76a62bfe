"""Is there an interpreter, does it answer, and can ComfyUI and torch live in it?"""

from collections.abc import Iterator

from doctor import advise
from doctor.check import check
from doctor.checks.causes import has_torch
from doctor.choice import least
from doctor.facts import UNASKED, Facts, Unknown, numbers
from doctor.finding import Finding, Severity


def silent_interpreter(facts: Facts) -> str:
    """Why an interpreter that is there does not answer; "" where it does."""
    if facts.target.python is None:
        return ""
    if isinstance(facts.python, Unknown) and facts.python is not UNASKED:
        return facts.python.why
    return "" if facts.python.version else "it tells no version"


def minor(facts: Facts) -> str:
    return ".".join(facts.python.version.split(".")[:2])


@check("python-missing")
def python_missing(facts: Facts) -> Iterator[Finding]:
    """No interpreter was found for this installation."""
    if facts.target.python is None:
        looked = f"{facts.target.why}" or "no venv, no embedded Python, no running process"
        yield Finding(
            Severity.ERROR,
            because=(looked,),
            commands=(advise.doctor(facts, "fix", "python-missing"),),
            fix="make-venv",
        )


@check("venv-broken")
def venv_broken(facts: Facts) -> Iterator[Finding]:
    """The virtual environment is there, and its interpreter does not answer."""
    why = silent_interpreter(facts)
    if why and facts.target.layout == "venv":
        yield Finding(
            Severity.ERROR,
            because=(f"{facts.target.python}: {why}",),
            values={"python": str(facts.target.python)},
            commands=(advise.doctor(facts, "fix", "venv-broken"),),
            fix="make-venv",
        )


@check("python-broken")
def python_broken(facts: Facts) -> Iterator[Finding]:
    """The interpreter is there and does not answer."""
    why = silent_interpreter(facts)
    if why and facts.target.layout != "venv":
        yield Finding(
            Severity.ERROR,
            because=(f"{facts.target.python}: {why}",),
            values={"python": str(facts.target.python)},
        )


@check("python-unsupported")
def python_unsupported(facts: Facts) -> Iterator[Finding]:
    """This Python is too old for ComfyUI, is no CPython, or is no longer looked after."""
    floor, here = least(facts, "python"), facts.python.version
    life = next((row for row in facts.world.pythons if row.version == minor(facts)), None)
    values = {"version": here, "least": floor}
    if facts.python.implementation != "cpython":
        because = (f"{facts.python.implementation} {here}; torch is published for CPython",)
        yield Finding(Severity.ERROR, because, values, fix="make-venv")
    elif numbers(here) < numbers(floor):
        yield Finding(Severity.ERROR, (f"Python {here} < {floor}",), values, fix="make-venv")
    elif life is not None and life.ends < life.checked[:7]:
        because = (f"Python {minor(facts)}: no security fixes after {life.ends}",)
        yield Finding(Severity.INFO, because, values)


@check("python-version-no-wheel")
def python_version_no_wheel(facts: Facts) -> Iterator[Finding]:
    """torch has no wheels for this Python: it is 32-bit, or newer than any release knows."""
    known = {python for release in facts.world.releases for python in release.python}
    newest = max((p for p in known if p[-1].isdigit()), key=numbers, default="")
    values = {"version": facts.python.version}
    if facts.python.bits != 64:
        because: tuple[str, ...] = (f"Python {facts.python.version}, {facts.python.bits}-bit",)
        yield Finding(Severity.ERROR, because, values, fix="make-venv")
    elif newest and numbers(minor(facts)) > numbers(newest) and not has_torch(facts):
        because = (f"Python {facts.python.version}", f"torch has wheels up to Python {newest}")
        yield Finding(Severity.ERROR, because, values, fix="make-venv")


@check("pip-missing-in-venv")
def pip_missing_in_venv(facts: Facts) -> Iterator[Finding]:
    """The environment has no pip; node managers that call `python -m pip` cannot install."""
    if not facts.python.pip:
        yield Finding(
            Severity.INFO,
            because=(f"no module named pip in {facts.python.site}",),
            commands=(advise.line(facts, str(facts.target.python), "-m", "ensurepip"),),
        )


@check("pep668-externally-managed")
def pep668_externally_managed(facts: Facts) -> Iterator[Finding]:
    """The interpreter belongs to the operating system, which refuses pip in it (PEP 668)."""
    if facts.python.externally_managed and not facts.python.in_venv:
        yield Finding(
            Severity.WARNING if facts.torch is None else Severity.INFO,
            because=(
                f"{facts.python.executable}: EXTERNALLY-MANAGED",
                "sys.prefix is the system's",
            ),
            values={"python": facts.python.executable},
            commands=(advise.line(facts, facts.python.executable, "-m", "venv", ".venv"),),
            fix="make-venv" if facts.comfyui is not None else "",
        )


@check("python-incomplete")
def python_incomplete(facts: Facts) -> Iterator[Finding]:
    """This Python was built without parts of the standard library that ComfyUI or pip need."""
    if facts.python.lacks and facts.python.implementation == "cpython":
        severe = {"_ctypes", "_ssl", "zlib"} & set(facts.python.lacks)  # numpy, pip, zip files
        yield Finding(
            Severity.ERROR if severe else Severity.WARNING,
            because=(f"{facts.python.executable} without {', '.join(facts.python.lacks)}",),
            fix="make-venv" if facts.comfyui is not None and facts.python.in_venv else "",
        )
