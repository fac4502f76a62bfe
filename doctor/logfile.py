"""A log as lines worth reading: bytes of any size, encoding and origin, in bounded memory.

It drops what programs put around a message (colours, time stamps, names of containers, progress
bars) and cuts what no message needs (the middle of a line of a hundred megabytes).
"""

import codecs
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 1 << 20  # bytes read at once
LONGEST = 1 << 16  # bytes of one line that are kept at all
HEAD, TAIL = 3000, 500  # characters of one line that are looked at
COLOUR = re.compile(rb"\x1b(?:\[[0-?]{0,40}[ -/]{0,4}[@-~]|[@-Z\\-_])")
ENCODINGS = {
    codecs.BOM_UTF16_LE: "utf-16-le",  # what PowerShell writes with >
    codecs.BOM_UTF16_BE: "utf-16-be",
}
DAY = r"\d{4}[-/.]\d\d[-/.]\d\d"
CLOCK = r"\d\d:\d\d:\d\d(?:[.,:-]\d{1,9})?"
CONTAINED = re.compile(r"[\w.-]{1,60} {1,20}\| ")
LEVEL = r"(?:\s(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\b:?)?"
AROUND = re.compile(  # one thing that stands before a message; taken off again and again; among
    # them the stamps of journald: Nov 18 18:59:57 host comfyui[12]:
    r"\s{0,8}(?:"
    rf"\[?{DAY}[T ]{CLOCK}(?:Z|[+-]\d\d:?\d\d)?\]?(?:\s?[-|:])?{LEVEL}"  # ISO stamps of any logger
    rf"|\[?{CLOCK}\]?(?:\s?[-|:])?{LEVEL}(?=\s)"
    rf"|[A-Z][a-z]{{2}} [ \d]\d {CLOCK} [\w.-]{{1,80}} [\w@.-]{{1,80}}(?:\[\d{{1,9}}\])?:"
    r"|[\w.-]{1,60} {1,20}\| (?=\S|\s)"  # docker compose: comfyui-1  |
    r"|#\d{1,4} \d{1,6}\.\d{1,4}(?=\s)"  # docker build: #12 34.56
    r"|(?:stdout|stderr) [FP](?=\s)"  # containerd
    r"|(?:- )?[\w.]{1,40} - (?:DEBUG|INFO|WARNING|ERROR|CRITICAL) -"  # after the stamp of a logger
    r"|> (?!>)"  # quoted in a letter or a thread
    r"|\[ComfyUI(?:-\d{1,4})?(?:/STD(?:OUT|ERR))?\]:?"
    r"|\[(?:error|info|warn|warning|debug|stderr|stdout|E|I|W|!)\]"
    r"|(?:stderr|stdout)\s?[:|]"
    r")\s?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Line:
    number: int  # from 1, as an editor counts
    text: str  # without what stood around the message
    contained: bool = False  # docker compose put the name of a container before it
    joined: bool = False  # with the line after it: a console broke the message there


def blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Whole lines, about a megabyte at a time, each line cut to LONGEST bytes."""
    ready, rest, cutting = b"", b"", False
    for block in decoded(stream):
        if cutting:  # still inside a line that is too long already
            end = block.find(b"\n")
            if end < 0:
                continue
            block, cutting = block[end:], False
        whole, newline, rest = (rest + block).rpartition(b"\n")
        if newline:
            if ready:
                yield ready
            ready = whole + b"\n"
        if len(rest) > LONGEST:
            rest, cutting = rest[:LONGEST], True
    if ready or rest:
        yield ready + rest  # the last line has its neighbour with it


def decoded(stream: BinaryIO) -> Iterator[bytes]:
    """Blocks of single-byte text: UTF-16 as UTF-8, colours and NULs taken out."""
    block = stream.read(BLOCK)
    name = ENCODINGS.get(block[:2])
    decoder = codecs.getincrementaldecoder(name)("replace") if name else None
    while block:
        plain = decoder.decode(block).encode("utf-8", "replace") if decoder else block
        if b"\0" in plain:
            plain = plain.replace(b"\0", b"")
        yield COLOUR.sub(b"", plain) if b"\x1b" in plain else plain
        block = stream.read(BLOCK)


DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))
REMEMBERED = 100_000  # different lines whose literals are remembered
JOINED = 2_000  # messages that are looked at together with the line they go on in
REPEATS = 500  # lines alike but for digits that are looked at; frames always are


class Sieve:
    """Lets through the lines that hold one of some literals, and says which. A log repeats
    itself: lines that differ in digits alone are searched once."""

    def __init__(self, literals: Collection[str], always: Collection[str]) -> None:
        self.literals: dict[bytes, list[str]] = {plain(text.encode()): [] for text in literals}
        for text in literals:
            self.literals[plain(text.encode())].append(text)
        self.always = frozenset(always)
        self.held: dict[bytes, tuple[str, ...]] = {}
        self.times: dict[bytes, int] = {}
        self.joined = 0

    def lines(self, block: bytes, first: int) -> Iterator[tuple[Line, Sequence[str]]]:
        """The lines of a block, which starts with line `first`, and the literals each may hold."""
        lines, longest = unbroken(block.split(b"\n"))
        plains = plain(b"\n".join(lines)).split(b"\n")
        self.learn(set(plains))
        if longest is not None and self.joined < JOINED:
            more = lines[longest + 1].strip() or lines[longest + 2]
            yield from self.whole(longest + first, lines[longest].rstrip(b"\r") + more)
        for number, (raw, key) in enumerate(zip(lines, plains, strict=True), first):
            literals = self.held[key]
            if not literals:
                continue
            times = self.times[key] = self.times.get(key, 0) + 1
            if times > REPEATS:
                literals = tuple(text for text in literals if text in self.always)
            elif self.joined < JOINED and any(word in key for word in ERRORS):
                yield from self.with_the_next(
                    number, raw, lines[number - first + 1 : number - first + 2]
                )
            for line in pieces(number, raw) if literals else ():
                yield line, literals

    def with_the_next(
        self, number: int, raw: bytes, after: Sequence[bytes]
    ) -> Iterator[tuple[Line, Sequence[str]]]:
        """An error's message that goes on in the next line, as one line."""
        for text in wholes(raw, *after) if after else ():
            yield from self.whole(number, text.encode())

    def whole(self, number: int, raw: bytes) -> Iterator[tuple[Line, Sequence[str]]]:
        """What was printed as one line and stands on several."""
        self.joined += 1
        key = plain(raw)
        self.learn({key})
        yield Line(number, written(raw), joined=True), self.held[key]

    def learn(self, keys: set[bytes]) -> None:
        """Which literals these lines hold: one search of all that are new."""
        if len(self.held) > REMEMBERED:
            self.held.clear()
            self.times.clear()
        new = [key for key in keys if key not in self.held]
        text = b"\n".join(new)
        starts = [0]
        for key in new:
            starts.append(starts[-1] + len(key) + 1)
        found: dict[int, list[str]] = {}
        for literal, texts in self.literals.items():
            for index in where(text, literal, starts):
                found.setdefault(index, []).extend(texts)
        self.held.update((key, tuple(found.get(i, ()))) for i, key in enumerate(new))


WIDTHS = (80, 120)  # at which consoles break a line
NARROWEST, WIDEST = 60, 250  # columns of a console that broke every line of a log
# At whose end nothing goes on: tables, boxes.
DRAWN = b"|+=-#*~ \x80\x81\x82\x83\x84\x8f\xab\xae\xaf"
LONGEST_WORD = 20  # letters; what is longer is a path, and may stand on a line of its own
ERRORS = (b"err", b"no such", b"fail")
HEADS = ("Traceback", "ERROR", "WARN", "[", "File ")
RAISED = re.compile(rb"[\w.]*(?:Error|Exception|Warning|Interrupt|Exit)\b")  # begins the last line


def unbroken(lines: list[bytes]) -> tuple[list[bytes], int | None]:
    """A log that was copied from a console which broke it at its width, words and all: the lines
    as they were printed, each at the place of its first piece. No line is longer than a console
    is wide, and several different ones are as long. Where one alone is the longest it may be
    broken or not: which one that is."""
    lengths = [len(line.rstrip(b"\r")) for line in lines]
    width = max(lengths)
    full = [n for n, length in enumerate(lengths) if length == width and goes_on(lines, n)]
    different = {plain(lines[n]) for n in full}
    if not NARROWEST <= width <= WIDEST or len(different) < 2:
        return lines, full[0] if full and NARROWEST <= width <= WIDEST else None
    made = list(lines)
    for n in reversed(full):
        after = n + 1 if made[n + 1].strip() else n + 2
        made[n] = lines[n].rstrip(b"\r") + made[after]
        made[after] = b""
    return made, None


def goes_on(lines: Sequence[bytes], number: int) -> bool:
    """May a line end in the middle of a word, or between two, and the next one go on?"""
    end, after = lines[number].rstrip(b"\r")[-1:], [*lines[number + 1 : number + 3], b"", b""]
    more = after[0] if after[0].strip() else after[1]
    new = more.startswith((b"  ", b"\t", *(head.encode() for head in HEADS)))
    return end not in DRAWN and bool(more.strip()) and not new and not RAISED.match(more)


def wholes(raw: bytes, after: bytes) -> Iterator[str]:
    """An error's message and the line that it goes on in; nothing where it ends with its own line.

    rich breaks lines after a colon and between words, consoles anywhere, at their width.
    """
    text, more = written(raw), written(after)
    margin = text[: len(text) - len(text.lstrip())]
    text, more = text.lstrip(), more.removeprefix(margin)
    if not more or more[0].isspace() or more.startswith(HEADS):
        return
    if len(text) in WIDTHS:
        yield text + more
    if text.endswith(":") or is_full(text, more):
        yield f"{text} {more}"


def written(raw: bytes) -> str:
    """What stands on a line in the end."""
    return bare(raw.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace"))


def is_full(text: str, more: str) -> bool:
    """Did the next line's first word not fit into a console's width? A sentence may end there."""
    word = more.split(maxsplit=1)[0]
    full = any(len(text) <= width < len(text) + 1 + len(word) for width in WIDTHS)
    return full and len(word) <= LONGEST_WORD and text[-1] not in ".!?)]}"


def where(text: bytes, literal: bytes, starts: Sequence[int]) -> Iterator[int]:
    """The lines, by the offsets they start at, that hold a literal."""
    at = text.find(literal)
    while at >= 0:
        index = bisect_right(starts, at) - 1
        yield index
        at = text.find(literal, starts[index + 1])


def plain(text: bytes) -> bytes:
    """In lower case, and every digit a 0."""
    return text.lower().translate(DIGITS)


def pieces(number: int, raw: bytes) -> Iterator[Line]:
    """A line, or what a progress bar wrote over itself, each without its surroundings."""
    for piece in raw.rstrip(b"\r").split(b"\r")[-20:]:
        text = piece.decode("utf-8", "replace")
        yield Line(number, bare(text), bool(CONTAINED.match(text)))


def bare(text: str) -> str:
    """The message alone; the indentation of what follows the surroundings stays."""
    text = text.lstrip("\ufeff")
    if len(text) > HEAD + TAIL:
        text = f"{text[:HEAD]} … {text[-TAIL:]}"
    for _ in range(6):
        around = AROUND.match(text)
        if not around:
            break
        text = text[around.end() :]
    return text.rstrip()


SHORTEST = 3  # letters; less would be found on every line of a log
SHORT = frozenset({":\\", "^c"})  # a drive of Windows, and what a console shows for Ctrl+C


def literals(pattern: str) -> Sequence[str]:
    """Texts of which every match of a regular expression holds one, in lower case.

    The longest run of letters that all matches share; where there is none, one of each alternative
    of a group. Raises ValueError where that is nothing either.
    """
    shared = max(map(lowered, runs_of(pattern)), key=len, default="")
    if len(shared) >= SHORTEST or shared in SHORT:
        return (shared,)
    for alternatives in groups(pattern):
        many = [max(map(lowered, runs_of(one)), key=len, default="") for one in alternatives]
        if min(map(len, many)) >= SHORTEST:
            return tuple(dict.fromkeys(many))
    raise ValueError(f"nothing that every match holds: {pattern}")


def lowered(run: str) -> str:
    return run.encode().lower().decode()  # as plain() does it


def groups(pattern: str) -> Iterator[list[str]]:
    """The alternatives of each group at the top level of a pattern that is not optional."""
    depth, body, tokens = 0, [""], TOKEN.findall(pattern)
    for token, after in zip(tokens, [*tokens[1:], ""], strict=True):
        depth += (token == "(") - (token == ")")
        if token == "(" and depth == 1:
            body = [""]
        elif token == ")" and depth == 0:
            if not after.startswith(("?", "*", "{0")) and body[0].startswith("?:"):
                yield [body[0][2:], *body[1:]]
        elif token == "|" and depth == 1:
            body.append("")
        elif depth:
            body[-1] += token


TOKEN = re.compile(r"\\.|\[.[^\]]*\]|\{\d*,?\d*\}|.", re.DOTALL)


def runs_of(pattern: str) -> Iterator[str]:
    """Literal runs at the top level of a pattern, where nothing is optional."""
    run, depth, at = "", 0, 0
    while at < len(pattern):
        char, step = pattern[at], 1
        if char == "\\":
            char, step = pattern[at + 1], 2
            plain = not char.isalnum()
        elif char == "[":
            step, plain = pattern.index("]", at + 2) - at + 1, False
        else:
            plain = char not in ".^$*+?{}()|"
        if not plain and step == 1 and char == "|" and depth == 0:
            raise ValueError(f"write two patterns instead of: {pattern}")
        depth += (char == "(") - (char == ")") if step == 1 and not plain else 0
        after = pattern[at + step : at + step + 1]
        if depth == 0 and plain and after not in ("?", "*", "{"):
            run += char
        else:
            yield run
            run = ""
            at = pattern.index("}", at) if char == "{" and step == 1 else at
        at += step
    yield run
