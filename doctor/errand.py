"""One thing that is to be fetched: what is wanted, what may be used, what was tried, until when."""

import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

from doctor import git
from doctor.archive import Refused
from doctor.facts import Refusal
from doctor.manifest import World
from doctor.mirrors import INSTEAD_OF, ORIGIN, Route, Unreachable, routes
from doctor.source import Source
from doctor.words import say

Say = Callable[[str], None]
# After one of these, or a second time limit, a host is not asked again on the same errand.
DEAD = ("dns", "refused", "tls", "proxy", "offline")


@dataclass(frozen=True)
class Patience:
    """Seconds: for a question, without a byte, for one route, for all of it. Bytes: an archive."""

    ask: float = 10.0
    stall: float = 20.0
    route: float = 300.0
    total: float = 1200.0
    archive: int = 1 << 30


@dataclass(frozen=True)
class Attempt:
    """A route that was tried and did not serve."""

    route: Route
    reason: str
    why: str


class NotObtained(Refusal):
    """No route brought it, or none that could be proved. `reference` is what a page explains."""

    code = 1

    def __init__(self, reference: str, tried: Sequence[Attempt] = (), **values: object) -> None:
        super().__init__(say(f"fetch-{reference}", "en", **values))
        self.reference, self.tried, self.words = (
            reference,
            tuple(tried),
            (f"fetch-{reference}", values),
        )

    @property
    def why(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Named:
    """The commit that is wanted, and whether the origin (or the user) named it."""

    commit: str
    ref: str
    by: str  # "origin", "you", or the mirror that is not to be believed

    @property
    def trusted(self) -> bool:
        return self.by in (ORIGIN, "you")


@dataclass
class Errand:
    """One call of obtain(): what is wanted, what may be used, and what was tried so far."""

    source: Source
    work: Path  # a folder of this errand alone
    world: World
    environ: Mapping[str, str]
    patience: Patience
    tell: Say
    allow_unproven: bool
    until: float
    tried: list[Attempt] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=count)

    @cached_property
    def git(self) -> git.Git | None:
        return git.find(self.environ, self.patience.stall)

    @cached_property
    def clones(self) -> list[Route]:
        """Where it can be cloned: the user's insteadOf, GITHUB_ENDPOINT, the origin, mirrors."""
        url = self.source.url
        found = list(routes(url, "clone", self.world, self.environ))
        other = git.rewritten(self.git, url) if self.git else url
        if other != url and git.PLAIN_URL.fullmatch(other):
            found = [Route(INSTEAD_OF, other, "clone"), *found]
        return list({route.url: route for route in found}.values())

    def left(self, most: float) -> float:
        """Seconds that the next act may take."""
        left = min(most, self.until - monotonic())
        if left <= 0:
            raise Unreachable("timeout", self.source.url, "the time for all of it is used up")
        return left

    def scratch(self) -> Path:
        return self.work / f"{next(self.numbers)}"

    def alive(self, asked: Sequence[Route]) -> Iterator[Route]:
        """The routes whose host has not failed already, while there is time."""
        for route in asked:
            if monotonic() < self.until and urlsplit(route.url).netloc not in self.dead:
                yield route

    def failed(self, route: Route, error: Unreachable | Refused) -> None:
        """Remember and tell it; a host that nobody can reach is not asked again."""
        host = urlsplit(route.url).netloc
        again = any(urlsplit(one.route.url).netloc == host for one in self.tried)
        if error.reason in DEAD or (error.reason == "timeout" and again):
            self.dead.add(host)
        self.tried.append(Attempt(route.shown, error.reason, error.why))
        self.tell(f"{route}: {error.reason}, {error.why}")


def git_until(errand: Errand, stop: threading.Event) -> git.Git:
    """Git, until another route was faster."""
    assert errand.git
    return replace(errand.git, stop=stop)


def remove(path: Path) -> None:
    """Remove a file or folder of ours; git makes its objects read-only, which Windows minds."""
    if path.is_dir() and not path.is_symlink():
        for below in path.rglob("*"):
            if not below.is_symlink() and below.is_file():
                below.chmod(stat.S_IWUSR | stat.S_IRUSR)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
