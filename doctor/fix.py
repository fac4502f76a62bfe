"""@fix: the registry of pure functions from Facts to steps. A fix describes; the journal acts."""

from collections.abc import Callable, Iterator

from doctor.facts import Facts
from doctor.step import Step


class CannotFix(Exception):
    """The finding stands, and this fix does not suit the machine; the sentence says why."""


Fix = Callable[[Facts], Iterator[Step]]
FIXES: dict[str, Fix] = {}


def fix(id: str) -> Callable[[Fix], Fix]:
    """Register a fix under the name that findings offer it by. Its docstring is its help text."""

    def register(steps: Fix) -> Fix:
        if id in FIXES:
            raise ValueError(f"two fixes are called {id}")
        FIXES[id] = steps
        return steps

    return register
