"""Bring a repository (a pack of nodes, ComfyUI itself), an archive or a folder: proved, or not.

The origin, or the user, names a commit; any route may deliver it. A clone proves itself: git asks
for the commit by its id. An archive is held against the commit's own tree (proof.py). What cannot
be proved is said, and taken only where the user allows it. All network of the doctor is reached
through here; HTTP is spoken in download.py, git's own protocol by git.py.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic
from urllib.parse import quote

from doctor import archive, git, proof
from doctor.archive import Refused
from doctor.download import download, read
from doctor.errand import Attempt, Errand, Named, NotObtained, Patience, Say, remove
from doctor.manifest import World
from doctor.mirrors import (
    ORIGIN,
    Route,
    Unreachable,
    api,
    archives,
    private,
    redacted,
    routes,
    secret,
)
from doctor.source import ARCHIVE, FOLDER, BadSource, Source, local_path

__all__ = [
    "Arrived",
    "BadSource",
    "NotObtained",
    "Patience",
    "Refused",
    "Route",
    "Source",
    "Unreachable",
    "download",
    "obtain",
]


@dataclass(frozen=True)
class Arrived:
    """What lies in the staging folder now. `why` says what is not proved, and about which files."""

    path: Path
    url: str
    ref: str  # "refs/heads/main", "refs/tags/v1", or as the user wrote it
    commit: str
    route: Route
    proven: bool
    why: str = ""


def obtain(
    source: Source,
    staging: Path,
    world: World,
    *,
    environ: Mapping[str, str],
    offline: bool = False,
    allow_unproven: bool = False,
    say: Say = lambda line: None,
    timeout: Patience | None = None,
) -> Arrived:
    """Bring what is wanted into a new folder below `staging`; the caller moves it into place.

    Raises NotObtained, and leaves nothing of it behind then. `say` gets one line per attempt.
    """
    patience = timeout or Patience()
    until = monotonic() + patience.total
    staging.mkdir(parents=True, exist_ok=True)
    work = Path(mkdtemp(prefix=".work-", dir=staging))  # others may use the same staging folder
    errand = Errand(source, work, world, environ, patience, say, allow_unproven, until)
    try:
        if offline and not local_path(source.url):
            raise NotObtained("offline", "Nothing is fetched offline", "Name a local archive.", ())
        arrived = brought(errand)
        path = staging / f"{source.name}-{work.name.removeprefix('.work-')}"
        return replace(arrived, path=arrived.path.rename(path))
    finally:
        remove(work)


def brought(errand: Errand) -> Arrived:
    if errand.source.kind == FOLDER:
        return copied(errand)
    if errand.source.kind == ARCHIVE:
        return settled(errand, loose_archives(errand))
    named = name_commit(errand)
    return settled(errand, arrivals(errand, named))


def settled(errand: Errand, found: Iterator[Arrived]) -> Arrived:
    """The first proved arrival; else, where that is allowed, the first of the others."""
    doubtful = []
    for arrived in found:
        if arrived.proven:
            errand.tell(f"{arrived.route}: arrived, proved")
            return arrived
        errand.tell(f"{arrived.route}: arrived, not proved: {arrived.why}")
        errand.tried.append(Attempt(arrived.route, "unproven", arrived.why))
        doubtful.append(arrived)
    if doubtful and errand.allow_unproven:
        return doubtful[0]
    if not doubtful:
        raise nothing(errand)
    advice = "Read which files these are; --allow-unproven takes it nevertheless."
    raise NotObtained("unproven", f"It is not proved: {doubtful[0].why}", advice, errand.tried)


def nothing(errand: Errand) -> NotObtained:
    """No route brought anything."""
    whys = "; ".join(f"{one.route.name} {one.reason}" for one in errand.tried) or "no time left"
    advice = "Name a proxy (HTTPS_PROXY), a mirror of yours (GITHUB_ENDPOINT), or a local archive."
    why = f"{redacted(errand.source.url)} was not to be had ({whys})"
    return NotObtained("github-unreachable", why, advice, errand.tried)


def name_commit(errand: Errand) -> Named:
    """The commit of the wanted ref: the user's own word, the origin's, or nobody's."""
    source = errand.source
    if git.COMMIT.fullmatch(source.ref):
        return Named(source.ref, "", "you")
    origin = Route(ORIGIN, source.url, "clone")
    for ask in (ask_git, ask_api):
        try:
            named = ask(errand, origin)
        except Unreachable as error:
            errand.failed(origin, error)
            continue
        if named and not private(source.url):
            return Named(named.commit, named.ref, "plain http, where anybody can answer")
        if named:
            return named
    refuse_absent(errand)
    return ask_mirrors(errand)


def refuse_absent(errand: Errand) -> None:
    """The origin did answer, and has no such thing: then no mirror is asked."""
    reasons, url = {one.reason for one in errand.tried}, redacted(errand.source.url)
    if "no-such-ref" in reasons:
        why = f"{url} has no branch or tag {errand.source.ref!r}"
        raise NotObtained("no-such-ref", why, "Name one that it has.", errand.tried)
    if reasons and reasons <= {"http-404", "http-401"}:
        why = f"{url} does not exist, or is private"
        raise NotObtained("no-such-repository", why, "Look at the address.", errand.tried)


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
        why = f"Which commit of {redacted(errand.source.url)} is meant, only its origin can say"
        advice = "It did not answer. Write @COMMIT (40 digits) behind the address to name it."
        raise NotObtained("commit-unknown", why, advice, errand.tried)
    for route in errand.alive([route for route in errand.clones if not route.own]):
        try:
            named = ask_git(errand, route)
        except Unreachable as error:
            errand.failed(route, error)
        else:
            if named:
                return named
    raise nothing(errand)


def arrivals(errand: Errand, named: Named) -> Iterator[Arrived]:
    """By clone from one route after the other, then by archive."""
    if errand.git:
        yield from cloned(errand, errand.git, named)
    else:
        errand.tell("git is not there: by archive")
    if not secret(errand.source.url):
        yield from unpacked(errand, named)


def cloned(errand: Errand, program: git.Git, named: Named) -> Iterator[Arrived]:
    wanted = git.Clone(errand.source.url, named.commit, named.ref)
    for route in errand.alive(errand.clones):
        errand.tell(f"{route}: cloning {named.commit[:12]}")
        into = errand.scratch()
        try:
            git.clone(program, route, wanted, into, errand.left(errand.patience.route))
            seconds = errand.left(errand.patience.route)
            missing = git.submodules(program, route, wanted.origin, into, seconds)
        except Unreachable as error:
            remove(into)
            errand.failed(route, other_commit(errand, program, route, named, error))
            continue
        why = f"submodules did not arrive: {', '.join(missing)}" if missing else ""
        yield judged(errand, route, named, into, why)


def other_commit(
    errand: Errand, program: git.Git, route: Route, named: Named, error: Unreachable
) -> Unreachable:
    """Which commit a route has instead of the one that was asked for."""
    if error.reason != "commit" or route.own:
        return error
    try:
        seconds = errand.left(errand.patience.ask)
        theirs, _ = git.refs(program, route, errand.source.ref, seconds)
    except Unreachable:
        return error
    has = f"has {theirs[:12]}" if theirs else "has another one"
    return Unreachable("commit", route.url, f"{has}, the origin names {named.commit[:12]}")


def unpacked(errand: Errand, named: Named) -> Iterator[Arrived]:
    claimed: proof.Claim | None = None
    asked = archives(errand.source.home, named.commit, errand.world, errand.environ)
    for route in errand.alive(asked):
        errand.tell(f"{route}: archive of {named.commit[:12]}")
        into = errand.scratch()
        try:
            found = fetch_archive(errand, route, into)
            if found.label not in ("", named.commit) and git.COMMIT.fullmatch(found.label):
                why = f"sent {found.label[:12]}, not {named.commit[:12]}"
                raise Unreachable("commit", route.url, why)
        except (Unreachable, Refused) as error:
            remove(into)
            errand.failed(route, error)
            continue
        claimed = claimed or proof.claim(errand, named)
        yield judged(errand, route, named, into, proof.doubt(claimed, found))


def fetch_archive(errand: Errand, route: Route, into: Path) -> archive.Unpacked:
    packed = into.with_name(f"{into.name}.archive")
    patience = errand.patience
    seconds, stall = errand.left(patience.route), patience.stall
    hash = errand.source.sha256
    try:
        download(
            route.url, packed, sha256=hash, timeout=seconds, stall=stall, limit=patience.archive
        )
        return archive.unpack(packed, into)
    finally:
        packed.unlink(missing_ok=True)
        packed.with_name(f"{packed.name}.part").unlink(missing_ok=True)


def judged(errand: Errand, route: Route, named: Named, path: Path, why: str) -> Arrived:
    if not named.trusted:
        why = "; ".join(
            filter(None, (f"its commit was named by {named.by}, not by the origin", why))
        )
    ref = named.ref or errand.source.ref
    url = redacted(errand.source.url)
    return Arrived(path, url, ref, named.commit, route.shown, not why, why)


def loose_archives(errand: Errand) -> Iterator[Arrived]:
    """An archive that belongs to no commit: the user's own file, or an address."""
    source = errand.source
    asked = routes(source.url, "archive", errand.world, errand.environ)
    for route in errand.alive(asked):
        into = errand.scratch()
        try:
            fetch_archive(errand, route, into)
        except (Unreachable, Refused) as error:
            errand.failed(route, error)
            continue
        mine = bool(local_path(source.url) or source.sha256)
        straight = route.own and private(source.url)
        why = "" if mine or straight else "nobody named its sha256, and others can change it"
        yield Arrived(into, redacted(source.url), "", "", route.shown, not why, why)


def copied(errand: Errand) -> Arrived:
    """A folder of the user: taken as it is, links as links."""
    into = errand.scratch()
    shutil.copytree(errand.source.url, into, symlinks=True)
    route = Route("folder", errand.source.url, "folder")
    return Arrived(into, errand.source.url, "", "", route, True)
