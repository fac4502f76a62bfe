"""Announcer: how far the work is, on stderr."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.report import say

PAUSE = 0.2  # seconds between two announcements
PAUSES = {"lines": 1.0}  # of a style of its own


@dataclass
class Announcer:
    """Progress on stderr: a line written over, or lines, or JSON objects for a program."""

    style: str
    lang: str
    last: float = field(default_factory=time.monotonic)
    stage: str = ""  # what was announced last and is not finished

    def __call__(
        self, stage: str, done: int, of: int, picture: Mapping[str, object] | None = None, /
    ) -> None:
        now, pause = time.monotonic(), PAUSES.get(self.style, PAUSE)
        finished = done == of and self.stage == stage
        if self.style == "none" or (now - self.last < pause and not finished):
            return
        self.last, self.stage = now, "" if done == of else stage
        text = f"{say(stage, self.lang)} {done}/{of}"
        match self.style:
            case "json":
                event: dict[str, object] = {"stage": stage, "done": done, "of": of}
                event |= {"picture": picture} if picture else {}
                text, end = f"@progress {json.dumps(event)}", "\n"
            case "tty":
                text, end = f"\r\033[K{'' if done == of else text}", ""
            case _:
                end = "\n"
        sys.stderr.write(text + end)
        sys.stderr.flush()
