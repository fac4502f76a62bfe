"""Screen: where lines, progress, questions and JSON meet the person or the program that asked.

With --json, stdout holds exactly one JSON object; everything else goes to stderr.
"""

import codecs
import json
import re
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from doctor.words import printable, say

if TYPE_CHECKING:
    from PIL.Image import Image

    from doctor.easel import Easel

# What stands before the text of a line: a mark, a label and two spaces, or, of a sentence, nothing.
# What holds a command or is an address has no lead and is never folded: it is to be copied whole.
LEAD = re.compile(
    r"[✗!·?✓] | +\S+(?: \S+)?  +(?=\S)(?!comfy-doctor [a-z]|\S*/python[^\s/]* |[!-~]+$)"
    r"|(?=[A-Z]\S* \S|[\u3400-\u9fff])(?!.*(?:  |comfy-doctor |/python|://))"
)
# Where a line may end: at a space, and beside a sign of full width, which are written without any;
# but what closes stays with the sign before it, and what opens with the one behind it.
WIDE = r"\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
UNIT = re.compile(rf"\s+|[^\s{WIDE}]+|.", re.DOTALL)
CLOSES, OPENS = frozenset("，。；：、！？）】》」』”’…"), frozenset("（【《「『“‘")
STYLES = {"✗": "bold red", "!": "yellow", "·": "cyan", "?": "magenta", "✓": "green"}


class Screen:
    """One run of the program, seen from outside."""

    def __init__(self, lang: str, as_json: bool = False, no_color: bool = False) -> None:
        self.lang = lang
        self.as_json = as_json
        self.verbose = False
        self.preview = "none"  # one of terminal.CHOICES: how pictures that change are shown
        self.out = console(as_json, no_color)
        self.err = console(True, no_color)
        self.ticker = Ticker(self.err)

    def say(self, key: str, **values: object) -> None:
        self.lines([say(key, self.lang, **values)])

    def lines(self, lines: Iterable[str]) -> None:
        self.ticker.clear()
        for line in map(printable, lines):
            put(self.out, line)

    def rows(self, rows: Iterable[tuple[str, str]]) -> None:
        """Labels and values; on a terminal values fold below themselves, else they stay whole."""
        self.ticker.clear()
        if not self.out.is_terminal:
            both = list(rows)
            width = max((cell_len(label) for label, _ in both), default=0)
            self.lines(f"{set_cell_size(label, width)}  {value}" for label, value in both)
            return
        both = [(label, printable(value)) for label, value in rows]
        width = max((cell_len(label) for label, _ in both), default=0) + 2
        for label, value in both:
            first, *others = folded(value, self.out.width - width)
            self.out.print(Text(set_cell_size(label, width), style="dim"), first, sep="")
            for line in others:
                self.out.print(" " * width + line)

    def picture(self, rows: Iterable[Sequence[tuple[str, str]]]) -> None:
        """Rows of (upper, lower) colours as half blocks, where colours and blocks can be shown."""
        if not self.out.is_terminal or self.out.no_color or not shows_colours(self.out):
            return
        for row in rows:
            text = Text("  ")
            for upper, lower in row:
                text.append("▀" if upper else " ", style=f"{upper} on {lower}" if upper else "")
            self.out.print(text)

    def object(self, data: dict[str, Any]) -> None:
        self.ticker.clear()
        if self.as_json:
            wide = (sys.stdout.encoding or "").lower().startswith("utf")
            sys.stdout.write(json.dumps(data, ensure_ascii=not wide, indent=2) + "\n")

    def complain(self, sentence: str) -> None:
        self.ticker.clear()
        self.err.print(Text(sentence, style="bold red"))

    def attempt(self, line: str) -> None:
        """One of several routes being tried: a line with --verbose, else only progress."""
        if self.verbose:
            self.lines([line])
        else:
            self.progress(line)

    def progress(self, what: str) -> None:
        self.ticker.show(what)

    def news(self, line: str) -> None:
        """What is known already of something that goes on: a line on stderr, as it comes."""
        self.ticker.clear()
        put(self.err, printable(line))

    @cached_property
    def easel(self) -> "Easel":
        from doctor.easel import Easel  # Pillow comes with it, which not all verbs have

        off = self.as_json or (self.preview == "auto" and self.err.no_color)
        size = self.err.width, self.err.height
        self.ticker.easel = Easel(self.err.file, "none" if off else self.preview, *size)
        return self.ticker.easel

    def step(self, what: str, stage: str, picture: "Image | None" = None) -> None:
        """Progress within a stage: at once on a terminal, one line for each stage elsewhere; with
        what there is so far, where pictures are shown."""
        if picture is not None:
            self.ticker.clear(keep=True)
            self.easel.draw(picture)
        self.ticker.step(what, stage)

    def ask(self) -> bool:
        """Yes or no; no where nobody can be asked."""
        self.ticker.clear()
        if not sys.stdin.isatty():
            self.say("needs-yes")
            return False
        self.err.print(say("ask", self.lang), end="")
        agreed = sys.stdin.readline().strip().lower() in ("y", "yes", "是", "好")
        if not agreed:
            self.say("not-done")
        return agreed

    def close(self) -> None:
        self.ticker.clear()


def shows_colours(console: Console) -> bool:
    """256 colours or more, and an encoding that has half blocks."""
    try:
        "▀".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return console.color_system in ("256", "truecolor")


PLAIN = {
    "✗": "x",
    "✓": "+",
    "·": "-",
    "…": "...",
    "×": "x",
    "≤": "<=",
    "–": "-",
    "→": "->",
    "�": "?",
}


def plainer(error: UnicodeError) -> tuple[str, int]:
    """For a console that cannot print a sign: the next best one, else its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    told = (PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs)
    return "".join(told), error.end


codecs.register_error("plainer", plainer)


def put(console: Console, line: str) -> None:
    """A line; on a terminal too narrow for it, its later lines begin below its text."""
    style, lead = STYLES.get(line[:1], ""), LEAD.match(line)
    if not lead or not console.is_terminal or cell_len(line) <= console.width:
        console.print(Text(line, style=style))
        return
    indent = " " * cell_len(lead[0])
    lines = folded(line[lead.end() :], console.width - len(indent))
    for before, part in zip([lead[0], *[indent] * len(lines)], lines, strict=False):
        console.print(Text(before + part, style=style))


def folded(text: str, width: int) -> list[str]:
    """The text in lines of at most so many places (twenty at least); a word that is longer than a
    line ends after a slash, where it has one."""
    width, lines, line = max(width, 20), [], ""
    for unit in units(text):
        if cell_len(line + unit.rstrip()) <= width:
            line += unit
            continue
        lines += [line.rstrip()] if line.strip() else []
        line = unit.lstrip()
        while cell_len(line) > width:
            fits = next(n for n in range(len(line), 0, -1) if cell_len(line[:n]) <= width)
            cut = line.rfind("/", 0, fits) + 1 or fits
            lines, line = [*lines, line[:cut]], line[cut:]
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def units(text: str) -> list[str]:
    """What stays on one line: words, spaces, and single signs of full width."""
    found: list[str] = []
    for unit in UNIT.findall(text):
        if found and (unit[0] in CLOSES or found[-1][-1] in OPENS):
            found[-1] += unit
        else:
            found.append(unit)
    return found


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell; 节 is two wide."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = (map(set_cell_size, row, widths) for row in rows)
    return ["  ".join(line).rstrip() for line in lines]


def console(stderr: bool, no_color: bool) -> Console:
    """rich, without its guesses at what a word might mean."""
    return Console(
        stderr=stderr,
        no_color=no_color or None,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


class Ticker:
    """What is being done, once it has taken a second: one changing line on a terminal with the
    seconds that it takes, one line for each thing elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.what = ""
        self.since = 0.0
        self.stage = ""
        self.easel: Easel | None = None  # stands above the line
        self.timer: threading.Timer | None = None
        self.lock = threading.Lock()

    def show(self, what: str) -> None:
        self.clear()
        self.what, self.since = what, time.monotonic()
        self.arm()

    def step(self, what: str, stage: str) -> None:
        if self.console.is_terminal:
            self.clear(keep=True)
            self.what, self.since = what, time.monotonic()
            self.tick()
        elif stage != self.stage:
            self.console.print(Text(f"… {what}", style="dim"))
        self.stage = stage

    def arm(self) -> None:
        self.timer = threading.Timer(1.0, self.tick)
        self.timer.daemon = True
        self.timer.start()

    def tick(self) -> None:
        with self.lock:
            if not self.what:
                return
            line = Text(f"… {self.what}", style="dim", overflow="ellipsis", no_wrap=True)
            if self.console.is_terminal:
                line.append(f" {time.monotonic() - self.since:.0f} s")
                line.truncate(max(self.console.width - 1, 20), overflow="ellipsis")
                self.console.file.write("\r\x1b[2K")
                self.console.print(line, end="")
                self.arm()
            else:
                self.console.print(line)

    def clear(self, keep: bool = False) -> None:
        """The line, and the picture above it unless that is to be kept."""
        with self.lock:
            if self.timer:
                self.timer.cancel()
            shown, self.what = self.what, ""
            if shown and self.console.is_terminal:
                self.console.file.write("\r\x1b[2K")
                self.console.file.flush()
            if self.easel and not keep:
                self.easel.clear()
