"""Does something around ComfyUI get in the way: other Pythons, variables, stray files, its path?"""

import re
from collections.abc import Iterator

from doctor import advise
from doctor.check import check
from doctor.facts import Facts
from doctor.finding import Finding, Severity

USER_SITE = re.compile(r"[/\\]\.local[/\\]lib[/\\]python|AppData[/\\]Roaming[/\\]Python")
LONG = 120  # a path this long leaves too little of Windows' 260 for what node packs unpack


@check("two-pythons-mixed")
def two_pythons_mixed(facts: Facts) -> Iterator[Finding]:
    """Packages of another Python, or of the user's own folder, get into this one."""
    ways = tuple(
        f"{name}={facts.environment[name]}"
        for name in ("PYTHONPATH", "PYTHONHOME")
        if facts.environment.get(name)
    )
    strangers = sorted(
        name for name, package in facts.packages.items() if USER_SITE.search(package.location)
    )
    if strangers and facts.python.in_venv:
        places = {facts.packages[name].location for name in strangers}
        ways += tuple(f"{', '.join(strangers[:6])} in {place}" for place in sorted(places))
    ways += facts.python.paths
    other, ended = another_active(facts), facts.python.led_astray
    if ended:
        yield Finding(Severity.ERROR, because=(*ways, f"with it, Python ends: {ended}"))
    elif ways or other:
        yield Finding(Severity.WARNING if ways else Severity.INFO, because=(*ways, *other))


def another_active(facts: Facts) -> tuple[str, ...]:
    """The environment that this console has activated, where it is neither the one judged nor the
    doctor's own: a bare `pip install` goes there."""
    active = facts.environment.get("VIRTUAL_ENV", "")
    if not active or active == facts.python.prefix or facts.maker.executable.startswith(active):
        return ()
    return (f"VIRTUAL_ENV={active}, judged: {facts.python.prefix}",)


@check("module-shadowed")
def module_shadowed(facts: Facts) -> Iterator[Finding]:
    """A file beside main.py has the name of a module, and is imported instead of it."""
    if facts.folder is not None and facts.folder.shadows:
        yield Finding(
            Severity.ERROR,
            because=tuple(f"{name} beside main.py" for name in facts.folder.shadows),
        )


@check("package-leftovers")
def package_leftovers(facts: Facts) -> Iterator[Finding]:
    """Folders that an interrupted pip left in site-packages: their names begin with ~."""
    left = sorted(name for name in facts.packages if name.startswith(("~", "-")))
    if left:
        yield Finding(Severity.INFO, because=(f"{', '.join(left[:8])} in {facts.python.site}",))


@check("library-path")
def library_path(facts: Facts) -> Iterator[Finding]:
    """LD_LIBRARY_PATH or LD_PRELOAD put other CUDA libraries before those of torch."""
    variables = ("LD_LIBRARY_PATH", "LD_PRELOAD")
    own = {name: facts.environment.get(name, "") for name in variables}
    led = tuple(f"{name}={value}" for name, value in own.items() if re.search("cud|nvidia", value))
    if led and facts.torch is not None and facts.torch.build.startswith("cu"):
        yield Finding(Severity.INFO, because=led)


@check("non-ascii-path")
def non_ascii_path(facts: Facts) -> Iterator[Finding]:
    """On Windows, a path with other letters than ASCII, which compiled libraries cannot open."""
    path = facts.comfyui.path if facts.comfyui is not None else ""
    if not path.isascii() and facts.host.os == "windows":
        yield Finding(Severity.WARNING, because=(path,))


@check("windows-long-path")
def windows_long_path(facts: Facts) -> Iterator[Finding]:
    """On Windows, a path that leaves node packs too little of the 260 signs there are."""
    path = facts.comfyui.path if facts.comfyui is not None else ""
    if len(path) > LONG and facts.host.os == "windows":
        yield Finding(
            Severity.WARNING,
            because=(f"{len(path)} signs: {path}",),
            commands=advise.system(facts, "long-paths"),
        )


@check("listening-publicly")
def listening_publicly(facts: Facts) -> Iterator[Finding]:
    """The ComfyUI that runs here listens to every network, and asks nobody who they are."""
    by = facts.port.by
    asked = re.search(r"--listen\b(?:[= ](?![-(])(\S+))?", by)
    if facts.comfyui is None or "main.py" not in by or asked is None:
        return
    if not re.match(r"127\.|localhost|::1", asked[1] or "0.0.0.0"):
        yield Finding(Severity.WARNING, because=(by,))
