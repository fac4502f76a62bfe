"""Events: what a ComfyUI server tells of its work over its websocket, in bounded time and memory.

https://docs.comfy.org/development/comfyui-server/comms_messages; a server may send anything else.
"""

import json
import ssl
from dataclasses import dataclass
from time import monotonic
from typing import Any

import websocket

from doctor.api import Server, is_own
from doctor.mirrors import loopback

LARGEST = 64 << 20  # bytes of one message: a preview, or outputs told in JSON
TELLS = 3.0  # seconds that a whole message may take once it has begun


class Lost(Exception):
    """The websocket is not there, or not any more; the sentence says how it ended."""


@dataclass(frozen=True)
class Event:
    """One message: its type and data; of a binary one, a preview, only that it came."""

    kind: str
    data: dict[str, Any]


# The newest websocket-client has types, but none for the two methods that are called below; an
# older one has no types at all. It is that which "type: ignore" passes over.
class Bounded(websocket.WebSocket):  # type: ignore[misc]
    """One message is no larger and takes no longer than it may, however it is sent."""

    until, left = 0.0, LARGEST

    def _recv(self, bufsize: int) -> Any:
        if monotonic() > self.until:
            raise websocket.WebSocketTimeoutException("a message without end")
        block = super()._recv(bufsize)  # type: ignore[no-untyped-call]
        self.left -= len(block)
        if self.left < 0:
            raise websocket.WebSocketPayloadException(f"more than {LARGEST} bytes in a message")
        return block


class Events:
    """The websocket of one client of a server."""

    def __init__(self, server: Server, client: str) -> None:
        self.socket = Bounded(enable_multithread=False, sslopt=unchecked(server.url))
        self.socket.settimeout(server.patience)
        self.socket.until = monotonic() + server.patience
        proxy = {"http_no_proxy": ["*"]} if loopback(server.url) else {}
        headers = [f"{name}: {value}" for name, value in server.headers.items()]
        try:
            self.socket.connect(  # type: ignore[no-untyped-call]
                server.socket_address(client), header=headers, redirect_limit=0, **proxy
            )
        except (websocket.WebSocketException, OSError, ValueError) as error:
            self.close()
            raise Lost(str(error)[:200] or type(error).__name__) from error

    def next(self, seconds: float) -> Event | None:
        """The next message; None where none begins within these seconds. Raises Lost."""
        self.socket.settimeout(seconds)
        self.socket.until, self.socket.left = monotonic() + seconds + TELLS, LARGEST
        began = monotonic()
        try:
            code, data = self.socket.recv_data()
        except websocket.WebSocketTimeoutException as error:
            if monotonic() - began > seconds + TELLS:
                raise Lost(str(error)) from error
            return None
        except (websocket.WebSocketException, OSError, ValueError) as error:
            raise Lost(str(error)[:200] or type(error).__name__) from error
        if code == websocket.ABNF.OPCODE_BINARY:
            return Event("preview", {"bytes": len(data)})
        if code != websocket.ABNF.OPCODE_TEXT:
            raise Lost("the server closed it")
        return read(data)

    def close(self) -> None:
        try:
            self.socket.close(timeout=1)
        except (websocket.WebSocketException, OSError, ValueError, AttributeError):
            return


def read(data: bytes) -> Event:
    """What is no message of ComfyUI's is an event that nobody waits for."""
    try:
        said = json.loads(data)
        return Event(str(said["type"]), dict(said["data"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Event("unknown", {})


def unchecked(url: str) -> dict[str, Any]:
    return {"cert_reqs": ssl.CERT_NONE, "check_hostname": False} if is_own(url) else {}
