"""Sharing: what is written to be shown to others is redacted, and what was taken out is counted."""

from typing import Any

from doctor.redact import own_names, redact
from doctor.screen import Screen
from doctor.words import say


def shared(whole: dict[str, Any], screen: Screen) -> dict[str, Any]:
    """The same without names, with the counts beside it; a person is told the counts."""
    done = redact(whole, own_names())
    told = ", ".join(
        f"{say(f'redacted-{what}', screen.lang)} {n}" for what, n in done.counts.items() if n
    )
    screen.say("redacted", what=told or say("nothing", screen.lang))
    kept: dict[str, Any] = done.data | {"redacted": done.counts}
    return kept
