"""Wishes: what requirement files ask for, line by line, with whose wish it is. Pure.

The format is pip's (documentation, "Requirements File Format"): comments, continuations, options,
markers, addresses. What an option asks of pip is not a wish; it is kept apart and told.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

OPTION = re.compile(r"^(-|--)\w")
ADDRESS = re.compile(r"^(git|hg|svn|bzr)\+|^(https?|file|ssh)://", re.IGNORECASE)
COMMENT = re.compile(r"(^|\s)#.*$")
EGG = re.compile(r"[#&]egg=([A-Za-z0-9._-]+)")
INCLUDE = re.compile(r"^(?:(-r|-c)\s*|(--requirement|--constraint)[ =]\s*)(?P<file>\S.*)$")
PER_LINE = re.compile(r"\s+--(?:hash|config-settings?|global-option)[= ].*$")


@dataclass(frozen=True)
class Wish:
    """One line of a requirements file."""

    text: str  # without its comment
    file: str
    line: int
    pack: str = ""  # the node pack it belongs to; "" for ComfyUI itself and the user's own file
    kind: str = "requirement"  # requirement, constraint, address, editable, option, unreadable

    @property
    def requirement(self) -> Requirement | None:
        try:
            return Requirement(self.text)
        except InvalidRequirement:
            return None

    @property
    def name(self) -> str:
        """The distribution wished for, normalised (PEP 503); "" where the line names none."""
        asked = self.requirement
        if asked:
            return canonicalize_name(asked.name)
        egg = EGG.search(self.text)
        last = self.text.partition("#")[0].rpartition("/")[2]
        wheel = last.partition("-")[0] if last.endswith(".whl") else ""
        return canonicalize_name(egg[1] if egg else wheel)

    @property
    def includes(self) -> str:
        """The file that an option names: -r FILE, -c FILE; "" of any other line."""
        found = INCLUDE.match(self.text) if self.kind == "option" else None
        return found["file"].strip() if found else ""

    @property
    def constrains(self) -> bool:
        return self.text.startswith(("-c", "--constraint"))

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


def read(text: str, file: str, pack: str = "") -> Iterator[Wish]:
    """The lines of a requirements.txt that say something."""
    for number, line in joined(text.splitlines()):
        said = COMMENT.sub("", line).strip()
        if said:
            yield Wish(PER_LINE.sub("", said).strip(), file, number, pack, kind(said))


def joined(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; one that ends in a backslash goes on in the next."""
    start, held = 0, ""
    for number, line in enumerate(lines, 1):
        start = start if held else number
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        yield start, held + line
        held = ""
    if held:
        yield start, held


def kind(said: str) -> str:
    if said.startswith(("-e ", "--editable")):
        return "editable"
    if OPTION.match(said):
        return "option"
    if ADDRESS.match(said):
        return "address"
    try:
        asked = Requirement(PER_LINE.sub("", said).strip())
    except InvalidRequirement:
        return "address" if said.startswith((".", "/")) or said.endswith(".whl") else "unreadable"
    return "address" if asked.url else "requirement"


def of_project(dependencies: Iterable[str], file: str, pack: str) -> Iterator[Wish]:
    """The `dependencies` of a pyproject.toml (PEP 621); its lines are counted from 1."""
    for number, text in enumerate(dependencies, 1):
        yield Wish(text.strip(), file, number, pack, kind(text.strip()))


def of_name(wishes: Iterable[Wish], name: str) -> tuple[Wish, ...]:
    return tuple(wish for wish in wishes if wish.name == name)
