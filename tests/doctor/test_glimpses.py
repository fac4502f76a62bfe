"""The picture while it is sampled: how a terminal is told to draw it, and which terminal is."""

import base64
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios

import pytest
from PIL import Image, ImageChops

from doctor import graphics, preview, terminal
from doctor.easel import Easel
from doctor.terminal import BLOCKS, KITTY, SIXEL
from tests.doctor.command import ROOT

RED, BLUE = (255, 0, 0), (0, 0, 255)


def striped(wide=20, high=13):
    picture = Image.new("RGB", (wide, high), RED)
    picture.paste(BLUE, (wide // 2, 0, wide, high))
    return picture


def drawn_by_kitty(text):
    """The picture that a terminal makes of kitty's commands, and what the first one says."""
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert "".join(f"\x1b_G{head};{data}\x1b\\" for head, data in parts) == text
    says = dict(pair.split("=") for pair in parts[0][0].split(","))
    assert [re.search(r"m=(\d)", head)[1] for head, _ in parts] == ["1"] * (len(parts) - 1) + ["0"]
    assert all(len(data) <= 4096 and len(data) % 4 == 0 for _, data in parts)
    rgb = base64.b64decode("".join(data for _, data in parts))
    return Image.frombytes("RGB", (int(says["s"]), int(says["v"])), rgb), says


def drawn_by_sixel(text):
    """The picture that a terminal makes of sixels (DEC STD 070), read one sign at a time."""
    head, body = re.fullmatch(r"\x1bP0;1;0q\"1;1;(\d+;\d+)(.*)\x1b\\", text, re.DOTALL).groups()
    picture, palette = Image.new("RGB", tuple(map(int, head.split(";")))), {}
    x, y, colour = 0, 0, None
    for number, r, g, b, pick, count, again, one, sign in re.findall(
        r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|([$-])", body
    ):
        if number:
            palette[number] = tuple(round(int(v) * 2.55) for v in (r, g, b))
        elif pick:
            colour = palette[pick]
        elif sign:
            x, y = 0, y + (6 if sign == "-" else 0)
        else:
            for at in range(x, x := x + int(count or 1)):
                for n in range(6):
                    if ord(again or one) - 63 >> n & 1:
                        picture.putpixel((at, y + n), colour)
    return picture


@pytest.mark.parametrize("size", [(1, 1), (20, 13), (64, 48)])
def test_kittys_picture_is_the_picture(size):
    picture = striped(*size)
    shown, says = drawn_by_kitty(graphics.kitty(picture, 10, 5))
    assert shown.tobytes() == picture.tobytes()
    assert (says["c"], says["r"], says["C"]) == ("10", "5", "1"), "the cursor stays"


@pytest.mark.parametrize("size", [(1, 1), (20, 13), (64, 48)])
def test_a_sixel_picture_is_the_picture(size):
    picture = striped(*size)
    shown = drawn_by_sixel(graphics.sixel(picture))
    assert shown.tobytes() == picture.tobytes()


def test_a_sixel_picture_of_many_colours_is_near():
    picture = Image.merge("RGB", [Image.linear_gradient("L").resize((60, 40))] * 3)
    shown = drawn_by_sixel(graphics.sixel(picture))
    worst = max(high for _, high in ImageChops.difference(shown, picture).getextrema())
    assert worst <= 8, "64 shades of 256, and percents of them"


def test_half_blocks_have_two_pixels_each():
    (line,) = graphics.blocks(Image.frombytes("RGB", (1, 2), bytes([1, 2, 3, 4, 5, 6])), 1)
    assert line == "\x1b[38;2;1;2;3;48;2;4;5;6m▀\x1b[0m"


def answered(answer):
    return lambda: answer


XTERM_OF_SIXEL, NONE_OF_IT = b"\x1b[?64;1;2;4;6;22c", b"\x1b[?64;1;2;6;22c"


@pytest.mark.parametrize(
    ("environ", "answer", "way"),
    [
        ({"TERM": "xterm-kitty"}, b"", KITTY),
        ({"TERM": "xterm-ghostty", "COLORTERM": "truecolor"}, b"", KITTY),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, b"", KITTY),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, b"", ""),
        ({"TERM": "tmux-256color", "TMUX": "/x", "COLORTERM": "truecolor"}, b"", BLOCKS),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)"}, XTERM_OF_SIXEL, SIXEL),
        ({"TERM": "foot", "COLORTERM": "truecolor"}, XTERM_OF_SIXEL, SIXEL),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)"}, NONE_OF_IT, ""),
        ({"TERM": "foot", "COLORTERM": "truecolor"}, b"\x1b[?4c", BLOCKS),
        ({"TERM": "foot", "COLORTERM": "24bit"}, b"", BLOCKS),
        ({"WT_SESSION": "1"}, b"", BLOCKS),
        ({"TERM": "xterm-256color"}, XTERM_OF_SIXEL, ""),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, b"", ""),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, b"", ""),
        ({}, b"", ""),
    ],
)
def test_which_terminal_shows_pictures_and_how(environ, answer, way):
    assert terminal.shows("auto", environ, answered(answer)) == way
    assert terminal.shows("none", environ, answered(answer)) == ""
    assert terminal.shows(SIXEL, environ, answered(answer)) == SIXEL, "who asks for it gets it"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_picture_is_drawn_over_the_last_one_and_nothing_of_it_stays():
    stream = Terminal()
    easel = Easel(stream, BLOCKS, 80, 24)
    easel.draw(striped(8, 8))
    first = stream.getvalue()
    rows = first.count("▀\x1b[0m")
    assert rows == 14
    assert first.startswith("\n" * rows + f"\r\x1b[{rows}A"), "room is made once"
    easel.draw(striped(8, 8))
    assert stream.getvalue() == first + first.lstrip("\n")
    easel.clear()
    assert stream.getvalue().endswith(f"\r\x1b[{rows}A\x1b[J")
    easel.clear()
    assert stream.getvalue().count("\x1b[J") == 1


@pytest.mark.parametrize("way", [KITTY, SIXEL, BLOCKS])
@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (12, 8), (4, 4), (1, 1)])
@pytest.mark.parametrize("size", [(48, 2), (2, 48), (1, 1), (64, 64)])
def test_it_is_never_larger_than_the_terminal(way, columns, lines, size):
    stream = Terminal()
    easel = Easel(stream, way, columns, lines)
    easel.draw(striped(*size))
    assert easel.rows <= max(lines - 3, 0)
    assert easel.rows == 0 or easel.size(striped(*size))[0] <= columns - 3


def test_piped_nothing_is_drawn():
    stream = io.StringIO()
    Easel(stream, KITTY, 80, 24).draw(striped())
    assert stream.getvalue() == ""


ASK = "from doctor import terminal; print(repr(terminal.asked_itself()))"


@pytest.mark.parametrize("answer", [XTERM_OF_SIXEL, b""])
def test_a_real_terminal_is_asked_and_left_as_it_was(answer):
    """Its answer is read whole, is not echoed, and one that does not answer is not waited for."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with subprocess.Popen(
        [sys.executable, "-c", ASK], cwd=ROOT, stdin=theirs, stdout=-1, stderr=theirs
    ) as child:
        asked = os.read(ours, 100)
        os.write(ours, answer)
        said, _ = child.communicate(timeout=30)
    assert (asked, eval(said)) == (b"\x1b[c", answer)
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    assert not b"".join(iter(lambda: drained(ours), b""))
    os.close(ours)


def drained(descriptor):
    try:
        return os.read(descriptor, 100)
    except OSError:
        return b""


SHOW = """
import sys
from doctor.screen import Screen
from doctor.verbs.run import stage
screen = Screen("en")
screen.preview = sys.argv[1]
show = stage(screen)
print(screen.easel.way or "none", flush=True)
rgb = "/wAA" * 64
for n in range(1, 4):
    show({"stage": "step", "done": n, "of": 3, "picture": {"width": 8, "height": 8, "rgb": rgb}})
screen.lines(["done"])
"""


@pytest.mark.parametrize(
    ("asked", "environ", "way"),
    [
        ("auto", {"COLORTERM": "truecolor"}, "blocks"),
        ("auto", {"TERM": "xterm-kitty"}, "kitty"),
        ("auto", {"TERM": "xterm", "XTERM_VERSION": "390"}, "sixel"),
        ("auto", {"COLORTERM": "truecolor", "NO_COLOR": "1"}, "none"),
        ("none", {"COLORTERM": "truecolor"}, "none"),
    ],
)
def test_on_a_terminal_the_picture_stands_above_its_line_and_is_gone_in_the_end(
    asked, environ, way
):
    said = on_a_terminal([SHOW, asked], environ)
    marks = {"kitty": "\x1b_Ga=T", "sixel": "\x1bP0;1;0q", "blocks": "38;2;255;0;0"}
    assert said.startswith((way, f"\x1b[c{way}"))
    assert [name for name, mark in marks.items() if mark in said] == [way][: way != "none"]
    last = said.rindex("step 3/3")
    assert ("\x1b[J" in said[last:]) == (way != "none")
    assert said.rstrip().endswith("done")


def on_a_terminal(words, environ):
    """What a program wrote to a terminal that answers DA1 with sixel."""
    ours, theirs = pty.openpty()
    names = ("NO_COLOR", "COLORTERM", "TMUX", "KITTY_WINDOW_ID")
    env = {k: v for k, v in os.environ.items() if k not in names}
    env |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environ}
    pipes = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    said = b""
    with subprocess.Popen([sys.executable, "-c", *words], env=env, **pipes) as child:
        os.close(theirs)
        while part := drained(ours):
            said += part
            if b"\x1b[c" in part:
                os.write(ours, XTERM_OF_SIXEL)
        assert child.wait(30) == 0
    os.close(ours)
    return said.decode()


def test_a_glimpse_as_the_runner_tells_it_is_a_picture():
    rgb = base64.b64encode(bytes(range(18))).decode()
    picture = preview.told(json.loads(json.dumps({"width": 3, "height": 2, "rgb": rgb})))
    assert (picture.size, picture.tobytes()) == ((3, 2), bytes(range(18)))
