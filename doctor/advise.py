"""What a person types on this layout: never `pip` of some other interpreter."""

import ntpath
import shlex
from pathlib import PurePath

from doctor.facts import Facts
from doctor.manifest import Part, System


def line(facts: Facts, *words: str) -> str:
    """One command line, quoted for the shell of the patient's system."""
    if facts.host.os == "windows":
        return " ".join(f'"{word}"' if " " in word else word for word in words)
    return shlex.join(words)


def pip(facts: Facts, *words: str) -> str:
    """pip of the patient's interpreter, with the flags its layout starts Python with."""
    python = facts.target.python or "python"
    if facts.target.layout == "portable" and facts.target.comfyui:
        python = ntpath.join("python_embeded", "python.exe")  # typed in the portable folder
    return line(facts, python, *facts.target.flags, "-m", "pip", *words)


def doctor(facts: Facts, *words: str) -> str:
    """comfy-doctor itself on the same patient."""
    where = ["--comfyui", facts.target.comfyui] if facts.target.comfyui else []
    if facts.target.python and (facts.target.named or not where):
        where += ["--python", facts.target.python]
    own = words.index("--") if "--" in words else len(words)  # what follows is main.py's
    return line(facts, "comfy-doctor", *words[:own], *where, *words[own:])


def system(facts: Facts, part: str, python: str = "") -> tuple[str, ...]:
    """What the owner types to get a part of the operating system (libGL.so.1, compiler, driver,
    venv ...) on this distribution and layout; nothing where no table tells. Never run here.

    `python` is the version the part is for, as "3.12". Raises NotKnown without facts of the host.
    """
    row = next((row for row in facts.world.parts if row.part == part), None)
    if row is None:
        return ()
    host = facts.host
    if facts.target.layout == "conda" and "conda" in row.packages:
        prefix = [] if facts.target.python is None else ["-p", prefix_of(facts.target.python)]
        words = ("conda", "install", *prefix, "-c", "conda-forge", row.packages["conda"])
        return (line(facts, *words),)
    if host.wsl and "wsl" in row.lines:  # the driver in Windows serves WSL; one of its own harms
        return tuple(row.lines["wsl"])
    if host.os != "linux":
        return tuple(row.lines.get(host.os, ()))
    here = next((s for s in facts.world.systems if any(n in host.name for n in s.names)), None)
    if here is None or (host.container and part == "driver"):  # a container has its host's
        return ()
    return on_linux(here, row, bool(host.container), python or minor(facts))


def on_linux(here: System, row: Part, container: bool, python: str) -> tuple[str, ...]:
    if here.family in row.lines:
        return tuple(f"sudo {one}" for one in row.lines[here.family])
    packages = row.packages.get(here.family, row.packages.get(here.like, ""))
    if not packages:
        return ()
    packages = packages.format(python=python)
    if not container:
        return (f"sudo {here.install} {packages}",)
    return (f"{here.install} {packages}", f"RUN {unattended(here.install)} {packages}")


def unattended(install: str) -> str:
    """As a line of a Dockerfile, without which the next container lacks it again."""
    ways = {
        "apt-get install": "apt-get update && apt-get install -y",
        "pacman -S": "pacman -Sy --noconfirm",
        "zypper install": "zypper --non-interactive install",
    }
    return ways.get(install, f"{install} -y" if install.startswith("dnf") else install)


def minor(facts: Facts) -> str:
    """ "3.12" of the interpreter, or of the one that would make a new environment."""
    version = facts.maker.version if facts.target.python is None else facts.python.version
    return ".".join(version.split(".")[:2])


def prefix_of(python: str) -> str:
    above = PurePath(python).parent
    return str(above.parent if above.name == "bin" else above)
