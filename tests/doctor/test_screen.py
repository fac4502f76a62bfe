"""The screen as people have it: narrow and wide terminals, pipes, no colour, old consoles."""

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from doctor import pictures
from doctor.facts import ComfyUI, plain
from doctor.screen import PLAIN, folded, put
from doctor.verbs import page
from doctor.words import say
from tests.doctor.command import ROOT, doctor
from tests.doctor.test_page import FACTS, PROOF

SHOW = """
import sys
from pathlib import Path
from doctor import cli
from doctor.screen import Screen
from doctor.verbs import run
from tests.doctor.test_page import PROOF
cli.be_robust()
folder = Path(sys.argv[1])
screen = Screen(sys.argv[2], no_color="--no-color" in sys.argv)
run.proved(screen, PROOF, (folder / "render.png", folder / "report.html"))
"""
COPIED = re.compile(r"^ {8}\S|^ *(?:or run|或运行) +comfy-doctor |: comfy-doctor |：comfy-doctor ")
STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def terminal(columns, *words, **variables):
    """What a command wrote to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    environment = {k: v for k, v in environment.items() if k not in ("NO_COLOR", "COLUMNS")}
    run = subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env={**environment, "LC_ALL": "C.UTF-8", **variables},
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    run.wait(timeout=60)
    encoding = variables.get("PYTHONIOENCODING", "utf-8")
    return said.decode(encoding).replace("\r\n", "\n")


@pytest.fixture
def sick(tmp_path):
    path = tmp_path / "facts.json"
    facts = replace(FACTS, comfyui=ComfyUI("/srv/ComfyUI", present=False))
    path.write_text(json.dumps({"facts": plain(facts)}), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    for name in (page.BEFORE, page.AFTER):
        (tmp_path / name).write_bytes(pictures.gradient())
    return tmp_path


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("columns", [60, 120])
def test_lines_fold_within_the_terminal_and_only_commands_stay_whole(sick, columns, lang):
    said = terminal(columns, "-m", "doctor", "check", "--facts", sick, "--lang", lang)
    lines = STEERING.sub("", said).splitlines()
    wide = [line for line in lines if cell_len(line) > columns and not COPIED.search(line)]
    assert wide == []
    assert len(lines) > 8


def test_colour_is_for_terminals_that_want_it(sick):
    words = ("-m", "doctor", "check", "--facts", sick)
    assert re.search(r"\x1b\[[0-9;]*3[0-9]m", terminal(80, *words))
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", terminal(80, *words, **variables))
    assert "\x1b" not in doctor("check", "--facts", sick)[1], "a pipe"


@pytest.mark.parametrize(("encoding", "lang"), [("cp1252", "en"), ("cp936", "zh"), ("ascii", "en")])
def test_an_old_console_gets_signs_that_it_has(sick, encoding, lang):
    words = (sys.executable, "-m", "doctor", "check", "--facts", str(sick), "--lang", lang)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    said = subprocess.run(words, capture_output=True, env=environment, cwd=ROOT).stdout
    text = said.decode(encoding)
    assert re.search("^x ", text, re.MULTILINE), "the mark of an error"
    assert "\\u" not in text


@pytest.mark.parametrize("width", [20, 33, 60])
@pytest.mark.parametrize(
    "text",
    [
        "从同一个索引安装与当前 torch 对应的版本，并且不安装依赖，以保持 torch 不变（例如 2.13）。",
        "no torch in /srv/ComfyUI/.venv/lib/python3.11/site-packages of this machine",
        "x" * 100,
        "节" * 100,
        "，" * 30,
        " ",
        "",
    ],
)
def test_a_folded_text_fits_and_is_whole(text, width):
    lines = folded(text, width)
    assert all(cell_len(line) <= width for line in lines) or "，，" in text
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert not any(line[0] in "，。）" for line in lines if line and "，，" not in text)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_sentence_without_a_mark_folds_between_words(lang):
    sentence = say("proof-coming", lang, size="64×64", memory="6", minutes="1")
    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=True, color_system=None, soft_wrap=True)
    put(console, sentence)
    lines = out.getvalue().splitlines()
    assert len(lines) > 2
    assert max(map(cell_len, lines)) <= 60
    assert sum("64×64" in line for line in lines) == 1


@pytest.mark.parametrize(
    "line",
    [
        f"Cured: python-missing. To take it back: comfy-doctor undo --comfyui /srv/{'x' * 60}",
        f"Picture  /srv/{'x' * 60}",
        f"/srv/{'x' * 60}",
    ],
)
def test_what_is_to_be_copied_stays_whole(line):
    out = io.StringIO()
    put(Console(file=out, width=60, force_terminal=True, color_system=None, soft_wrap=True), line)
    assert out.getvalue() == line + "\n"


def test_chinese_fills_its_lines_and_a_long_path_ends_after_a_slash():
    assert folded("用 --cpu 启动；comfy-doctor 会为这个安装保留该参数，直到有", 32) == [
        "用 --cpu 启动；comfy-doctor 会为",
        "这个安装保留该参数，直到有",
    ]
    assert folded("in /tmp/ray/session_2026-11-25/runtime_resources/x", 30) == [
        "in",
        "/tmp/ray/session_2026-11-25/",
        "runtime_resources/x",
    ]


def test_json_is_json_whatever_the_console(sick):
    words = ("check", "--facts", sick, "--json", "--lang", "zh")
    plainest = doctor(*words, PYTHONIOENCODING="ascii")[1]
    assert json.loads(plainest) == json.loads(doctor(*words)[1])


def test_the_picture_is_drawn_where_half_blocks_and_colours_are(folder):
    def drawn(*more, **variables):
        return terminal(80, "-c", SHOW, folder, "en", *more, **variables)

    rows = [line for line in STEERING.sub("", drawn()).splitlines() if "▀" in line]
    assert rows == ["  " + "▀" * 24 + "  " + "▀" * 24] * 12
    assert "▀" not in drawn("--no-color")
    assert "▀" not in drawn(TERM="dumb")
    assert "▀" not in drawn(TERM="xterm"), "sixteen colours show no picture"


def test_what_was_proved_is_told_in_the_language(folder):
    said = terminal(80, "-c", SHOW, folder, "zh")
    assert PROOF["bench"]["doubts"][0] not in said
    assert "✗" in said


def test_every_plainer_sign_is_plain():
    assert all(other.isascii() and len(sign) == 1 for sign, other in PLAIN.items())
