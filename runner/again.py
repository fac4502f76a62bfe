"""Again: the same short render in a fresh process, which shares nothing with this one.

The parent sends what to load on stdin; the child answers with the hash of every tensor.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from runner.gate import Subject
from runner.recipe import Refused
from runner.trace import Trace

CODE = "import sys; sys.path.insert(0, {!r}); from runner.again import child; child()"
PATIENCE = 1800  # seconds; weights on a slow disk


def fresh(subject: Subject) -> dict[str, str]:
    """name -> sha256 of every tensor of the short render, from a process of its own.

    RuntimeError with the child's last words if it ends without an answer; Refused as the child
    was, where there is no memory for a second copy of the weights.
    """
    from runner.devices import name, threads

    placement = subject.models.placement
    errand = {
        "checkpoint": subject.checkpoint.name,
        "device": str(placement.device),
        "unet": name(placement.unet),
        "vae": name(placement.vae),
        "threads": threads(),
    }
    home = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, *flags(), "-c", CODE.format(home)]
    ended = subprocess.run(
        command, input=json.dumps(errand), capture_output=True, text=True, timeout=PATIENCE
    )
    try:
        told: dict[str, str] = json.loads(ended.stdout)
    except ValueError:
        last = (ended.stderr.strip().splitlines() or ["nothing"])[-1]
        raise RuntimeError(f"a fresh process ended with {ended.returncode}: {last}") from None
    if "refused" in told:
        raise Refused(told["refused"], f"a fresh process: {told['why']}")
    return told


def flags() -> list[str]:
    """The flags of this interpreter that decide which packages it sees."""
    set_here = {
        "-I": sys.flags.isolated,
        "-E": sys.flags.ignore_environment,
        "-s": sys.flags.no_user_site,
        "-B": sys.dont_write_bytecode,
    }
    return [flag for flag, there in set_here.items() if there]


def child() -> None:
    """The other end of fresh()."""
    try:
        told = rendered(json.load(sys.stdin))
    except Refused as lacking:
        told = {"refused": lacking.id, "why": str(lacking)}
    print(json.dumps(told))  # noqa: T201 - its answer


def rendered(errand: dict[str, Any]) -> dict[str, str]:
    """Load and render what the parent asks for."""
    import torch

    from runner import checkpoint, devices, pipeline, synthetic
    from runner.rungs_network import short_run

    devices.set_threads(errand["threads"])
    place = devices.Placement(
        torch.device(errand["device"]),
        devices.DTYPES[errand["unet"]],
        devices.DTYPES[errand["vae"]],
    )
    kind, _, model = errand["checkpoint"].partition(" ")
    weights = (
        synthetic.checkpoint(model)
        if kind == "synthetic"
        else checkpoint.read(Path(errand["checkpoint"]))
    )
    models = pipeline.load(weights, place, errand["threads"], lambda *_: None)
    with devices.exact(place):
        return hashes(short_run(Subject(models, weights)))


def hashes(trace: Trace) -> dict[str, str]:
    return {key: trace.sha256(key) for key in trace.tensors}
