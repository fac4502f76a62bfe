"""Which addresses hold the same bytes, and in which order they are asked. Pure: nothing is opened.

The user's own comes first, then the origin, then manifests/mirrors.toml. A route says where to ask,
never whom to believe: what arrives is held against what the origin, or the user, named.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit, urlunsplit

from doctor.manifest import World

GITHUB = "https://github.com"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ORIGIN, INSTEAD_OF, ENDPOINT = "origin", "git's insteadOf", "GITHUB_ENDPOINT"
STOPPED = "stopped"  # of an attempt that was ended because another one was faster


class Unreachable(Exception):
    """An address that did not give what was asked for: one word, the address, one sentence.

    Words: dns refused timeout tls proxy http-STATUS reset truncated hash size offline redirect
    scheme commit disk git-missing git, and no-such-ref of an origin that has it not.
    """

    def __init__(self, reason: str, url: str, why: str) -> None:
        super().__init__(f"{redacted(url)}: {why}")
        self.reason, self.url, self.why = reason, redacted(url), why


@dataclass(frozen=True)
class Route:
    """One address to ask, and whose it is: "origin", the user's variable, or a mirror's name."""

    name: str
    url: str
    kind: str  # clone, archive, raw, index, wheels, models

    @property
    def own(self) -> bool:
        """Is this the very host that the address names, and not somebody between."""
        return self.name == ORIGIN

    @property
    def between(self) -> bool:
        """Is this a mirror of the manifest, and neither the host itself nor one the user named."""
        return self.name not in (ORIGIN, INSTEAD_OF, ENDPOINT)

    @property
    def shown(self) -> "Route":
        """The same without a password, for whoever keeps or prints it."""
        return replace(self, url=redacted(self.url))

    def __str__(self) -> str:
        return f"{self.name} ({redacted(self.url)})"


def redacted(url: str) -> str:
    """An address without the name and password in it."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", url)


def secret(url: str) -> bool:
    """Does the address carry a name, password or token. Such a one is shown to no mirror."""
    return redacted(url) != url


def loopback(url: str) -> bool:
    return urlsplit(url).hostname in LOOPBACK


def private(url: str) -> bool:
    """Can nobody on the way change what this address answers (TLS, or this very machine)."""
    return urlsplit(url).scheme == "https" or loopback(url)


def routes(url: str, kind: str, world: World, environ: Mapping[str, str]) -> tuple[Route, ...]:
    """The user's own route, the origin, and the mirrors of that kind, each address once."""
    found = [Route(ORIGIN, url, kind)]
    if not secret(url):
        found = [*endpoint(url, kind, environ), *found]
        mirrors = (m for m in world.mirrors if m.kind == kind and url.startswith(m.of))
        found += [Route(mirror.name, mirror.route(url), kind) for mirror in mirrors]
    return tuple({route.url: route for route in reversed(found)}.values())[::-1]


def endpoint(url: str, kind: str, environ: Mapping[str, str]) -> list[Route]:
    """GITHUB_ENDPOINT stands in place of https://github.com (ComfyUI-Manager, git_utils.py)."""
    own = environ.get(ENDPOINT, "").strip().rstrip("/")
    if kind not in ("clone", "archive") or not own or own == GITHUB:
        return []
    if not url.startswith(f"{GITHUB}/"):
        return []
    return [Route(ENDPOINT, own + url.removeprefix(GITHUB), kind)]


def archives(url: str, commit: str, world: World, environ: Mapping[str, str]) -> list[Route]:
    """Where a repository's zip of one commit can be had.

    HOST/OWNER/NAME/archive/COMMIT.zip is the form of GitHub, GitHub Enterprise, Gitea and Forgejo;
    GitHub itself sends on to codeload.github.com, which is a host of its own to be out of reach.
    """
    found = routes(f"{url}/archive/{commit}.zip", "archive", world, environ)
    if url.startswith(f"{GITHUB}/"):
        path = url.removeprefix(GITHUB)
        direct = f"https://codeload.github.com{path}/zip/{commit}"
        more = routes(direct, "archive", world, {})
        found = (*(r for r in found if not r.own and r.name == ENDPOINT), *more, *found)
    return list({route.url: route for route in found}.values())


def api(url: str) -> str:
    """GitHub's API for a repository; HOST/api/v3 is where GitHub Enterprise has it."""
    parts = urlsplit(url)
    owner_and_name = parts.path.strip("/")
    if parts.hostname == "github.com":
        return f"https://api.github.com/repos/{owner_and_name}"
    base = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "/api/v3", "", ""))
    return f"{base}/repos/{owner_and_name}"
