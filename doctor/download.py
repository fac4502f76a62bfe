"""One file over HTTP: resumed where it broke, bounded in time and size, checked, or nothing.

Proxies and CA bundles are those of requests' environment (HTTPS_PROXY, NO_PROXY,
REQUESTS_CA_BUNDLE); passwords of a .netrc are not sent, since the host may be a mirror.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import IncompleteRead
from pathlib import Path
from time import monotonic
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from doctor.mirrors import STOPPED, Unreachable, loopback, redacted
from doctor.source import local_path

CHUNK = 1 << 14
TRIES = 5
HOPS = 10
AGENT = {"User-Agent": "comfy-doctor", "Accept-Encoding": "identity"}
MEANT_FOR_ALL = (*AGENT, "Accept", "Range", "If-Range")  # and nothing else follows a redirect
Progress = Callable[[int, int], None]  # bytes here, bytes in all (0: not told)
T = TypeVar("T")


@dataclass
class Transfer:
    """A download under way: what is asked, until when, and what the server calls its bytes."""

    url: str
    part: Path
    sha256: str
    progress: Progress
    stall: float
    limit: int
    until: float
    stop: threading.Event
    headers: Mapping[str, str] = field(default_factory=dict)  # what this one host wants to hear
    validator: str = ""  # the ETag or date of what is in the .part; only then is it resumed

    def here(self) -> int:
        """How many bytes can be kept: without a hash or a validator nobody could tell."""
        known = self.validator or self.sha256
        return self.part.stat().st_size if known and self.part.exists() else 0

    def check_time(self) -> None:
        if self.stop.is_set():
            raise Unreachable(STOPPED, self.url, "another route was faster")
        if monotonic() > self.until:
            raise Unreachable("timeout", self.url, "it took longer than it may")


def download(
    url: str,
    into: Path,
    *,
    sha256: str = "",
    progress: Progress | None = None,
    timeout: float = 1800.0,
    stall: float = 20.0,
    limit: int = 16 << 30,
    offline: bool = False,
    stop: threading.Event | None = None,
    headers: Mapping[str, str] | None = None,
) -> Path:
    """Bring one file (http, https, file: or a path) to `into`, whole, or raise Unreachable.

    timeout: seconds for all of it; stall: seconds without a byte; limit: bytes. What broke off
    stays as `into.part` and is continued by the next call where `sha256` is known.
    """
    part = into.with_name(f"{into.name}.part")
    into.parent.mkdir(parents=True, exist_ok=True)
    quiet = progress or (lambda here, total: None)
    stop, until = stop or threading.Event(), monotonic() + timeout
    transfer = Transfer(url, part, sha256.lower(), quiet, stall, limit, until, stop, headers or {})
    if local := local_path(url):
        copy(local, transfer)
    elif offline:
        raise Unreachable("offline", url, "not asked, because of --offline")
    else:
        within(timeout, url, lambda: bring(transfer), stop)
    check_hash(transfer)
    os.replace(part, into)
    return into


def copy(local: Path, transfer: Transfer) -> None:
    if not local.is_file():
        raise Unreachable("refused", transfer.url, "there is no such file")
    if local.stat().st_size > transfer.limit:
        raise Unreachable("size", transfer.url, f"is larger than {transfer.limit} bytes")
    shutil.copyfile(local, transfer.part)


def bring(transfer: Transfer) -> None:
    """Stream, and continue where it broke as long as each try brings more bytes."""
    for tries_left in reversed(range(TRIES)):
        before = transfer.here()
        if before and transfer.sha256 and digest(transfer.part) == transfer.sha256:
            return
        try:
            stream(transfer)
            if not before or not transfer.sha256 or digest(transfer.part) == transfer.sha256:
                return
            transfer.part.unlink()  # its start was of something else: once more from zero
        except Unreachable as broken:
            if not tries_left or not worth_another(transfer, broken, before):
                raise
    raise Unreachable("truncated", transfer.url, f"broke off {TRIES} times")


def worth_another(transfer: Transfer, broken: Unreachable, before: int) -> bool:
    """Did this try bring more bytes, or find that those of before were no good."""
    if broken.reason not in ("reset", "truncated", "timeout") or monotonic() > transfer.until:
        return False
    if not transfer.part.exists():
        return before > 0
    return transfer.part.stat().st_size > before


def stream(transfer: Transfer) -> None:
    """One answer of the server, into the .part: appended where it continues, else from zero."""
    here = transfer.here()
    headers = {**AGENT, **transfer.headers}
    if here:
        headers["Range"] = f"bytes={here}-"
    if here and transfer.validator:
        headers["If-Range"] = transfer.validator
    with requests.Session() as session:
        answer = follow(session, transfer.url, headers, transfer.stall)
        with answer:
            if answer.status_code == 416 and here:
                transfer.part.unlink(missing_ok=True)
                raise Unreachable("truncated", transfer.url, f"it has no more than {here} bytes")
            refuse_status(answer, transfer.url)
            continued = answer.status_code == 206 and continues(answer, transfer, here)
            transfer.validator = validator(answer.headers)
            save(answer, transfer, here if continued else 0)


def continues(answer: requests.Response, transfer: Transfer, here: int) -> bool:
    """Does a 206 begin where the .part ends (RFC 9110, 14.4). Anything else is a lie."""
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if not told or int(told[1]) != here:
        transfer.part.unlink(missing_ok=True)
        raise Unreachable("truncated", transfer.url, "it answered with another range than asked")
    return True


def validator(headers: Mapping[str, str]) -> str:
    """What If-Range may hold: a strong ETag, else the date (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def save(answer: requests.Response, transfer: Transfer, here: int) -> None:
    length = answer.headers.get("Content-Length", "")
    total = here + int(length) if length.isdecimal() else 0
    if total > transfer.limit:
        refuse_size(transfer)
    transfer.check_time()  # nobody waits for a late one, which must not write any more
    with transfer.part.open("ab" if here else "wb") as file:
        for chunk in chunks(answer, transfer.url):
            transfer.check_time()
            here += len(chunk)
            if here > transfer.limit:
                refuse_size(transfer)
            file.write(chunk)
            transfer.progress(here, total)
    if total and here != total:  # urllib3 notices this, too, from version 2 on
        raise Unreachable("truncated", transfer.url, f"broke off at {here} of {total} bytes")


def refuse_size(transfer: Transfer) -> None:
    transfer.part.unlink(missing_ok=True)
    raise Unreachable("size", transfer.url, f"is larger than {transfer.limit} bytes")


def chunks(answer: requests.Response, url: str, size: int = CHUNK) -> Iterator[bytes]:
    try:
        yield from answer.raw.stream(size, decode_content=False)
    except (urllib3.exceptions.HTTPError, requests.RequestException) as error:
        raise unreachable(error, url) from error


def follow(
    session: requests.Session, url: str, headers: Mapping[str, str], stall: float
) -> requests.Response:
    """The answer at the end of the redirects, none of which gave up TLS."""
    asked = url
    for _ in range(HOPS):
        if urlsplit(url).scheme not in ("http", "https"):
            raise Unreachable("scheme", url, "only http and https are asked")
        try:
            answer = session.get(
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=stall,
                auth=lambda request: request,  # or requests would look into .netrc
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise unreachable(error, url) from error
        if not answer.is_redirect:
            return answer
        target = urljoin(url, answer.headers["Location"])
        answer.close()
        if urlsplit(url).scheme == "https" and not target.startswith("https:"):
            raise Unreachable("redirect", asked, f"it leads away from TLS, to {redacted(target)}")
        if loopback(target) and not loopback(url):
            raise Unreachable("redirect", asked, "it leads to this machine itself")
        if urlsplit(url).netloc != urlsplit(target).netloc:
            headers = {name: value for name, value in headers.items() if name in MEANT_FOR_ALL}
        url = target
    raise Unreachable("redirect", asked, f"it leads on more than {HOPS} times")


def way_out() -> bool:
    """Does the system know a way to other networks. Nothing is sent: UDP only chooses a route."""
    for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as one:
                one.connect((address, 9))
                return True
        except OSError:
            continue
    return False


def refuse_status(answer: requests.Response, url: str) -> None:
    status = answer.status_code
    if status == 407:
        raise Unreachable("proxy", url, f"the proxy wants a password{proxy_of(url)}")
    if answer.headers.get("X-RateLimit-Remaining") == "0" and status in (403, 429):
        raise Unreachable(f"http-{status}", url, "its number of questions per hour is used up")
    if status not in (200, 206):
        raise Unreachable(f"http-{status}", url, f"it answered {status} {answer.reason}".strip())


def read(url: str, *, timeout: float = 20.0, limit: int = 8 << 20, accept: str = "*/*") -> bytes:
    """A small answer, whole, or Unreachable."""

    def ask() -> bytes:
        headers = {**AGENT, "Accept": accept}
        with requests.Session() as session, follow(session, url, headers, timeout) as answer:
            refuse_status(answer, url)
            return whole(answer, url, limit)

    return within(timeout, url, ask)


def ask_json(
    url: str, question: object, kind: str, *, timeout: float = 20.0, limit: int = 8 << 20
) -> bytes:
    """The answer to a small question that is itself JSON of this media type, or Unreachable."""

    def ask() -> bytes:
        headers = {**AGENT, "Accept": kind, "Content-Type": kind}
        try:
            with requests.post(
                url,
                data=json.dumps(question),
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=timeout,
                auth=lambda request: request,
            ) as answer:
                refuse_status(answer, url)
                return whole(answer, url, limit)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise unreachable(error, url) from error

    return within(timeout, url, ask)


def whole(answer: requests.Response, url: str, limit: int) -> bytes:
    data = b""
    for chunk in chunks(answer, url):
        data += chunk
        if len(data) > limit:
            raise Unreachable("size", url, f"it answered more than {limit} bytes")
    return data


def peek(url: str, seconds: float) -> None:
    """The first byte of an answer, or Unreachable: is the thing itself there."""
    sample(url, seconds, most=1)


def sample(url: str, seconds: float, most: int, span: float = 0.0) -> tuple[float, float]:
    """(seconds to the first byte, bytes per second after it), or Unreachable.

    At most so many bytes are read, for at most `span` seconds. The rate is 0 where the answer was
    over before it could be told: a page of a few kB says nothing of a line.
    """

    def ask() -> tuple[float, float]:
        asked = monotonic()
        with requests.Session() as session, follow(session, url, AGENT, seconds) as answer:
            refuse_status(answer, url)
            size, began = len(next(chunks(answer, url, 1), b"")), monotonic()
            for chunk in chunks(answer, url, 256) if span else ():
                size += len(chunk)
                if size >= most or monotonic() - began > span:
                    break
        spent = monotonic() - began
        told = size >= most or spent > span > 0
        return began - asked, size / max(spent, 1e-3) if told and span else 0.0

    return within(seconds + span, url, ask)


def within(
    seconds: float, url: str, work: Callable[[], T], stop: threading.Event | None = None
) -> T:
    """What the work returns or raises, if it does so in time.

    A thread, because neither the look-up of a name nor a server that sends one byte now and then
    is bounded by a socket's time limit. A late one is left behind; it ends with its socket.
    """
    ended = threading.Event()
    values: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            values.append(work())
        except BaseException as error:  # noqa: BLE001  # handed to the caller, below
            errors.append(error)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    until = monotonic() + max(seconds, 0)
    while not ended.wait(min(0.2, max(0.0, until - monotonic()))):  # short: Ctrl-C on Windows
        if stop and stop.is_set():
            raise Unreachable(STOPPED, url, "another route was faster")
        if monotonic() > until:
            raise Unreachable("timeout", url, f"no end after {seconds:.0f} seconds")
    if errors:
        raise errors[0]
    return values[0]


def check_hash(transfer: Transfer) -> None:
    if transfer.sha256 and (found := digest(transfer.part)) != transfer.sha256:
        transfer.part.unlink()
        why = f"its sha256 is {found[:16]}..., not {transfer.sha256[:16]}..."
        raise Unreachable("hash", transfer.url, why)


def digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


CAUSES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str, str], ...] = (
    ((requests.exceptions.ProxyError, urllib3.exceptions.ProxyError), "proxy", "the proxy failed"),
    (requests.exceptions.InvalidProxyURL, "proxy", "the proxy's address is none"),
    ((ssl.SSLError, requests.exceptions.SSLError), "tls", "its certificate was not accepted"),
    (socket.gaierror, "dns", "its name was not found"),
    (ConnectionRefusedError, "refused", "nobody listens there"),
    ((TimeoutError, requests.Timeout), "timeout", "it did not answer in time"),
    (urllib3.exceptions.TimeoutError, "timeout", "it did not answer in time"),
    ((ConnectionResetError, BrokenPipeError), "reset", "it broke the connection off"),
    ((IncompleteRead, urllib3.exceptions.IncompleteRead), "truncated", "it broke off"),
    (requests.exceptions.InvalidSchema, "proxy", "the proxy needs a part that is not installed"),
    ((requests.exceptions.InvalidURL, ValueError), "scheme", "its address is none"),
)


def unreachable(error: BaseException, url: str) -> Unreachable:
    """Requests' and urllib3's nested exceptions, as one word and one sentence."""
    chain = list(causes(error))
    for kinds, reason, why in CAUSES:
        found = next((one for one in chain if isinstance(one, kinds)), None)
        if found is not None:
            blame = proxy_of(url) if reason == "proxy" else detail(found, reason)
            return Unreachable(reason, url, why + blame)
    if any(isinstance(one, OSError) and one.errno for one in chain):
        return Unreachable("refused", url, "there is no way there from this machine")
    return Unreachable("reset", url, "it broke the connection off")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and all that it was raised from or holds."""
    pending, seen = [error], set()
    while pending:
        one = pending.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            pending += [one.__cause__, one.__context__, getattr(one, "reason", None)]
            pending += [held for held in one.args if isinstance(held, BaseException)]


def detail(error: BaseException, reason: str) -> str:
    told = getattr(error, "verify_message", "") if reason == "tls" else ""
    return f" ({told})" if told else ""


def proxy_of(url: str) -> str:
    """Which variable set the proxy for this address, if one did."""
    scheme = urlsplit(url).scheme
    for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"):
        if os.environ.get(name):
            return f" (set by {name}: {redacted(os.environ[name])})"
    return ""
