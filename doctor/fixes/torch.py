"""Put the right torch in place, or the interpreter that will hold it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from packaging.requirements import Requirement

from doctor.accelerators import built_for_this, triton
from doctor.checks.torch import COMPANIONS, misfits
from doctor.choice import Family, NoChoice, choose, installed
from doctor.facts import Facts
from doctor.fix import CannotFix, fix
from doctor.fixes.packages import holds
from doctor.step import MakeVenv, Move, Packages, Step

TO_RENDER = ("safetensors", "pillow")  # beside torch and numpy: what a render cannot do without


@fix("make-venv")
def make_venv(facts: Facts) -> Iterator[Step]:
    """Make DIR/.venv with the Python that runs the doctor, and put the right torch into it."""
    if facts.target.comfyui is None:
        raise CannotFix("no folder is named that the environment could belong to: --comfyui DIR")
    place = Path(facts.target.comfyui, ".venv")
    if facts.target.python is not None and Path(facts.target.python).is_relative_to(place):
        aside = Path(facts.target.comfyui, ".comfy-doctor", "set-aside", place.name)
        yield Move(str(place), str(aside))
    yield MakeVenv(str(place), facts.maker.executable)
    python = str(python_in(place, facts.host.os))
    yield family_into(replace(facts, python=facts.maker), python, *TO_RENDER)


@fix("install-torch")
def install_torch(facts: Facts) -> Iterator[Step]:
    """Install the newest torch that this driver, card and Python can run, with its companions."""
    if facts.target.python is None:
        raise CannotFix("there is no interpreter to install it into")
    yield family_into(facts, facts.target.python, anew=facts.torch is not None)


@fix("match-companions")
def match_companions(facts: Facts) -> Iterator[Step]:
    """Replace torchvision and torchaudio by those of the torch that is there, which stays. Where
    no index holds that build, the wrong ones go all the same: absent is better than wrong."""
    family = installed(facts)
    if family is None or facts.target.python is None:
        raise CannotFix("which companions belong to this torch is not known")
    wrong = [name for name in COMPANIONS if any(misfits(facts, name))]
    yield Packages(
        facts.target.python,
        removes=tuple(wrong),
        wishes=tuple(pin for pin in family.pins if pin.partition("==")[0] in wrong),
        holds=holds(facts, *wrong),
        indexes=indexes(facts, family),
        build=family.build,
    )


@fix("match-xformers")
def match_xformers(facts: Facts) -> Iterator[Step]:
    """Install the xformers that was built for exactly this torch, which stays, from the index of
    its build; where there is none, take xformers out: ComfyUI works without it."""
    fitting = built_for_this(facts, "xformers")
    yield from beside_torch(facts, fitting, ("xformers",))


@fix("match-triton")
def match_triton(facts: Facts) -> Iterator[Step]:
    """Install the triton that this torch asks for; where there is none, take out what wants it."""
    yield from beside_torch(facts, triton(facts), ("sageattention", "sageattn3"))


def beside_torch(facts: Facts, fitting: str, droppable: tuple[str, ...]) -> Iterator[Step]:
    family = installed(facts)
    if facts.target.python is None:
        raise CannotFix("there is no interpreter to change")
    there = tuple(name for name in droppable if name in facts.packages)
    if not fitting or family is None:
        yield Packages(facts.target.python, removes=there)
        return
    usual = any((r.torch, r.default) == (family.torch, family.build) for r in facts.world.releases)
    named = indexes(facts, family)
    yield Packages(
        facts.target.python,
        wants=(fitting,),
        holds=holds(facts, Requirement(fitting).name),
        anew=True,  # alone, without what it asks of torch; and anew where only its build is wrong
        indexes=named if usual or family.index == "" else named[:-1],  # "" is for the usual build
        build=family.build,
    )


def python_in(venv: Path, os: str) -> Path:
    return venv / ("Scripts/python.exe" if os == "windows" else "bin/python")


def family_into(facts: Facts, python: str, *more: str, anew: bool = False) -> Packages:
    """torch, and as far as they can be had of the same build, torchvision and torchaudio."""
    try:
        family = choose(facts)
    except NoChoice as why:
        raise CannotFix(str(why)) from why
    torch, *companions = family.pins
    return Packages(
        python,
        wants=(torch, "numpy", *more),
        wishes=tuple(companions),
        indexes=indexes(facts, family),
        build=family.build,
        anew=anew,
    )


def indexes(facts: Facts, family: Family) -> tuple[str, ...]:
    """PyTorch's own index of that build, its mirrors, then what pip is configured to use."""
    routes = facts.world.routes(family.index + "/", "wheels") if family.index else ()
    return (*(route.rstrip("/") for route in routes), "")
