"""Bring a repository (a pack of nodes, ComfyUI itself), an archive or a folder: proved, or not.

The origin, or the user, names a commit; any route may deliver it. A clone proves itself: git asks
for the commit by its id. An archive is held against the commit's own tree (proof.py). What cannot
be proved is said, and taken only where the user allows it. All network of the doctor is reached
through here; HTTP is spoken in download.py, git's own protocol by git.py.
"""

import shutil
import threading
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic

from doctor import archive, git, lfs, proof
from doctor.archive import Refused
from doctor.download import download, peek
from doctor.errand import Attempt, Errand, Named, NotObtained, Patience, Say, git_until, remove
from doctor.manifest import World
from doctor.mirrors import (
    Route,
    Unreachable,
    archives,
    private,
    redacted,
    routes,
    secret,
)
from doctor.naming import name_commit, nothing
from doctor.race import Way, raced
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
    "newest",
    "obtain",
    "remove",
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


Arrivals = Generator[Arrived, None, None]


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
            raise NotObtained("offline")
        arrived = brought(errand)
        path = staging / f"{source.name}-{work.name.removeprefix('.work-')}"
        return replace(arrived, path=arrived.path.rename(path))
    finally:
        remove(work)


def newest(
    source: Source,
    staging: Path,
    world: World,
    *,
    environ: Mapping[str, str],
    offline: bool = False,
    say: Say = lambda line: None,
    timeout: Patience | None = None,
) -> str:
    """The commit that the origin names for a ref now; nothing is fetched. Raises NotObtained."""
    patience = timeout or Patience()
    until = monotonic() + patience.total
    if offline:
        raise NotObtained("offline")
    errand = Errand(source, staging, world, environ, patience, say, False, until)
    return name_commit(errand).commit


def brought(errand: Errand) -> Arrived:
    if errand.source.kind == FOLDER:
        return copied(errand)
    if errand.source.kind == ARCHIVE:
        return settled(errand, loose_archives(errand))
    named = name_commit(errand)
    arrived = settled(errand, arrivals(errand, named))
    lfs.fill(errand, arrived.path)
    return arrived


def settled(errand: Errand, found: Arrivals) -> Arrived:
    """The first proved arrival; else, where that is allowed, the first of the others."""
    doubtful = []
    with closing(found):
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
    raise NotObtained("unproven", errand.tried, why=doubtful[0].why)


def arrivals(errand: Errand, named: Named) -> Arrivals:
    """By clone from one route after the other, then by archive."""
    if errand.git:
        yield from cloned(errand, named)
    else:
        errand.tell("git is not there: by archive")
    if not secret(errand.source.url):
        yield from unpacked(errand, named)


def cloned(errand: Errand, named: Named) -> Arrivals:
    wanted = git.Clone(errand.source.url, named.commit, named.ref)

    def bring(route: Route, into: Path, stop: threading.Event) -> list[str]:
        program = git_until(errand, stop)
        try:
            git.clone(program, route, wanted, into, errand.left(errand.patience.route))
            seconds = errand.left(errand.patience.route)
            return git.submodules(program, route, wanted.origin, into, seconds)
        except Unreachable as error:
            raise other_commit(errand, program, route, named, error) from error

    way = Way(f"cloning {named.commit[:12]}", lambda route, s: answers(errand, route, s), bring)
    with closing(raced(errand, errand.clones, way)) as found:
        for route, into, missing in found:
            why = f"submodules did not arrive: {', '.join(missing)}" if missing else ""
            yield judged(errand, route, named, into, why)


def answers(errand: Errand, route: Route, seconds: float) -> None:
    """Does git answer there, whatever it has."""
    assert errand.git
    git.refs(errand.git, route, "", seconds)


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


def unpacked(errand: Errand, named: Named) -> Arrivals:
    claimed: proof.Claim | None = None
    asked = archives(errand.source.home, named.commit, errand.world, errand.environ)

    def bring(route: Route, into: Path, stop: threading.Event) -> archive.Unpacked:
        found = fetch_archive(errand, route, into, stop)
        if found.label not in ("", named.commit) and git.COMMIT.fullmatch(found.label):
            why = f"sent {found.label[:12]}, not {named.commit[:12]}"
            raise Unreachable("commit", route.url, why)
        return found

    way = Way(f"archive of {named.commit[:12]}", sends, bring)
    with closing(raced(errand, asked, way)) as found:
        for route, into, packed in found:
            claimed = claimed or proof.claim(errand, named)
            yield judged(errand, route, named, into, proof.doubt(claimed, packed))


def sends(route: Route, seconds: float) -> None:
    """Does the first byte of an archive come."""
    peek(route.url, seconds)


def fetch_archive(
    errand: Errand, route: Route, into: Path, stop: threading.Event
) -> archive.Unpacked:
    packed = into.with_name(f"{into.name}.archive")
    patience = errand.patience
    try:
        download(
            route.url,
            packed,
            sha256=errand.source.sha256,
            timeout=errand.left(patience.route),
            stall=patience.stall,
            limit=patience.archive,
            stop=stop,
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


def loose_archives(errand: Errand) -> Arrivals:
    """An archive that belongs to no commit: the user's own file, or an address."""
    source = errand.source
    asked = routes(source.url, "archive", errand.world, errand.environ)

    def bring(route: Route, into: Path, stop: threading.Event) -> archive.Unpacked:
        return fetch_archive(errand, route, into, stop)

    with closing(raced(errand, asked, Way("archive", sends, bring))) as found:
        for route, into, _ in found:
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
