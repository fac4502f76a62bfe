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
from rich.table import Table
from rich.text import Text

from doctor.words import printable, say

if TYPE_CHECKING:
    from PIL.Image import Image

    from doctor.easel import Easel

# What stands before the text of a line: a mark, or a label and two spaces. Commands and addresses
# have none, and are never folded: they are to be copied whole.
LEAD = re.compile(r"[✗!·?✓] | +\S+(?: \S+)?  +(?=\S)(?!(?:comfy-doctor|\S*/python\S*) |[!-~]+$)")
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
            style = STYLES.get(line[:1], "")
            lead = LEAD.match(line)
            if lead and self.out.is_terminal and cell_len(line) > self.out.width:
                self.hang(lead[0], line[lead.end() :], style)
            else:
                self.out.print(Text(line, style=style))

    def hang(self, lead: str, rest: str, style: str) -> None:
        """A long line whose second and later lines begin below its text, not below its mark."""
        table = Table.grid()
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(Text(lead, style=style), Text(rest, style=style))
        self.out.print(table, soft_wrap=False)

    def rows(self, rows: Iterable[tuple[str, str]]) -> None:
        """Labels and values; on a terminal values fold below themselves, else they stay whole."""
        self.ticker.clear()
        if not self.out.is_terminal:
            both = list(rows)
            width = max((cell_len(label) for label, _ in both), default=0)
            self.lines(f"{set_cell_size(label, width)}  {value}" for label, value in both)
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for label, value in rows:
            table.add_row(Text(label), Text(printable(value)))
        self.out.print(table, soft_wrap=False)

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
        line = printable(line)
        self.err.print(Text(line, style=STYLES.get(line[:1], "")))

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
