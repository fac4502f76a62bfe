"""The real git on a leash: bounded in time, no prompts, no hooks, no odd transports.

The user's proxies, CA bundles and credentials are git's own business and stay in force. What the
user's insteadOf would do to an address is asked for (rewritten) and made a route of its own, so
that no address leads anywhere else than it says.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

import psutil

from doctor.mirrors import STOPPED, Route, Unreachable, redacted
from doctor.tree import Listing

COMMIT = re.compile(r"[0-9a-f]{40}")
PLAIN_URL = re.compile(r"https?://[^\s=\x00-\x20\x7f]+")

SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.askPass": "",
    "core.longpaths": "true",
    "core.autocrlf": "false",  # the files of the commit, byte for byte
    "http.sslVerify": "true",  # who names a commit must be who he says
    "transfer.fsckObjects": "true",
    "fetch.fsckObjects": "true",
    "advice.detachedHead": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
}
# Not for strangers: what the user gives to every host.
TO_MIRRORS = {"credential.helper": "", "http.extraHeader": "", "http.cookieFile": ""}
INHERITED = re.compile(
    r"GIT_(DIR|WORK_TREE|INDEX_FILE|COMMON_DIR|NAMESPACE|TEMPLATE_DIR|CEILING_DIRECTORIES|PREFIX"
    r"|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|SSL_NO_VERIFY|TRACE.*|PROTOCOL_FROM_USER)"
)
FIXED = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "GCM_INTERACTIVE": "never",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "LC_ALL": "C",
    "LANGUAGE": "C",
}

# What git prints, in the order in which it is believed; curl's sentences reach us through it.
SAID = tuple(
    (re.compile(pattern, re.IGNORECASE), reason, why)
    for pattern, reason, why in (
        (r"No space left|quota", "disk", "the disk is full"),
        (r"resolve proxy|CONNECT tunnel failed|after CONNECT|error: 407", "proxy", "proxy failed"),
        (r"not resolve host", "dns", "its name was not found"),
        (r"SSL certificate|certificate verif|CAfile", "tls", "its certificate was not accepted"),
        (r"too slow|timed out|Timeout was reached", "timeout", "it did not answer in time"),
        (r"returned error: (\d{3})", "http-{}", "it answered {}"),
        (r"repository .* not found|not valid: is this a git repo", "http-404", "has no such thing"),
        (r"could not read (Username|Password)", "http-401", "it is private, or does not exist"),
        (r"not our ref|unadvertised object|remote ref|did not send all", "commit", "has it not"),
        (r"Failed to connect|Connection refused|Couldn't connect", "refused", "nobody listens"),
        (r"unable to update url base from redirection|redirect", "redirect", "it leads elsewhere"),
        (r"early EOF|bytes? .*remaining|pack has|premature|pack-?objects died", "truncated", "cut"),
        (r"reset|hung up|Empty reply|RPC failed|unexpected disconnect|Recv", "reset", "broke off"),
        (r"SSL|TLS", "tls", "TLS failed"),
        (r"protocol '|transport .* not allowed", "scheme", "only http and https are asked"),
    )
)


@dataclass(frozen=True)
class Git:
    """One git program with the surroundings it is run in, and how long it may stay silent."""

    program: str
    environ: Mapping[str, str]
    stall: float
    more: Mapping[str, str] = field(default_factory=dict)  # settings for this errand
    stop: threading.Event = field(default_factory=threading.Event)  # set: another was faster

    def __call__(
        self, *args: str, url: str, seconds: float, cwd: Path | None = None, stranger: bool = False
    ) -> str:
        """Run one command and return what it printed, or raise Unreachable with its reason."""
        settings = SETTINGS | (TO_MIRRORS if stranger else {}) | dict(self.more)
        settings |= {"http.lowSpeedLimit": "1", "http.lowSpeedTime": f"{max(1, self.stall):.0f}"}
        settings[f"url.{url}.insteadOf"] = url  # the longest match wins: no rule sends it elsewhere
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        allowed = "https" if url.startswith("https:") else "https:http"  # never down from TLS
        environ = {**self.surroundings(), "GIT_ALLOW_PROTOCOL": allowed}
        return run([self.program, *flags, *args], environ, url, seconds, cwd, self.stop)

    def surroundings(self) -> dict[str, str]:
        kept = {k: v for k, v in self.environ.items() if not INHERITED.fullmatch(k)}
        return {**kept, **FIXED}


def find(environ: Mapping[str, str], stall: float) -> Git | None:
    """The git on the PATH of these surroundings, or None."""
    program = shutil.which("git", path=environ.get("PATH", os.defpath))
    return Git(program, environ, stall) if program else None


def run(
    command: Sequence[str],
    environ: Mapping[str, str],
    url: str,
    seconds: float,
    cwd: Path | None,
    stop: threading.Event,
) -> str:
    if seconds <= 0:
        raise Unreachable("timeout", url, "there was no time left")
    try:
        process = subprocess.Popen(
            command,
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=sys.platform != "win32",
        )
    except OSError as error:
        raise Unreachable("git-missing", url, f"git cannot be started: {error}") from error
    try:
        out, err = ended(process, url, seconds, stop)
    finally:
        end(process)
    if process.returncode:
        raise said(err, url)
    return out


def ended(
    process: subprocess.Popen[str], url: str, seconds: float, stop: threading.Event
) -> tuple[str, str]:
    """What it printed, if it ends in time and nobody else was faster."""
    until = monotonic() + seconds
    while True:
        try:
            return process.communicate(timeout=max(0.01, min(0.2, until - monotonic())))
        except subprocess.TimeoutExpired:
            if stop.is_set():
                raise Unreachable(STOPPED, url, "another route was faster") from None
            if monotonic() > until:
                why = f"git was not ready in {seconds:.0f} seconds"
                raise Unreachable("timeout", url, why) from None


def end(process: subprocess.Popen[str]) -> None:
    """No git outlives its time, nor do the helpers that it started."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        process.kill()
    for child in family:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


def said(err: str, url: str) -> Unreachable:
    """Git's complaint, as one word and its own last telling line."""
    lines = [line for line in err.splitlines() if line.startswith(("fatal:", "error:"))]
    line = redacted(lines[0] if lines else err.strip()[-200:])
    for pattern, reason, why in SAID:
        if found := pattern.search(err):
            status = found.groups()[0] if found.groups() else ""
            return Unreachable(reason.format(status), url, f"{why.format(status)} ({line})")
    return Unreachable("git", url, line)


def rewritten(git: Git, url: str) -> str:
    """What the user's insteadOf makes of an address."""
    command = [git.program, "ls-remote", "--get-url", url]
    try:
        return run(command, git.surroundings(), url, 10, None, git.stop).strip()
    except Unreachable:
        return url  # a git that cannot even say this will say why when it is asked to clone


def refs(git: Git, route: Route, ref: str, seconds: float) -> tuple[str, str]:
    """(commit, full ref) of a branch or tag there, of the default branch where ref is "".

    ("", "") where it has no such ref.
    """
    asked = ("HEAD",) if not ref else (f"refs/heads/{ref}", f"refs/tags/{ref}", f"{ref}^{{}}")
    args = ("ls-remote", "--symref", "--", route.url, *asked)
    out = git(*args, url=route.url, seconds=seconds, stranger=not route.own)
    lines = [line.partition("\t")[::2] for line in out.splitlines()]
    branch = next((left[5:] for left, name in lines if left.startswith("ref: ")), "")
    found = {name: left for left, name in lines if COMMIT.fullmatch(left)}
    if not ref:
        return found.get("HEAD", ""), branch
    for name in (f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}"):
        if name in found:
            return found[name], name.removesuffix("^{}")
    return "", ""


@dataclass(frozen=True)
class Clone:
    """What is to be cloned: the commit that was named, and what the clone is to remember."""

    origin: str  # the address that stays in the clone, whatever route it came by
    commit: str
    ref: str  # "refs/heads/main", "refs/tags/v1", or "" for a bare commit


def clone(git: Git, route: Route, wanted: Clone, into: Path, seconds: float) -> None:
    """One commit, and nothing older, into a new folder. Git itself proves each object by its id.

    The commit is asked for by its id, so a route that has another one cannot answer. A transfer
    that breaks is tried once more over HTTP/1.1, which survives some middle boxes.
    """
    until = monotonic() + seconds
    kept = {"remote.origin.url": wanted.origin, "core.autocrlf": "false"}
    kept["remote.origin.fetch"] = "+refs/heads/*:refs/remotes/origin/*"
    branch = wanted.ref.removeprefix("refs/heads/") if "/heads/" in wanted.ref else ""
    if branch:
        kept |= {f"branch.{branch}.remote": "origin", f"branch.{branch}.merge": wanted.ref}
    git("init", "--quiet", "--template=", str(into), url=route.url, seconds=seconds)
    for name, value in kept.items():
        git("config", name, value, url=route.url, seconds=10, cwd=into)
    try:
        bring(git, route, wanted, into, until)
    except Unreachable as broken:
        if broken.reason not in ("reset", "truncated"):
            raise
        plain = replace(git, more={"http.version": "HTTP/1.1"})
        bring(plain, route, wanted, into, until)
    how = ("-B", branch) if branch else ("--detach",)
    left = until - monotonic()
    git("checkout", "--quiet", *how, wanted.commit, url=route.url, seconds=left, cwd=into)
    if head(git, into) != wanted.commit:
        raise Unreachable("commit", route.url, f"gave another commit than {wanted.commit}")


def bring(git: Git, route: Route, wanted: Clone, into: Path, until: float) -> None:
    target = wanted.ref.replace("refs/heads/", "refs/remotes/origin/") or "refs/doctor/wanted"
    how = ("--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules")
    what = (route.url, f"{wanted.commit}:{target}")
    left = until - monotonic()
    git("fetch", *how, "--", *what, url=route.url, seconds=left, cwd=into, stranger=not route.own)


def head(git: Git, folder: Path) -> str:
    """The commit that a clone of ours stands on."""
    return git("rev-parse", "HEAD", url=folder.as_posix(), seconds=10, cwd=folder).strip()


def submodules(git: Git, route: Route, origin: str, folder: Path, seconds: float) -> list[str]:
    """Fetch what .gitmodules names, and return the names of those that did not arrive.

    Their commits stand in the tree that was proved, so they may come by the same mirror.
    """
    if not (folder / ".gitmodules").is_file():
        return []
    root = re.sub(r"(?<=[^/:]/).*", "", origin)
    tail = origin.removeprefix(root)
    if not route.own and route.url.endswith(tail):
        git = replace(git, more={f"url.{route.url.removesuffix(tail)}.insteadOf": root})
    args = ("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    try:
        git(*args, url=route.url, seconds=seconds, cwd=folder, stranger=not route.own)
    except Unreachable:
        out = git("submodule", "status", "--recursive", url=route.url, seconds=30, cwd=folder)
        return [line.split()[1] for line in out.splitlines() if line[:1] in "-+U"]
    return []


def claim(
    git: Git, route: Route, commit: str, scratch: Path, seconds: float
) -> tuple[str, Listing]:
    """(tree, files) of a commit, by any route: only ids are fetched, and git checks each."""
    until = monotonic() + seconds
    git("init", "--quiet", "--bare", "--template=", str(scratch), url=route.url, seconds=10)
    git("config", "remote.origin.url", route.url, url=route.url, seconds=10, cwd=scratch)
    args = ("fetch", "--quiet", "--depth=1", "--no-tags", "--filter=blob:none", "origin", commit)
    left = until - monotonic()
    git(*args, url=route.url, seconds=left, cwd=scratch, stranger=not route.own)
    tree = git("rev-parse", f"{commit}^{{tree}}", url=route.url, seconds=10, cwd=scratch).strip()
    out = git("ls-tree", "-r", "-z", "--full-tree", tree, url=route.url, seconds=30, cwd=scratch)
    return tree, listed(out)


def listed(out: str) -> Listing:
    """What `ls-tree -r -z` prints."""
    files = {}
    for line in out.split("\0")[:-1]:
        about, _, name = line.partition("\t")
        mode, _, id = about.split()
        files[name] = (int(mode, 8), id)
    return files
