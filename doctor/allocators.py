"""Allocators: is cudaMallocAsync to be trusted here? Settled by trying, not by a list of names.

Torch's own allocator and the driver's are each tried in a child of the patient's interpreter, so
that one that crashes or hangs is an answer.
"""

import os
import secrets
import signal
from pathlib import Path
from typing import Any

from doctor import child
from doctor.examine import hear
from doctor.facts import Import, Target, Unknown

PROBE = Path(__file__).with_name("probe_allocator.py")
BACKENDS = ("native", "cudaMallocAsync")
PATIENCE = 25.0  # seconds for one; starting CUDA takes the most of it


def tried(target: Target, patience: float = PATIENCE) -> Any:
    """How each allocator fared (dict[str, Import]); Unknown where there is nothing to try it on."""
    if target.python is None:
        return Unknown("there is no interpreter to ask")
    found: dict[str, Import] = {}
    for backend in BACKENDS:
        said = one(target, backend, patience)
        if isinstance(said, Unknown):
            return said
        found[backend] = said
    return found


def one(target: Target, backend: str, patience: float) -> Import | Unknown:
    mark = secrets.token_hex(8)
    words = [str(target.python), *target.flags, "-B", str(PROBE), mark]
    env = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": f"backend:{backend}"}
    try:
        ended = child.run(words, timeout=patience, env=env, cwd=target.comfyui)
    except child.TooLate:
        return Import(False, f"{backend} hung", timeout=True, seconds=patience)
    except OSError as error:
        return Unknown(f"{target.python} cannot be started: {error.strerror}")
    heard = hear(ended.out, ended.err, ended.code, mark)
    said = heard.answers[0] if heard.answers else {}
    if "skipped" in said:
        return Unknown(str(said["skipped"]))
    if said.get("ok"):
        return Import(True, detail={"backend": said["backend"], "device": said["device"]})
    died = f"died of {heard.signal}" if heard.signal else f"ended with code {ended.code}"
    return Import(
        False,
        str(said.get("error") or f"{backend} {died}"),
        heard.noise[-12:],
        signal=heard.signal if heard.signal in signal.Signals.__members__ else "",
    )
