"""Verdict: what the runner's last proof found wrong on this machine, and which finding that is.

The runner tells suspects apart by experiments; which launch flag does for good what cured a gate
there is data: `experiments` in manifests/launch.toml.
"""

import json
from collections.abc import Mapping
from typing import Any

from doctor.facts import Failed, Proof, Slow

BLACK, ATTENTION, SHAKY, DEVICE, NUMBERS = (
    "black-nan-image",
    "attention-wrong",
    "render-not-repeatable",
    "device-computes-wrongly",
    "numbers-wrong",
)
PRECISION = ("vae-float32", "unet-float32", "attention-float32")
ONE_BIT = "by one bit"  # the runner's words for a weight that memory did not keep


def read(text: str, at: str) -> Proof:
    """The failed gates of a report.json that was written at that time; none if it is damaged."""
    try:
        return proof_of(json.loads(text), at)
    except (ValueError, TypeError, KeyError, AttributeError):
        return Proof()


def proof_of(report: Mapping[str, Any], at: str) -> Proof:
    """The failed gates of an object of schema comfy-doctor.run/1 or runner.prove/1, and what made
    its benchmark slow."""
    verify = report["verify"] or {}
    cures = {one["gate"]: one["cured_by"] for one in verify.get("suspects", ())}
    failed = (gate for gate in verify.get("gates", ()) if gate["verdict"] == "failed")
    told = (Failed(g["name"], str(g["why"]), cures.get(g["name"], "")) for g in failed)
    timed = report.get("bench") or {}
    slow = (Slow(str(one["id"]), str(one["because"])) for one in timed.get("causes", ()))
    return Proof(tuple(told), at, tuple(slow))


def finding_of(failed: Failed) -> str:
    """The id of the finding that a failed gate belongs to."""
    gate, cure = failed.gate, failed.cured_by
    again = any(name in gate for name in ("determinism", "fresh process"))
    if any(name in gate for name in ("finite", "picture")) and cure in PRECISION:
        return BLACK
    if cure in ("again", "cpu") or gate in ("arithmetic", "memory") or ONE_BIT in failed.why:
        return DEVICE
    if cure == "attention-math":
        return ATTENTION
    if again:
        return SHAKY if cure else DEVICE
    return NUMBERS
