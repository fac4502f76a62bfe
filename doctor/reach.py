"""Two small questions before the large one: is an address there, and how much would it send?"""

import requests

from doctor.download import AGENT, unreachable, within
from doctor.mirrors import Unreachable

PATIENCE = 6.0  # seconds; DNS included


def reach(url: str, *, offline: bool = False, seconds: float = PATIENCE) -> None:
    """Raise Unreachable unless somebody answers at this address, whatever the answer is."""
    if offline:
        raise Unreachable("offline", url, "nothing is fetched offline")
    status = within(seconds, url, lambda: head(url, seconds).status_code)
    if status >= 500 and status != 501:  # 501: it is there, and does not know HEAD
        raise Unreachable(f"http-{status}", url, f"its server answers {status}")


def size(url: str, seconds: float = PATIENCE) -> int:
    """Bytes that a GET would bring; 0 where nobody tells."""
    if not url.startswith("http"):
        return 0
    try:
        told = within(seconds, url, lambda: head(url, seconds).headers.get("Content-Length", ""))
    except Unreachable:
        return 0
    return int(told) if told.isdigit() else 0


def head(url: str, seconds: float) -> requests.Response:
    try:
        return requests.head(url, headers=AGENT, timeout=seconds, allow_redirects=True)
    except requests.RequestException as error:
        raise unreachable(error, url) from error


def date(url: str, seconds: float = PATIENCE) -> str:
    """The Date of an answer, whatever the answer is; "" where there is none."""
    try:
        return within(seconds, url, lambda: dated(url, seconds))
    except Unreachable:
        return ""


def dated(url: str, seconds: float) -> str:
    try:
        answer = requests.head(url, headers=AGENT, timeout=seconds, allow_redirects=False)
    except requests.RequestException as error:
        raise unreachable(error, url) from error
    return str(answer.headers.get("Date", ""))
