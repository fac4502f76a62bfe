"""Terminal: does it show pictures, and which way. Asked of its environment, and of itself where
that leaves it open; a terminal that does not answer, or that others share, gets half blocks."""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO

KITTY, SIXEL, BLOCKS = "kitty", "sixel", "blocks"  # ways to show a picture
CHOICES = ("auto", KITTY, SIXEL, BLOCKS, "none")
KITTYS = ("xterm-kitty", "xterm-ghostty")  # values of TERM
# What is set where a terminal may know sixel; others are not asked, for their answer might come
# when nobody waits for it any more.
MAYBE_SIXEL = ("XTERM_VERSION", "KONSOLE_VERSION", "WEZTERM_PANE", "MLTERM")
MAYBE_TERM = ("foot", "mlterm", "yaft", "contour")
ATTRIBUTES = re.compile(rb"\x1b\[\?([\d;]*)c")  # the answer to DA1 (vt100.net/docs/vt510-rm/DA1)
PATIENCE = 0.5  # seconds for it
CELL = (8, 16)  # pixels, where the terminal does not say


def shows(asked: str, environ: Mapping[str, str], ask: Callable[[], bytes]) -> str:
    """One of the ways, or "" for none. `ask` gives a terminal's answer to DA1."""
    if asked == "none":
        return ""
    if asked != "auto":
        return asked
    term = environ.get("TERM", "")
    if environ.get("NO_COLOR") or term == "dumb":
        return ""
    true_colour = environ.get("COLORTERM", "") in ("truecolor", "24bit") or "WT_SESSION" in environ
    shared = "TMUX" in environ or term.startswith(("screen", "tmux"))
    if not shared:
        if term in KITTYS or "KITTY_WINDOW_ID" in environ:
            return KITTY
        maybe = term.startswith(MAYBE_TERM) or any(name in environ for name in MAYBE_SIXEL)
        if maybe and b"4" in attributes(ask())[1:]:
            return SIXEL
    return BLOCKS if true_colour or term in KITTYS else ""


def attributes(answer: bytes) -> list[bytes]:
    """The numbers of an answer to DA1: the class of the terminal, then what it can."""
    found = ATTRIBUTES.search(answer)
    return found[1].split(b";") if found else []


def asked_itself() -> bytes:
    """What the terminal on stdin and stderr says of itself; nothing where it does not answer."""
    try:
        import select
        import termios
        import tty

        here = sys.stdin.fileno()
        before = termios.tcgetattr(here)
    except (ImportError, ValueError, OSError, termios.error):
        return b""
    answer, end = b"", time.monotonic() + PATIENCE
    try:
        tty.setcbreak(here, termios.TCSAFLUSH)
        sys.stderr.write("\x1b[c")
        sys.stderr.flush()
        while not ATTRIBUTES.search(answer) and (left := end - time.monotonic()) > 0:
            if select.select([here], [], [], left)[0]:
                answer += os.read(here, 256)
    finally:
        termios.tcsetattr(here, termios.TCSAFLUSH, before)
    return answer


def cell(stream: IO[str]) -> tuple[int, int]:
    """Pixels of one place, across and down."""
    with suppress(ImportError, ValueError, OSError):
        import fcntl
        import struct
        import termios

        told = fcntl.ioctl(stream.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        rows, columns, wide, high = struct.unpack("HHHH", told)
        if rows and columns and wide and high:
            return wide // columns, high // rows
    return CELL
