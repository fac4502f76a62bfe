"""The help of the command line in the reader's language: manifests/help.toml over what argparse
and options.py say in English."""

import argparse
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from doctor.manifest import read
from doctor.screen import folded
from manifests import FOLDER


@cache
def sentences(lang: str) -> Mapping[str, str]:
    """English -> the same in a language."""
    return {row["en"]: row[lang] for row in read(FOLDER / "help.toml")["help"]}


def speak(top: argparse.ArgumentParser, lang: str) -> None:
    """Let the help of a parser, and of all below it, be in a language."""
    known = sentences(lang)
    for parser in within(top):
        parser.formatter_class = Wide
        parser.description = known.get(parser.description or "", parser.description)
        parser.epilog = known.get(parser.epilog or "", parser.epilog)
        for group in parser._action_groups:
            group.title = known.get(group.title or "", group.title)
        for action in actions(parser):
            action.help = known.get(action.help or "", action.help)


def within(top: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield top
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for parser in action.choices.values():
                yield from within(parser)


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options and the commands of one parser."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            yield from action._choices_actions


class Wide(argparse.HelpFormatter):
    """Signs of full width count two, and break where there is no space; lines stay lines."""

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[Any],
        prefix: str | None = None,
    ) -> None:
        said = sentences("zh")["usage: "] if prefix is None else prefix
        super().add_usage(usage, actions, groups, said)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return folded(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = [line for whole in text.splitlines() for line in folded(whole, width)]
        return "\n".join(indent + line for line in lines)

    def format_help(self) -> str:
        return re.sub(r"(?<=[\u4e00-\u9fff）]):$", "：", super().format_help(), flags=re.MULTILINE)
