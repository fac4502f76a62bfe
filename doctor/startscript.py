"""The text of a start script: ComfyUI as `launch` starts it, for those who double-click. Pure."""

import ntpath
import posixpath
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from types import ModuleType

from doctor.facts import Flag
from doctor.flags import words

MARK = "Written by comfy-doctor"
SAID = (
    f"{MARK}, and written again when a flag that it keeps changes;",
    "what you add at the end of the last line is lost then: comfy-doctor launch --script -- FLAGS",
)


def usual_name(system: str) -> str:
    return "start-comfyui.bat" if system == "windows" else "start-comfyui.sh"


def text(
    path: str, folder: str, command: Sequence[str], flags: Mapping[str, Flag], given: Iterable[str]
) -> str:
    """The script at `path` that starts this command in `folder`; .bat and .cmd for Windows."""
    all_words = [*command, *words(flags), *given]
    if path.lower().endswith((".bat", ".cmd")):
        return "\r\n".join(batch(path, folder, all_words, flags)) + "\r\n"
    return "\n".join(shell(path, folder, all_words, flags)) + "\n"


def shell(path: str, folder: str, words: Sequence[str], flags: Mapping[str, Flag]) -> Iterator[str]:
    yield "#!/bin/sh"
    yield from (f"# {line}" for line in (*SAID, *reasons(flags)))
    here = near(folder, str(PurePosixPath(path).parent), posixpath)
    yield f'cd "$(dirname "$0")"/{shlex.quote(here)} || exit 1'
    python, *rest = words
    yield f'exec {shlex.join([near(python, folder, posixpath), *rest])} "$@"'


def batch(path: str, folder: str, words: Sequence[str], flags: Mapping[str, Flag]) -> Iterator[str]:
    yield "@echo off"
    yield "chcp 65001 >nul"
    yield from (f"rem {line}" for line in (*SAID, *reasons(flags)))
    here = near(folder, str(PureWindowsPath(path).parent), ntpath)
    yield f'cd /d "%~dp0{here}" || exit /b 1'
    python, *rest = words
    yield " ".join([*map(quoted, (near(python, folder, ntpath), *rest)), "%*"])


def quoted(word: str) -> str:
    """For cmd: a percent sign is doubled, what holds spaces or its own signs is quoted."""
    word = word.replace("%", "%%")
    return f'"{word}"' if any(sign in word for sign in ' &()^|<>"') or not word else word


def reasons(flags: Mapping[str, Flag]) -> Iterator[str]:
    for flag, kept in flags.items():
        told = "; ".join((kept.why, *kept.because))
        yield f"{flag}: {' '.join(told.split())}"


def near(path: str, start: str, paths: ModuleType) -> str:
    """Relative where one lies in the other or beside it: a moved installation still starts."""
    if not paths.isabs(path):
        return path
    try:
        found = str(paths.relpath(path, start))
    except ValueError:  # another drive
        return path
    if found.split(paths.sep).count("..") > 1:
        return path
    return found if paths.sep in found or found == "." else str(paths.join(".", found))
