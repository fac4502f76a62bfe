"""Which entries of an archive are harmless: names, links, clashes, the folder around everything.

Pure: from entries to entries, or Refused. The rules are the strictest of the three systems, so that
an archive is taken or refused everywhere alike (names that only Windows keeps for itself are asked
there alone). What is refused and why: git's verify_path (read-cache.c) and tarfile's data filter
(PEP 706) say the same of most.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from doctor.facts import Refusal
from doctor.tree import FOLDER, LINK


class Refused(Refusal):
    """An archive that is not unpacked: one word, the entry it is about, and a sentence."""

    def __init__(self, reason: str, name: str, why: str) -> None:
        super().__init__(f"{name!a} {why}" if name else why)
        self.reason, self.name, self.why = reason, name, why


@dataclass(frozen=True)
class Entry:
    """`mode` is git's; `key` says where its bytes are (zip: its number, tar: the offset)."""

    name: str
    mode: int
    size: int = 0
    key: int = 0
    target: str = ""


LONGEST_NAME, LONGEST_PART, DEEPEST = 1024, 255, 64
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?")
GIT_FOLDER = re.compile(r"(?i)\.git[. ]*|git~[0-9]+")


def encodable(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def hidden(name: str) -> bool:
    """Control characters, and those that are not seen (direction marks, zero width)."""
    return any(unicodedata.category(letter) in ("Cc", "Cf") for letter in name)


NAME_RULES = (
    ("nul", lambda name: "\0" in name, "has a NUL in its name"),
    ("encoding", lambda name: not encodable(name), "has a name that is not UTF-8"),
    ("hidden", hidden, "has characters in its name that nobody sees"),
    ("backslash", lambda name: "\\" in name, "has a backslash in its name"),
    ("absolute", lambda name: name.startswith("/"), "has an absolute name"),
    ("drive", lambda name: bool(re.match(r"[A-Za-z]:", name)), "has a drive letter in its name"),
    ("colon", lambda name: ":" in name, "has a colon in its name (a stream, on Windows)"),
    ("long", lambda name: len(name.encode("utf-8")) > LONGEST_NAME, "has a name too long"),
    ("deep", lambda name: name.count("/") > DEEPEST, "lies too deep"),
)
PART_RULES = (
    ("dots", lambda part: part == "..", "climbs with '..'"),
    ("empty", lambda part: part in ("", "."), "has an empty part in its name"),
    ("long", lambda part: len(part.encode("utf-8")) > LONGEST_PART, "has a name too long"),
    ("trailing", lambda part: part[-1] in " .", "ends in a dot or a space"),
    ("git", lambda part: bool(GIT_FOLDER.fullmatch(part)), "is git's own folder"),
)


def check_name(name: str, windows: bool = os.name == "nt") -> str:
    """The name without a leading "./" and a trailing "/", or Refused."""
    for reason, wrong, why in NAME_RULES:
        if wrong(name):
            raise Refused(reason, name, why)
    plain = name.removeprefix("./").removesuffix("/")
    for part in plain.split("/") if plain not in ("", ".") else ():
        for reason, wrong, why in PART_RULES:
            if wrong(part):
                raise Refused(reason, name, why)
        if windows and RESERVED.fullmatch(part):
            raise Refused("reserved", name, "is a name that Windows keeps for a device")
    return "" if plain == "." else plain


def same(name: str) -> str:
    """One spelling for names that some disk takes for the same (case, composed letters)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def check_clashes(entries: Sequence[Entry]) -> None:
    """No name twice, none that another disk takes for the same, nothing below a file or link."""
    spelled: dict[str, str] = {}
    kinds = {entry.name: entry.mode for entry in entries}
    seen: set[str] = set()
    for entry in entries:
        if (entry.name in seen and entry.mode != FOLDER) or kinds[entry.name] != entry.mode:
            raise Refused("duplicate", entry.name, "is there twice")
        seen.add(entry.name)
        parts = entry.name.split("/")
        for above in ("/".join(parts[:count]) for count in range(1, len(parts) + 1)):
            if spelled.setdefault(same(above), above) != above:
                other = spelled[same(above)]
                raise Refused("clash", above, f"and {other!a} are one name on some disks")
            if above != entry.name and kinds.get(above, FOLDER) != FOLDER:
                raise Refused("below", entry.name, f"lies below {above!a}, no folder")


def peeled(entries: Sequence[Entry]) -> list[Entry]:
    """Without the one folder around everything, and without the same folder within it.

    Archives of git hosts hold NAME-REF/; unpacked and packed again by hand, NAME-REF/NAME-REF/.
    """
    entries = [entry for entry in entries if entry.name.split("/")[0] not in ("", "__MACOSX")]
    top = around(entries)
    if top:
        entries = below(entries, top)
        if around(entries) == top:
            entries = below(entries, top)
    return entries


def around(entries: Sequence[Entry]) -> str:
    """The one top folder, or "" where there is none or more than one."""
    tops = {entry.name.split("/")[0] for entry in entries}
    only = len(tops) == 1 and all(e.mode == FOLDER for e in entries if "/" not in e.name)
    return tops.pop() if only else ""


def below(entries: Iterable[Entry], top: str) -> list[Entry]:
    inside = (replace(entry, name=entry.name[len(top) + 1 :]) for entry in entries)
    return [entry for entry in inside if entry.name]


def check_links(entries: Sequence[Entry]) -> None:
    """A link stays below the root, and does not lead through another link."""
    links = {entry.name for entry in entries if entry.mode == LINK}
    for entry in entries:
        if entry.mode == LINK:
            check_link(entry, links)


def check_link(entry: Entry, links: set[str]) -> None:
    target = entry.target
    if not target or not encodable(target) or hidden(target) or set(target) & set("\\:"):
        raise Refused("link", entry.name, f"links to {target!a}")
    if target.startswith("/"):
        raise Refused("link", entry.name, f"links to the absolute {target!a}")
    where = entry.name.split("/")[:-1]
    parts = [part for part in target.split("/") if part not in ("", ".")]
    for place, part in enumerate(parts, start=1):
        if part == ".." and not where:
            raise Refused("link", entry.name, f"links out of the archive, to {target!a}")
        where = where[:-1] if part == ".." else [*where, part]
        if "/".join(where) in links and place < len(parts):
            raise Refused("link", entry.name, f"links through another link, to {target!a}")
        if part.lower() == ".git":
            raise Refused("link", entry.name, "links into git's own folder")
