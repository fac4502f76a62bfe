"""Is it the network, and which part of it: the way out, names, a proxy, certificates, one host?

Nothing here is an error: a machine without a network can be in perfect health.
"""

from collections.abc import Iterator, Sequence

from doctor.check import check
from doctor.facts import Facts, Network, Reached
from doctor.finding import Finding, Severity

SLOW = 3.0  # seconds to the first byte
TRICKLE = 100_000  # bytes per second
WHEEL = 190_000_000  # bytes, what an installation brings at least: a torch for the CPU
OFF = 86_400.0  # seconds that a clock may differ before certificates are held to be old or unborn
LIMITED = ("http-429", "http-403")


def failed(network: Network) -> tuple[Reached, ...]:
    return tuple(one for one in network.asked if one.reason)


def down(network: Network) -> bool:
    """Nobody at all is reached, and it is not a proxy's or a certificate's doing."""
    lost = failed(network)
    words = {one.reason for one in lost}
    return bool(lost) and len(lost) == len(network.asked) and not words & {"proxy", "tls"}


def alone(facts: Facts, *names: str) -> tuple[Reached, ...]:
    """Those of these places that fail for a reason of their own."""
    if down(facts.network):
        return ()
    other = ("proxy", "tls", *LIMITED)
    return tuple(
        one for one in failed(facts.network) if one.name in names and one.reason not in other
    )


def because(lost: Sequence[Reached]) -> tuple[str, ...]:
    return tuple(
        f"{one.url}: {one.why}" + (f" (address set by {one.by})" if one.by else "") for one in lost
    )


@check("network-down")
def network_down(facts: Facts) -> Iterator[Finding]:
    """This machine has no way to other networks, or nobody answers there."""
    network = facts.network
    named = all(one.reason == "dns" for one in failed(network))
    if down(network) and not (named and network.way_out):
        why = () if network.way_out else ("the system knows no way to other networks",)
        yield Finding(Severity.WARNING, (*why, *because(failed(network))))


@check("dns-broken")
def dns_broken(facts: Facts) -> Iterator[Finding]:
    """There is a way out, and no name is found."""
    network = facts.network
    if down(network) and network.way_out and all(o.reason == "dns" for o in failed(network)):
        yield Finding(Severity.WARNING, because(failed(network)))


@check("proxy-wrong")
def proxy_wrong(facts: Facts) -> Iterator[Finding]:
    """A proxy that is set does not answer, or refuses."""
    lost = [one for one in failed(facts.network) if one.reason == "proxy"]
    if lost:
        set_by = tuple(f"{name}={value}" for name, value in facts.network.proxies.items())
        names = ", ".join(facts.network.proxies) or "?"
        yield Finding(Severity.WARNING, (*set_by, *because(lost)), values={"names": names})


@check("ssl-certificate")
def ssl_certificate(facts: Facts) -> Iterator[Finding]:
    """A certificate is not accepted: the clock, somebody in between, or that one server."""
    lost = [one for one in failed(facts.network) if one.reason == "tls"]
    if not lost:
        return
    clock, every = facts.network.clock, len(lost) == len(facts.network.asked)
    why = ["this one server's certificate, others are accepted"]
    if abs(clock) > OFF:
        days = abs(clock) / 86_400
        why = [f"this machine's clock is {days:.0f} days {'ahead' if clock > 0 else 'behind'}"]
    elif every:
        why = ["no certificate at all is accepted: somebody in between opens TLS, or no CA bundle"]
    yield Finding(Severity.WARNING, (*why, *because(lost)))


@check("pip-network")
def pip_network(facts: Facts) -> Iterator[Finding]:
    """The package index in use, or that of torch, is out of reach."""
    if lost := alone(facts, "index", "torch-index"):
        yield Finding(Severity.WARNING, because(lost))


@check("github-unreachable")
def github_unreachable(facts: Facts) -> Iterator[Finding]:
    """GitHub is out of reach, by git or for archives."""
    if lost := alone(facts, "github", "archive"):
        yield Finding(Severity.WARNING, because(lost))


@check("github-raw-unreachable")
def github_raw_unreachable(facts: Facts) -> Iterator[Finding]:
    """The host of ComfyUI-Manager's lists, or the registry, is out of reach."""
    if lost := alone(facts, "raw", "registry"):
        yield Finding(Severity.WARNING, because(lost))


@check("huggingface-unreachable")
def huggingface_unreachable(facts: Facts) -> Iterator[Finding]:
    """The host of most models is out of reach."""
    if lost := alone(facts, "models"):
        yield Finding(Severity.WARNING, because(lost))


@check("network-rate-limited")
def network_rate_limited(facts: Facts) -> Iterator[Finding]:
    """A host answers, and wants no more questions for now."""
    if lost := [one for one in failed(facts.network) if one.reason in LIMITED]:
        yield Finding(Severity.INFO, because(lost))


@check("network-slow")
def network_slow(facts: Facts) -> Iterator[Finding]:
    """An answer takes seconds to begin, or comes in at a trickle."""
    lines = tuple(line for one in facts.network.asked if not one.reason for line in slow(one))
    if lines:
        yield Finding(Severity.INFO, lines)


def slow(one: Reached) -> Iterator[str]:
    if one.seconds > SLOW:
        yield f"{one.url}: {one.seconds:.1f} s to the first byte"
    if 0 < one.rate < TRICKLE:
        hours = WHEEL / one.rate / 3600
        yield f"{one.url}: {one.rate / 1000:.0f} kB/s; torch for the CPU would take {hours:.1f} h"
