"""Bring packages in line, with torch held exactly where it is."""

from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from doctor.checks.causes import brought, numpy_row
from doctor.checks.comfyui import mismatched, missing, surroundings, wanted
from doctor.checks.packages import comes_again, damaged_packages, out_of_step
from doctor.choice import least
from doctor.facts import Facts, numbers
from doctor.fix import CannotFix, fix
from doctor.step import Packages, Step

HELD = ("torch", "torchvision", "torchaudio", "xformers", "triton")  # and nvidia-*
OPENCV = (  # the fuller one first: it serves whoever wanted another
    "opencv-contrib-python",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-python-headless",
)


def holds(facts: Facts, *but: str) -> tuple[str, ...]:
    """Exact pins of torch's family, build tag included, and of everything CUDA it came with."""
    return tuple(
        f"{name}=={package.version}"
        for name, package in sorted(facts.packages.items())
        if (name in HELD or name.startswith("nvidia-")) and name not in but
    )


def interpreter(facts: Facts) -> str:
    if facts.target.python is None:
        raise CannotFix("there is no interpreter to install into")
    return facts.target.python


def asked_of(facts: Facts, name: str) -> SpecifierSet:
    """What ComfyUI and all installed packages together ask of one of them."""
    specifiers, here = SpecifierSet(), surroundings(facts)
    for wish in wanted(facts):
        if wish.name.lower() == name:
            specifiers &= wish.specifier
    for package in facts.packages.values():
        for text in package.requires:
            try:
                wish = Requirement(text)
            except InvalidRequirement:
                continue
            plain = wish.marker is None or "extra" not in str(wish.marker)
            if (
                wish.name.lower() == name
                and plain
                and (not wish.marker or wish.marker.evaluate(here))
            ):
                specifiers &= wish.specifier
    return specifiers


@fix("install-numpy")
def install_numpy(facts: Facts) -> Iterator[Step]:
    """Install the newest numpy that ComfyUI and everything installed accept."""
    wanted = asked_of(facts, "numpy") & SpecifierSet(f">={least(facts, 'numpy')}")
    damaged = "numpy" in facts.packages and bool(facts.packages["numpy"].missing)
    yield Packages(interpreter(facts), wants=(f"numpy{wanted}",), holds=holds(facts), anew=damaged)


@fix("install-again")
def install_again(facts: Facts) -> Iterator[Step]:
    """Install the same versions of damaged packages once more, and nothing else with them."""
    damaged = damaged_packages(facts).items()
    pins = (f"{name}=={package.version}" for name, package in damaged if comes_again(facts, name))
    yield Packages(interpreter(facts), wants=tuple(pins), holds=holds(facts), anew=True)


@fix("align-numpy")
def align_numpy(facts: Facts) -> Iterator[Step]:
    """Newer builds of the modules that were made for the other numpy; numpy itself moves only
    where no such build is known."""
    wants: dict[str, str] = {}
    for module, built in out_of_step(facts).items():
        row, names = numpy_row(facts, module), list(brought(facts, module)) or [module]
        if built == "2":
            wants["numpy"] = "numpy>=2"
        elif row is not None and row.first_good:
            wants |= {name: f"{name}>={row.first_good}" for name in names}
        elif numbers(facts.python.version) >= (3, 13):
            raise CannotFix(f"{module} knows only numpy 1, which Python 3.13 does not have")
        else:
            wants["numpy"] = f"numpy<2,>={least(facts, 'numpy')}"
    kept = () if "numpy" in wants else (f"numpy=={facts.packages['numpy'].version}",)
    yield Packages(interpreter(facts), wants=tuple(wants.values()), holds=(*holds(facts), *kept))


@fix("one-opencv")
def one_opencv(facts: Facts) -> Iterator[Step]:
    """Take out every opencv distribution and put one back: the fullest of them."""
    there = [name for name in OPENCV if name in facts.packages]
    numpy = facts.packages.get("numpy")
    held = (*holds(facts), *((f"numpy=={numpy.version}",) if numpy else ()))
    yield Packages(
        interpreter(facts), removes=tuple(there), wants=(there[0],), holds=held, anew=True
    )


@fix("install-requirements")
def install_requirements(facts: Facts) -> Iterator[Step]:
    """Install what ComfyUI's requirements.txt asks and this interpreter lacks; torch stays."""
    wrong = (requirement for requirement, _, _ in mismatched(facts))
    unmet = tuple(str(r) for r in (*missing(facts), *wrong) if r.name not in HELD)
    if not unmet:
        raise CannotFix("requirements.txt asks for nothing that is not there")
    yield Packages(interpreter(facts), wants=unmet, holds=holds(facts))
