"""A little internet on loopback: a git host with archives and an API, and hosts that misbehave.

Real tools answer: git's own http-backend speaks git's protocol, `git archive` packs. A host serves
one folder of bare repositories; its faults say, for each kind of request, what becomes of a right
answer on its way out. A mirror is a host that is reached by another address.
"""

import json
import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

GIT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Somebody",
    "GIT_AUTHOR_EMAIL": "somebody@example.org",
    "GIT_COMMITTER_NAME": "Somebody",
    "GIT_COMMITTER_EMAIL": "somebody@example.org",
    "GIT_ALLOW_PROTOCOL": "file:http",
    "PATH": os.environ["PATH"],
}


def git(*args: str, cwd: Path, **more: str) -> str:
    """Run git in surroundings of its own."""
    done = subprocess.run(
        ["git", *args], cwd=cwd, env={**GIT, **more}, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


@dataclass(frozen=True)
class Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Fault = Callable[["Visit", Answer], None]


class Visit(BaseHTTPRequestHandler):
    """One request to a host."""

    protocol_version = "HTTP/1.1"
    host: "Host"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.given = self.rfile.read(length)
        path = re.sub(r"^/?https?://[^/]+", "", unquote(self.path))  # the form of prefix proxies
        kind = kind_of(path, self.given)
        self.host.asked.append(kind)
        with self.host.at_once():
            self.answer(path, kind)

    def answer(self, path: str, kind: str) -> None:
        self.host.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.close_connection = True
        try:
            answer = self.host.serve(self, path, kind)
            fault = self.host.faults.get(kind, self.host.faults.get("all", whole))
            fault(self, answer)
        except (BrokenPipeError, ConnectionError):
            return

    do_POST = do_GET  # noqa: N815  # the name that http.server looks for

    def start(self, answer: Answer, length: int | None) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""


def kind_of(path: str, given: bytes) -> str:
    """ask (which commits), transfer (git's objects), archive, api, lfs (where is it) or file."""
    if "/info/refs" in path or b"command=ls-refs" in given:
        return "ask"
    if path.endswith("/git-upload-pack"):
        return "claim" if b"filter blob:none" in given else "transfer"
    if path.startswith("/api/"):
        return "api"
    if path.endswith("/info/lfs/objects/batch"):
        return "lfs"
    return "archive" if "/archive/" in path else "file"


class Host:
    """A server on a port of 127.0.0.1 for the repositories and files below a folder."""

    def __init__(self, root: Path, **faults: Fault) -> None:
        self.root, self.faults = root, faults
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()
        self.lock, self.now, self.peak = threading.Lock(), 0, 0  # requests under way, and the most
        visit = type("VisitHere", (Visit,), {"host": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), visit)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.scheme = "http"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def at_once(self) -> Iterator[None]:
        with self.lock:
            self.now += 1
            self.peak = max(self.peak, self.now)
        try:
            yield
        finally:
            with self.lock:
                self.now -= 1

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def serve(self, visit: Visit, path: str, kind: str) -> Answer:
        """The right answer."""
        where, _, query = path.partition("?")
        if kind in ("ask", "transfer", "claim"):
            return http_backend(self.root, visit, where, query)
        if kind == "archive":
            return packed(self.root, where)
        if kind == "api":
            return told(self.root, where.removeprefix("/api/v3/repos"), query)
        if kind == "lfs":
            return stored(self, visit.given)
        return file_of(self.root / where.lstrip("/"), dict(visit.headers))


def stored(host: Host, given: bytes) -> Answer:
    """git-lfs's batch API (docs/api/batch.md): objects lie below /lfs/ by their sha256."""
    objects = []
    for asked in json.loads(given)["objects"]:
        if (host.root / "lfs" / asked["oid"]).is_file():
            download = {"href": f"{host.url}/lfs/{asked['oid']}", "header": {"X-Key": "of LFS"}}
            objects.append({**asked, "actions": {"download": download}})
        else:
            objects.append({**asked, "error": {"code": 404, "message": "no such object"}})
    return Answer(200, {}, json.dumps({"transfer": "basic", "objects": objects}).encode())


def repository(root: Path, path: str) -> tuple[Path, str]:
    """/OWNER/NAME[.git]/REST -> the bare repository and the rest."""
    _, owner, name, *rest = path.split("/")
    return root / owner / f"{name.removesuffix('.git')}.git", "/".join(rest)


def http_backend(root: Path, visit: Visit, path: str, query: str) -> Answer:
    """git-http-backend as the CGI program that it is (RFC 3875)."""
    folder, rest = repository(root, path)
    environ = {
        **GIT,
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_TRANSLATED": str(folder / rest),
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_METHOD": visit.command,
        "CONTENT_TYPE": visit.headers.get("Content-Type", ""),
        "HTTP_CONTENT_ENCODING": visit.headers.get("Content-Encoding", ""),
        "GIT_PROTOCOL": visit.headers.get("Git-Protocol", ""),
        "CONTENT_LENGTH": str(len(visit.given)),
    }
    done = subprocess.run(
        ["git", "http-backend"], env=environ, input=visit.given, capture_output=True, check=False
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    lines = (line.partition(": ") for line in head.decode().split("\r\n") if line)
    headers = {name: value for name, _, value in lines}
    return Answer(int(headers.pop("Status", "200").split()[0]), headers, body)


def packed(root: Path, path: str) -> Answer:
    """/OWNER/NAME/archive/COMMIT.zip, as GitHub packs it: NAME-COMMIT/ around everything."""
    folder, rest = repository(root, path)
    commit = rest.removeprefix("archive/").removesuffix(".zip")
    prefix = f"--prefix={folder.stem}-{commit}/"
    try:
        done = subprocess.run(
            ["git", "archive", "--format=zip", prefix, commit],
            cwd=folder,
            env=GIT,
            capture_output=True,
            check=True,
        )
    except (subprocess.CalledProcessError, OSError):
        return Answer(404, {}, b"404: Not Found")
    return Answer(200, {"Content-Type": "application/zip"}, done.stdout)


def told(root: Path, path: str, query: str) -> Answer:
    """The three questions to GitHub's API: a ref's commit, a commit's tree, a tree's files."""
    folder, rest = repository(root, path)
    try:
        what = rest.removeprefix("git/").partition("/")[2]
        if rest.startswith("commits/"):
            return Answer(body=git("rev-parse", f"{what}^{{commit}}", cwd=folder).encode())
        if rest.startswith("git/commits/"):
            tree = git("rev-parse", f"{what}^{{tree}}", cwd=folder)
            return Answer(body=json.dumps({"sha": what, "tree": {"sha": tree}}).encode())
        lines = git("ls-tree", "-r", "-z", what, cwd=folder).split("\0")[:-1]
    except (subprocess.CalledProcessError, OSError):
        return Answer(404, {}, b'{"message": "Not Found"}')
    entries = []
    for line in lines:
        about, _, name = line.partition("\t")
        mode, kind, sha = about.split()
        entries.append({"path": name, "mode": mode, "type": kind, "sha": sha})
    return Answer(body=json.dumps({"sha": what, "tree": entries}).encode())


def file_of(path: Path, headers: Mapping[str, str]) -> Answer:
    """A file, or the rest of it where Range and If-Range ask so (RFC 9110); a folder's page."""
    if (path / "index.html").is_file():
        return Answer(200, {"Content-Type": "text/html"}, (path / "index.html").read_bytes())
    if not path.is_file():
        return Answer(404)
    data, etag = path.read_bytes(), f'"{hash(path.read_bytes())}"'
    wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("Range") or "")
    if wanted and headers.get("If-Range", etag) == etag:
        first = int(wanted[1])
        if first >= len(data):
            return Answer(416, {"Content-Range": f"bytes */{len(data)}"})
        part = f"bytes {first}-{len(data) - 1}/{len(data)}"
        return Answer(206, {"ETag": etag, "Content-Range": part}, data[first:])
    return Answer(200, {"ETag": etag}, data)


def whole(visit: Visit, answer: Answer) -> None:
    """No fault: the right answer."""
    visit.start(answer, len(answer.body))
    visit.wfile.write(answer.body)


def hang(visit: Visit, answer: Answer) -> None:
    """Not one byte."""
    visit.host.closing.wait(30)


def reset(visit: Visit, answer: Answer) -> None:
    """A hard end instead of an answer."""
    break_off(visit.connection)


def break_off(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def cut(count: int, hard: bool = False) -> Fault:
    """The right length is promised, and only so many bytes come."""

    def fault(visit: Visit, answer: Answer) -> None:
        visit.start(answer, len(answer.body))
        visit.wfile.write(answer.body[:count])
        visit.wfile.flush()
        if hard:
            time.sleep(0.05)
            break_off(visit.connection)

    return fault


def lie(more: int) -> Fault:
    """A length that is wrong by so many bytes."""

    def fault(visit: Visit, answer: Answer) -> None:
        visit.start(answer, len(answer.body) + more)
        visit.wfile.write(answer.body)

    return fault


def stall(count: int) -> Fault:
    """So many bytes, and then nothing more, without an end."""

    def fault(visit: Visit, answer: Answer) -> None:
        visit.start(answer, len(answer.body))
        visit.wfile.write(answer.body[:count])
        visit.wfile.flush()
        visit.host.closing.wait(30)

    return fault


def drip(seconds: float) -> Fault:
    """One byte, a pause, one byte: never silent for long, and never ready."""

    def fault(visit: Visit, answer: Answer) -> None:
        visit.start(answer, len(answer.body))
        for place in range(len(answer.body)):
            visit.wfile.write(answer.body[place : place + 1])
            visit.wfile.flush()
            if visit.host.closing.wait(seconds):
                return

    return fault


def trickle(rate: int) -> Fault:
    """The right answer at so many bytes per second: never silent, and late."""

    def fault(visit: Visit, answer: Answer) -> None:
        visit.start(answer, len(answer.body))
        step = rate // 10
        for place in range(0, len(answer.body), step):
            visit.wfile.write(answer.body[place : place + step])
            visit.wfile.flush()
            if visit.host.closing.wait(0.1):
                return

    return fault


def status(code: int) -> Fault:
    """An error page."""
    return instead(lambda answer: Answer(code, {}, b"<html>no</html>"))


def page(visit: Visit, answer: Answer) -> None:
    """A login page of the network in between, where the file should be."""
    whole(visit, Answer(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"))


def redirect(to: str) -> Fault:
    """Away, to the same path on another host, or to one address."""

    def fault(visit: Visit, answer: Answer) -> None:
        where = to if urlsplit(to).path else to + visit.path
        whole(visit, Answer(302, {"Location": where}))

    return fault


def instead(change: Callable[[Answer], Answer]) -> Fault:
    """Another answer, made of the right one."""
    return lambda visit, answer: whole(visit, change(answer))


def bytes_instead(change: Callable[[bytes], bytes]) -> Fault:
    """The same answer with other bytes."""
    return instead(lambda answer: replace(answer, body=change(answer.body)))


def first(count: int, fault: Fault, then: Fault = whole) -> Fault:
    """A fault for the first so many requests."""
    left = [fault] * count

    def either(visit: Visit, answer: Answer) -> None:
        (left.pop() if left else then)(visit, answer)

    return either


def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"
