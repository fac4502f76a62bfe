"""Api: a ComfyUI server asked over HTTP and its websocket, whatever it does in bounded time.

A redirect is an answer and not followed: ComfyUI sends none, a proxy that wants a login does.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
import urllib3

from doctor.download import AGENT, unreachable, within
from doctor.mirrors import Unreachable, loopback

SMALL, LARGE = 64 << 20, 256 << 20  # bytes: of an answer in JSON, of a picture or latent
CHUNK = 1 << 16


@dataclass(frozen=True)
class Server:
    """Where it is and what every question carries. Errors: Unreachable, WrongAnswer."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    patience: float = 20.0  # seconds for one answer

    def get(self, path: str, **query: str) -> Any:
        """The JSON of an answer to GET."""
        return self.json(path, self.ask("GET", self.address(path, **query), limit=SMALL))

    def post(self, path: str, data: object) -> Any:
        body = json.dumps(data).encode()
        kind = {"Content-Type": "application/json"}
        return self.json(path, self.ask("POST", self.address(path), data=body, headers=kind))

    def view(self, **where: str) -> bytes:
        """A file of the server's output, temp or input folder, as it is."""
        return self.ask("GET", self.address("/view", **where), limit=LARGE)

    def upload(self, name: str, data: bytes, folder: str) -> Any:
        """A picture into a folder below the server's temp, which it empties itself; where it
        came to lie."""
        files = {"image": (name, data, "image/png")}
        form = {"type": "temp", "subfolder": folder, "overwrite": "true"}
        answer = self.ask("POST", self.address("/upload/image"), data=form, files=files)
        return self.json("/upload/image", answer)

    def address(self, path: str, **query: str) -> str:
        asked = f"?{urlencode(query)}" if query else ""
        return f"{self.url.rstrip('/')}{path}{asked}"

    def socket_address(self, client: str) -> str:
        """ws or wss, below the same path: proxies mount ComfyUI anywhere."""
        scheme = "wss" if urlsplit(self.url).scheme == "https" else "ws"
        return f"{scheme}{self.address('/ws', clientId=client)[len(urlsplit(self.url).scheme) :]}"

    def json(self, path: str, answer: bytes) -> Any:
        try:
            return json.loads(answer) if answer.strip() else {}
        except (ValueError, RecursionError) as error:
            start = answer[:60].decode("utf-8", "replace").strip()
            raise WrongAnswer("json", path, f"answered no JSON: {start!r}") from error

    def ask(self, method: str, url: str, limit: int = SMALL, **what: Any) -> bytes:
        until = monotonic() + self.patience
        return within(self.patience, url, lambda: self.read(method, url, limit, until, **what))

    def read(self, method: str, url: str, limit: int, until: float, **what: Any) -> bytes:
        headers = {**AGENT, **self.headers, **what.pop("headers", {})}
        try:
            with requests.Session() as session:
                session.trust_env = not loopback(url)  # no proxy stands between us and ourselves
                session.auth = lambda request: request  # or requests would look into .netrc
                with session.request(
                    method,
                    url,
                    headers=headers,
                    stream=True,
                    allow_redirects=False,
                    timeout=self.patience,
                    verify=not is_own(url),
                    **what,
                ) as answer:
                    return whole(answer, url, limit, until)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise unreachable(error, url) from error


class WrongAnswer(Unreachable):
    """It answered, and not as ComfyUI does. `said` is the JSON of a refusal, where it sent one."""

    def __init__(self, reason: str, url: str, why: str, said: Any = None) -> None:
        super().__init__(reason, url, why)
        self.said = said


def is_own(url: str) -> bool:
    """Our own loopback by a certificate that names another host; everywhere else it must fit."""
    return urlsplit(url).scheme == "https" and loopback(url)


def whole(answer: requests.Response, url: str, limit: int, until: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in answer.iter_content(CHUNK):
        parts.append(part)
        size += len(part)
        if size > limit:
            raise WrongAnswer("size", url, f"it answered more than {limit} bytes")
        if monotonic() > until:
            raise Unreachable("timeout", url, "it took longer than it may")
    data = b"".join(parts)
    refuse(answer, url, data)
    return data


def refuse(answer: requests.Response, url: str, data: bytes) -> None:
    """Raise WrongAnswer for every status but 200 to 299."""
    status = answer.status_code
    if answer.is_redirect:
        target = answer.headers["Location"][:100]
        raise WrongAnswer("redirect", url, f"it leads on to {target}; a login? see --header")
    if 200 <= status < 300:
        return
    try:
        said = json.loads(data)
    except ValueError:
        said = None
    raise WrongAnswer(f"http-{status}", url, f"it answered {status} {answer.reason}".strip(), said)
