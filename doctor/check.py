"""@check: the registry of pure functions from Facts to findings."""

from collections.abc import Callable, Iterator

from doctor.facts import Facts
from doctor.finding import Finding

Check = Callable[[Facts], Iterator[Finding]]
CHECKS: dict[str, Check] = {}  # id -> check, in the order they are reported


def check(id: str) -> Callable[[Check], Check]:
    """Register a check under a stable kebab-case id; its words are the page of that id."""

    def register(run: Check) -> Check:
        if id in CHECKS:
            raise ValueError(f"two checks are called {id}")
        CHECKS[id] = run
        return run

    return register


def subject(id: str) -> str:
    """The module a check stands in: "torch" for the checks of doctor/checks/torch.py."""
    return CHECKS[id].__module__.rpartition(".")[2]
