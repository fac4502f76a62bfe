"""Easel: a picture that changes, above the line that says how far the work is; gone in the end."""

import os
import sys
from functools import cached_property
from typing import IO

from PIL import Image

from doctor import graphics, terminal
from doctor.terminal import BLOCKS, KITTY

MARGIN = 2  # columns left of it
WIDEST = 32  # columns
ROWS = 14  # of the terminal, at most


class Easel:
    """On one stream, which is a terminal or shows nothing."""

    def __init__(self, stream: IO[str], asked: str, columns: int, lines: int) -> None:
        self.stream, self.asked = stream, asked
        self.columns, self.lines = columns - MARGIN - 1, lines - 3
        self.rows = 0  # that are taken now

    @cached_property
    def way(self) -> str:
        """Asked once, and only where there is a picture to be shown."""
        both = self.stream.isatty() and sys.stdin.isatty()
        ask = terminal.asked_itself if both else bytes
        return terminal.shows(self.asked, os.environ, ask) if self.stream.isatty() else ""

    def draw(self, picture: Image.Image) -> None:
        """Over the one before, from the beginning of a line to the beginning of a line."""
        if not self.way or self.lines < 2 or self.columns < 2:
            return
        columns, rows = self.size(picture)
        if self.way == BLOCKS:
            small = picture.resize((columns, 2 * rows), Image.Resampling.BICUBIC)
            lines = graphics.blocks(small, columns)
            drawn = "".join(f"{' ' * MARGIN}{line}\r\n" for line in lines)
        else:
            drawn = f"\x1b[{MARGIN}C\x1b7{self.pixels(picture, columns, rows)}\x1b8\r\x1b[{rows}B"
        if rows != self.rows:
            self.clear()
            self.stream.write("\n" * rows)
        self.stream.write(f"\r\x1b[{rows}A{drawn}")
        self.rows = rows
        self.stream.flush()

    def pixels(self, picture: Image.Image, columns: int, rows: int) -> str:
        if self.way == KITTY:
            return graphics.kitty(picture, columns, rows)
        wide, high = terminal.cell(self.stream)
        size = columns * wide, max(1, rows * high // graphics.BAND) * graphics.BAND
        return graphics.sixel(picture.resize(size, Image.Resampling.BICUBIC))

    def size(self, picture: Image.Image) -> tuple[int, int]:
        """Columns and rows that keep its shape."""
        wide, high = terminal.cell(self.stream) if self.way != BLOCKS else (1, 2)
        tall = picture.height * wide / (picture.width * high)  # rows for a column
        columns = max(1, int(min(WIDEST, self.columns, min(ROWS, self.lines) / tall)))
        return columns, min(max(1, round(columns * tall)), ROWS, self.lines)

    def clear(self) -> None:
        if self.rows:
            gone = graphics.KITTY_GONE if self.way == KITTY else ""
            self.stream.write(f"{gone}\r\x1b[{self.rows}A\x1b[J")
            self.stream.flush()
        self.rows = 0
