"""What somebody asked for: an address, an archive or a folder, as it was typed or pasted."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

from doctor.facts import Refusal
from doctor.mirrors import GITHUB, redacted
from doctor.words import say

REPOSITORY, ARCHIVE, FOLDER = "repository", "archive", "folder"
PACKED = re.compile(r"(?i)\.(zip|tar|tgz|tar\.gz)$")
REF = re.compile(r"(?!.*(\.\.|//|@\{|\.lock$|/$|\.$))[A-Za-z0-9_][A-Za-z0-9_./+@-]*")
# git's own short form and the long one: the page of a repository offers them beside https.
SSH = re.compile(r"(?:ssh://(?:git@)?|git@)([\w.-]+)(?::\d+(?=/)|:|/)/?([^@]+?)(?:@(.+))?")
PATH = re.compile(r"(/[A-Za-z0-9._~+%-]+)+/?")
SHA256 = re.compile(r"sha256=([0-9a-fA-F]{64})")
# What a browser shows of a repository on GitHub, and what its buttons download.
PAGES = re.compile(r"(/[^/]+/[^/]+)/(?:tree|commit)/(.+)")
BUTTONS = re.compile(
    r"(/[^/]+/[^/]+)/(?:archive/(?:refs/(?:heads|tags)/)?|(?:zip|tar)ball/(?:refs/(?:heads|tags)/)?)"
    r"(.+?)(?:\.zip|\.tar\.gz)?"
)


class BadSource(Refusal):
    """Something that was asked for and is no address, archive or folder."""

    reference = "bad-source"

    def __init__(self, text: str, key: str, **values: object) -> None:
        values = {"text": repr(redacted(text)), **values}
        super().__init__(say(f"source-{key}", "en", **values))
        self.text, self.words = redacted(text), (f"source-{key}", values)


@dataclass(frozen=True)
class Source:
    """`url` is an address or a path; `ref` a branch, tag or commit, "" for the default branch."""

    kind: str  # repository, archive, folder
    url: str
    ref: str = ""
    sha256: str = ""  # of an archive, where the user named it

    @property
    def home(self) -> str:
        """The address of a repository without .git, where its archives and its API are."""
        return self.url.removesuffix(".git")

    @property
    def name(self) -> str:
        """What a folder of it is called: the last part of the address, nothing of a path in it."""
        last = re.split(r"[/\\]", self.home.rstrip("/\\"))[-1]
        return re.sub(r"[^A-Za-z0-9._-]|^[.-]+", "_", PACKED.sub("", last)) or "_"

    @classmethod
    def parse(cls, text: str) -> "Source":
        """https://HOST/OWNER/NAME[.git][@REF], an archive (address or file), or a folder.

        git@HOST:OWNER/NAME is asked for over https, which every host of git speaks, too.
        """
        text = text.strip()
        refuse_odd(text)
        if re.match(r"(?i)(git\+)?https?://", text):
            return from_address(text.removeprefix("git+"))
        if over_ssh := SSH.fullmatch(text):
            host, path, ref = over_ssh.groups()
            return repository(text, f"https://{host.lower()}", f"/{path}", ref or "")
        local = local_path(text)
        if not local or re.match(r"[\w.-]+@[\w.-]+:", text):
            raise BadSource(text, "not-https")
        return from_path(local.expanduser())


def refuse_odd(text: str) -> None:
    if not text or text.startswith("-"):
        raise BadSource(text, "option")
    if not text.isprintable():
        raise BadSource(text, "invisible")
    if re.match(r"(git\+)?[\w+.-]+::", text):
        raise BadSource(text, "program")


def local_path(url: str) -> Path | None:
    """The file that a file: address or a path names; None for an address of another host."""
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    return None if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", url) else Path(url)


def from_path(path: Path) -> Source:
    if path.is_dir():
        return Source(FOLDER, str(path))
    if path.is_file():
        return Source(ARCHIVE, str(path))
    raise BadSource(str(path), "not-there")


def from_address(text: str) -> Source:
    parts = urlsplit(text)
    if not parts.hostname or " " in text or "\\" in text:
        raise BadSource(text, "no-address")
    host = parts.netloc.lower() if "@" not in parts.netloc else parts.netloc
    scheme = parts.scheme.lower()
    if host in ("github.com", "www.github.com"):
        host, scheme = "github.com", "https"
    base, path = f"{scheme}://{host}", parts.path
    page = PAGES.fullmatch(path.rstrip("/")) or BUTTONS.fullmatch(path)
    if page and base == GITHUB:
        return repository(text, base, page[1], page[2])
    if PACKED.search(path):
        hash = SHA256.fullmatch(parts.fragment)
        url = urlunsplit((scheme, host, path, parts.query, ""))
        return Source(ARCHIVE, url, sha256=hash[1].lower() if hash else "")
    path, _, ref = path.partition("@")
    return repository(text, base, path, ref)


def repository(text: str, base: str, path: str, ref: str) -> Source:
    path = path.rstrip("/")
    if not PATH.fullmatch(path) or ".." in path.split("/"):
        raise BadSource(text, "no-repository")
    if ref and not REF.fullmatch(ref):
        raise BadSource(text, "bad-ref", ref=repr(ref))
    if base == GITHUB:
        path = "/".join(path.removesuffix(".git").split("/")[:3])
    return Source(REPOSITORY, base + path, ref)
