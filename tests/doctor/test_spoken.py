"""The help of the command line says the same in Chinese, and fits the terminal."""

import re

import pytest
from rich.cells import cell_len

from doctor import cli, options, spoken

CHINESE = re.compile("[\u4e00-\u9fff]")
NAMES = re.compile(
    r"(?<![\w-])--?[a-z][a-z-]+|(?<![a-z\d])\d+(?![a-z])|[A-Z]+_[A-Z]+|https?://[a-z][\w./:@-]+"
    r"|comfy-doctor [a-z]+(?: [a-z]+)?",
    re.ASCII,
)


def helps():
    """(English, Chinese) of each sentence of each parser."""
    english, chinese = options.parser(), options.parser()
    spoken.speak(chinese, "zh")
    for one, other in zip(spoken.within(english), spoken.within(chinese), strict=True):
        yield one.description, other.description
        yield one.epilog, other.epilog
        yield from zip(titles(one), titles(other), strict=True)
        pairs = zip(spoken.actions(one), spoken.actions(other), strict=True)
        yield from ((action.help, told.help) for action, told in pairs)


def titles(parser):
    return [group.title for group in parser._action_groups]


def test_every_sentence_is_told_in_chinese():
    unknown = {one for one, other in helps() if one and not CHINESE.search(other)}
    assert not unknown, "manifests/help.toml lacks these"


def test_options_numbers_and_commands_are_the_same_in_both():
    for one, other in helps():
        if one:
            assert set(NAMES.findall(one)) == set(NAMES.findall(other)), one


def test_nothing_is_told_that_nobody_says():
    said = {one for one, _ in helps()} | {"usage: "}
    assert set(spoken.sentences("zh")) <= said


@pytest.mark.parametrize("words", [["--help"], ["fleet", "check", "-h"], ["node", "sync", "-h"]])
def test_help_speaks_chinese_within_the_terminal(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--lang=zh"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("用法：comfy-doctor")
    assert "选项：\n" in out
    assert max(map(cell_len, out.splitlines())) <= 80


def test_complaints_about_words_speak_the_language_asked_for(capsys):
    assert cli.main(["check", "--level", "9", "--lang", "zh"]) == 2
    assert "参数 --level 的值 9 无效，可选：1, 2, 3, 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "lang"),
    [
        (["check", "--lang", "zh"], "zh"),
        (["--lang=en", "--lang=zh"], "zh"),
        (["run", "--positive", "a --lang zh"], ""),
        (["check", "--lang", "fr"], ""),
        (["check", "--lang"], ""),
    ],
)
def test_the_language_is_read_before_the_rest(words, lang):
    assert options.language(words) == lang
