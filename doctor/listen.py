"""Listen: where main.py will answer, by its own arguments, and whom that lets in. Pure."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

PORT = 8188
EVERYWHERE = "0.0.0.0,::"  # --listen without a value (comfy/cli_args.py)


@dataclass(frozen=True)
class Listening:
    addresses: tuple[str, ...] = ("127.0.0.1",)
    port: int = PORT
    tls: bool = False

    @property
    def url(self) -> str:
        """Where this machine itself reaches it."""
        first = self.addresses[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(first, first)
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def exposed(self) -> tuple[str, ...]:
        """The addresses that others can reach."""
        return tuple(one for one in self.addresses if not is_loopback(one))


def of_words(words: Sequence[str]) -> Listening:
    """By main.py's arguments, the last of a kind counting, as argparse has it."""
    listen = value(words, "--listen", "127.0.0.1", EVERYWHERE)
    port = value(words, "--port", str(PORT), str(PORT))
    addresses = tuple(one.strip() for one in listen.split(",") if one.strip())
    tls = "--tls-keyfile" in names(words) and "--tls-certfile" in names(words)
    return Listening(addresses or ("127.0.0.1",), int(port) if port.isdigit() else PORT, tls)


def names(words: Sequence[str]) -> set[str]:
    """The options among the words, without their values."""
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def value(words: Sequence[str], name: str, absent: str, bare: str) -> str:
    found = absent
    for word, after in zip(words, (*words, "--")[1:], strict=True):
        if word == name:
            found = bare if after.startswith("--") else after
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
