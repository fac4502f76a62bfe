"""Logs as data: sick ones, each with the finding it owes first, and healthy ones.

All were printed by installations that we broke, or written by hand around an error string.
sick/ID.log holds any number of logs, each after a line "=== what this one is", or
"=== warning: what this one is" where this form is milder than the finding mostly is,
"=== rest: what this one is" where only a reading of last resort knows it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
HEALTHY = sorted((HERE / "healthy").glob("*.log"))
HEAD = re.compile(rb"^=== (rest: )?(?:(error|warning|info): )?(.+)\n", re.MULTILINE)


@dataclass(frozen=True)
class Log:
    owed: str  # the id of the first finding
    severity: str  # where it is not that of the id, else ""
    rest: bool  # only a reading of last resort knows it
    story: str
    text: bytes

    def __str__(self) -> str:
        return f"{self.owed}: {self.story}"


def sick() -> Iterator[Log]:
    for path in sorted((HERE / "sick").glob("*.log")):
        nothing, *parts = HEAD.split(path.read_bytes())
        assert not nothing, f"{path.name} starts with a line of ==="
        for rest, severity, story, text in zip(*(parts[n::4] for n in range(4)), strict=True):
            yield Log(path.stem, (severity or b"").decode(), bool(rest), story.decode(), text)
