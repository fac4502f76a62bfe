"""Which commit is wanted: by the user's own word, or its origin's over a line nobody can change."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from urllib.parse import quote

from doctor import git, remember
from doctor.download import read
from doctor.errand import Errand, Named, NotObtained
from doctor.mirrors import ORIGIN, Route, Unreachable, api, private, redacted, secret
from doctor.race import Way, raced
from doctor.source import local_path

PATIENCE = 1.5  # seconds for git alone, before the API is asked beside it; it counts questions


def nothing(errand: Errand) -> NotObtained:
    """No route brought anything."""
    url = redacted(errand.source.url)
    if local_path(errand.source.url) and errand.tried:
        return NotObtained("bad-archive", errand.tried, url=url, why=errand.tried[-1].why)
    whys = "; ".join(f"{one.route.name} {one.reason}" for one in errand.tried) or "no time left"
    return NotObtained("github-unreachable", errand.tried, url=url, whys=whys)


def name_commit(errand: Errand) -> Named:
    """The commit of the wanted ref: the user's own word, the origin's, or nobody's."""
    source = errand.source
    if git.COMMIT.fullmatch(source.ref):
        return Named(source.ref, "", "you")
    for named in told(errand, Route(ORIGIN, source.url, "clone")):
        if private(source.url):
            return named
        return Named(named.commit, named.ref, "plain http, where anybody can answer")
    refuse_absent(errand)
    return ask_mirrors(errand)


def told(errand: Errand, origin: Route) -> Iterator[Named]:
    """What the origin says, by git and by its API; each failure is remembered and told."""
    heard: queue.Queue[Named | Unreachable | None] = queue.Queue()
    waiting = [ask_api, ask_git]
    running, since = 0, monotonic()
    while running or waiting:
        if waiting and (not running or monotonic() - since > PATIENCE):
            asked = (errand, origin, waiting.pop(), heard)
            threading.Thread(target=ask, args=asked, daemon=True).start()
            running, since = running + 1, monotonic()
        try:
            answer = heard.get(timeout=0.05)
        except queue.Empty:
            continue
        running -= 1
        if isinstance(answer, Unreachable):
            errand.failed(origin, answer)
        elif answer:
            yield answer


def ask(
    errand: Errand,
    origin: Route,
    how: "Asker",
    heard: "queue.Queue[Named | Unreachable | None]",
) -> None:
    try:
        heard.put(how(errand, origin))
    except Unreachable as error:
        if how is ask_git:
            remember.note(errand.environ, origin, error.reason)
        heard.put(error)


def refuse_absent(errand: Errand) -> None:
    """The origin did answer, and has no such thing: then no mirror is asked."""
    reasons, url = {one.reason for one in errand.tried}, redacted(errand.source.url)
    if "no-such-ref" in reasons:
        ref = repr(errand.source.ref)
        raise NotObtained("no-such-ref", errand.tried, url=url, ref=ref)
    if reasons and reasons <= {"http-404", "http-401"}:
        raise NotObtained("no-such-repository", errand.tried, url=url)


def ask_git(errand: Errand, route: Route) -> Named | None:
    """What `git ls-remote` says; None where there is no git."""
    if not errand.git:
        return None
    ref = errand.source.ref
    commit, full = git.refs(errand.git, route, ref, errand.left(errand.patience.ask))
    if not commit:
        why = f"has no branch or tag {ref!r}" if ref else "is empty"
        raise Unreachable("no-such-ref", route.url, why)
    return Named(commit, full, route.name)


def ask_api(errand: Errand, route: Route) -> Named | None:
    """What GitHub's API says over TLS. It knows short commits, too; it is another host than git's.

    https://docs.github.com/rest/commits/commits (media type sha).
    """
    ref, seconds = errand.source.ref or "HEAD", errand.left(errand.patience.ask)
    if secret(route.url):
        return None
    url = f"{api(errand.source.home)}/commits/{quote(ref, safe='')}"
    told = read(url, timeout=seconds, limit=1000, accept="application/vnd.github.sha")
    commit = told.decode("ascii", "replace").strip()
    return Named(commit, errand.source.ref, ORIGIN) if git.COMMIT.fullmatch(commit) else None


def ask_mirrors(errand: Errand) -> Named:
    """Nobody who may be believed was reached: a mirror's word serves only where that is allowed."""
    if not errand.allow_unproven:
        url = redacted(errand.source.url)
        raise NotObtained("commit-unknown", errand.tried, url=url)

    def bring(route: Route, into: Path, stop: threading.Event) -> Named | None:
        return ask_git(errand, route)

    def answers(route: Route, seconds: float) -> None:
        ask_git(errand, route)

    mirrors = [route for route in errand.clones if not route.own]
    with closing(raced(errand, mirrors if errand.git else [], Way("asked", answers, bring))) as all:
        for _, _, named in all:
            if named:
                return named
    raise nothing(errand)


Asker = Callable[[Errand, Route], Named | None]
