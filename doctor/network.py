"""Network: what is within reach of this machine, asked all at once, within a fixed time.

Of each answer the first bytes are read, as many as tell how quick the line is. Changes nothing, and
sends no credentials.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from time import monotonic, time
from urllib.parse import urlsplit

from doctor.download import proxy_of, sample, way_out
from doctor.facts import Network, Reached
from doctor.manifest import Place, World
from doctor.mirrors import Unreachable, redacted
from doctor.reach import date

EACH, ALL = 6.0, 8.0  # seconds
MOST, SPAN = 128 << 10, 2.0  # bytes and seconds of an answer that are read to tell how quick it is
INDEXES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
ANSWERED = ("http-404", "http-400", "http-405", "http-401")  # somebody is there, and says no
ASK_PIP = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"


def look(world: World, environ: Mapping[str, str] = os.environ) -> Network:
    """Every place that an installation needs. Takes at most ALL seconds."""
    places = [("index", *index(environ)), *(named(place, environ) for place in world.places)]
    found: dict[str, Reached] = {}

    def one(name: str, url: str, by: str) -> None:
        found[name] = asked(name, url, by)

    at_once([threading.Thread(target=one, args=place, daemon=True) for place in places if place[1]])
    rows = tuple(found[name] for name, _, _ in places if name in found)
    proxies = {name: redacted(value) for name, value in proxies_of(environ)}
    return Network(rows, way_out(), proxies, clock(rows))


def answering(urls: Sequence[str]) -> list[str]:
    """Those of these addresses that answer, in their order; asked all at once."""
    found: dict[str, Reached] = {}

    def ask(url: str) -> None:
        found[url] = asked("index", url, "")

    at_once([threading.Thread(target=ask, args=(url,), daemon=True) for url in urls])
    return [url for url in urls if url in found and not found[url].reason]


def at_once(threads: Sequence[threading.Thread]) -> None:
    """All of them, for as long as all may take."""
    until = monotonic() + ALL
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - monotonic()))


def asked(name: str, url: str, by: str) -> Reached:
    started = monotonic()
    try:
        seconds, rate = sample(url, EACH, MOST, SPAN)
    except Unreachable as error:
        if error.reason not in ANSWERED:
            return Reached(name, redacted(url), error.reason, error.why, by=by)
        seconds, rate = monotonic() - started, 0.0
    return Reached(name, redacted(url), seconds=round(seconds, 2), rate=round(rate), by=by)


def named(place: Place, environ: Mapping[str, str]) -> tuple[str, str, str]:
    """(name, address, the variable that names it)."""
    for variable in place.variables:
        if value := environ.get(variable, "").strip().rstrip("/"):
            return place.name, value + place.path, variable
    return place.name, place.url, ""


def index(environ: Mapping[str, str]) -> tuple[str, str]:
    """The package index in use, and what names it: a variable, pip's settings, or nobody."""
    for variable in INDEXES:
        if value := environ.get(variable, "").strip():
            return value, variable
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if said := told([*pip, "config", "get", "global.index-url"]):
        return said, "pip.conf"
    return told([sys.executable, "-c", ASK_PIP]), ""


def told(words: list[str]) -> str:
    try:
        run = subprocess.run(words, capture_output=True, text=True, timeout=EACH)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


def proxies_of(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in sorted(environ.items()):
        if name.upper() in PROXIES and value:
            yield name, value


def clock(rows: tuple[Reached, ...]) -> float:
    """Seconds that this machine is ahead, asked where a certificate was not accepted."""
    for row in rows:
        if row.reason == "tls" and not proxy_of(row.url):
            parts = urlsplit(row.url)
            told = date(f"http://{parts.hostname}/", 3.0)
            try:
                return time() - parsedate_to_datetime(told).timestamp()
            except (ValueError, TypeError):
                continue
    return 0.0
