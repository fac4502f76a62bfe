"""uv: many wishes resolved together against what is installed, fast; and what it says of conflicts.

uv does not read pip's configuration, which is what people behind a bad line have set up: its
index, find-links and certificates are handed on. Only resolving is done here, never installing.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHANGE = re.compile(r"^ ([-+~]) ([A-Za-z0-9._-]+)==(\S+)")
PASSED_ON = {  # pip's setting -> uv's variable (uv documentation, "Environment variables")
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}


class Unsatisfiable(Exception):
    """No versions suit all wishes; the text is uv's own reasoning, on one line."""


class ResolverFailed(Exception):
    """uv could not resolve for another reason: no network, no such package, a bad line."""


@dataclass(frozen=True)
class Outcome:
    """What an installation of the wishes would change, as name -> version."""

    come: Mapping[str, str]
    go: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.come or self.go)


@contextmanager
def unlocked(python: str) -> Iterator[None]:
    """uv leaves an empty .lock in an environment that it only looked at; we leave nothing."""
    lock = Path(python).parent.parent / ".lock"
    there = lock.exists()
    try:
        yield
    finally:
        if not there and lock.is_file() and lock.stat().st_size == 0:
            lock.unlink()


def resolve(
    python: str,
    wishes: Sequence[str],
    holds: Sequence[str] = (),
    *,
    without: Sequence[str] = (),
    offline: bool = False,
) -> Outcome:
    """What `uv pip install --dry-run` would do. Raises Unsatisfiable or ResolverFailed.

    `without` names distributions that nobody's requirement may bring. numpy is taken as a wheel
    or not at all: building one takes minutes and a compiler.
    """
    with unlocked(python), tempfile.TemporaryDirectory() as folder:
        names = ("wishes.txt", "holds.txt", "without.txt")
        asked, held, barred = (Path(folder, name) for name in names)
        never = [f"{name} ; sys_platform == 'never'" for name in without]
        barred.write_text("\n".join(never), encoding="utf-8")
        asked.write_text("\n".join(wishes), encoding="utf-8")
        held.write_text("\n".join(holds), encoding="utf-8")
        words = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--no-progress"]
        words += ["--python", python, "-r", str(asked), "-c", str(held)]
        words += ["--override", str(barred), "--only-binary", "numpy"]
        words += ["--offline"] if offline else []
        words += ["--no-index"] if os.environ.get("PIP_NO_INDEX", "") in ("1", "true") else []
        run = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=600,
            env={**os.environ, **handed_on(), "NO_COLOR": "1"},
            cwd=folder,
        )
    return heard(run.stderr + run.stdout, run.returncode)


def heard(said: str, code: int) -> Outcome:
    """uv's lines of change; or its error as one of the two exceptions."""
    if code:
        told = " ".join(line.strip() for line in said.splitlines() if line.strip())
        told = re.sub(r"^Using Python \S+( environment at: \S+)?\s*", "", told)
        absent = re.search(r"(\S+) was not found in the (package registry|provided)", told)
        if absent:
            raise ResolverFailed(f"{absent[1]} is on none of the indexes in use")
        if "unsatisfiable" in told or "can be used" in told:
            raise Unsatisfiable(told.partition("cause: ")[2] or told)
        raise ResolverFailed(told.removeprefix("error: "))
    found = [match.groups() for line in said.splitlines() if (match := CHANGE.match(line))]
    return Outcome(
        come={name.lower(): version for mark, name, version in found if mark in "+~"},
        go={name.lower(): version for mark, name, version in found if mark == "-"},
    )


def handed_on() -> dict[str, str]:
    """uv's variables for what pip is configured to use; the user's own UV_* stay as they are."""
    settings = pip_settings()
    handed = {uv: settings[name] for name, uv in PASSED_ON.items() if name in settings}
    handed["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # the best version of all indexes, as pip
    return {name: value for name, value in handed.items() if name not in os.environ}


def default_index() -> str:
    """The index that only uv was told of: pip, told of none, is to ask it too. "" for none."""
    said = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL") or ""
    address = re.sub(r"^[\w-]+=(?=\w+:)", "", said.strip())  # uv takes NAME=ADDRESS, too
    return "" if not said or "index-url" in pip_settings() else address


def pip_settings() -> dict[str, str]:
    """What pip's configuration files and PIP_* variables say of indexes, by pip's own words."""
    words = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    run = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=60)
    found = {}
    for line in run.stdout.splitlines():  # global.index-url='https://...'; :env:.index-url='...'
        key, _, value = line.partition("=")
        place, _, name = key.rpartition(".")
        if place in ("global", "install", ":env:") and name in PASSED_ON:
            text = value.strip().strip("'\"").replace("\\n", " ")
            found[name] = " ".join(text.split())
    return found


def mentioned(reasoning: str, names: Sequence[str]) -> tuple[str, ...]:
    """Which of these distributions uv's reasoning is about."""
    words = set(re.findall(r"[a-z0-9][a-z0-9._-]*[a-z0-9]|[a-z0-9]", reasoning.lower()))
    return tuple(name for name in names if name in words)


def check(python: str) -> tuple[str, ...]:
    """Unmet requirements between what is installed, as `uv pip check` tells them."""
    words = [sys.executable, "-m", "uv", "pip", "check", "--python", python]
    run = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=60)
    lines = (run.stdout + run.stderr).splitlines()
    return tuple(line for line in lines if line.startswith("The package "))
