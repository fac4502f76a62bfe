"""Allocators: the same bench under torch's own and the driver's, each in a process of its own.

Which one is used is settled when CUDA starts. ComfyUI takes the driver's (cudaMallocAsync) on cards
it thinks capable of it (cuda_malloc.py); a failure there, or a loss, is what asks for
--disable-cuda-malloc.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.again import flags
from runner.recipe import Refused

NATIVE, ASYNC = "native", "cudaMallocAsync"
LOSS = 0.03  # of the speed; less is no reason to set a flag
CODE = "import sys; sys.path.insert(0, {!r}); from runner.cli import main; sys.exit(main())"
OWN = ("--allocators", "--json")  # words that are not for the processes
FILES = ("--history", "--compare")  # nor are these, with the word behind them
Json = dict[str, Any]
Ask = Callable[[str, Sequence[str]], Json]  # the bench's JSON object, or {"error": words}


def compared(words: Sequence[str], ask: Ask) -> Json:
    """The native one's bench, with both beside each other under "allocators".

    words: of the command line. Refused: bench-failed, where the native one gives no result.
    """
    own = for_each(words)
    native, other = (ask(name, own) for name in (NATIVE, ASYNC))
    if "error" in native:
        raise Refused("bench-failed", f"With the {NATIVE} allocator: {native['error']}")
    return native | {"allocators": judged(native, other)}


def for_each(words: Sequence[str]) -> list[str]:
    own: list[str] = []
    behind = False
    for word in words:
        if not behind and word not in OWN and word.partition("=")[0] not in FILES:
            own.append(word)
        behind = word in FILES
    return [*own, "--json", "--progress=none"]


def judged(native: Mapping[str, Any], other: Mapping[str, Any]) -> Json:
    """Seconds a step of each, and whether ComfyUI is better off without the driver's, and why."""
    told: Json = {NATIVE: {name: native[name] for name in ("median", "spread")}}
    if "error" in other:
        told[ASYNC] = {"error": other["error"]}
        return told | {"disable_cuda_malloc": True, "because": other["error"]}
    told[ASYNC] = {name: other[name] for name in ("median", "spread")}
    lost = 1 - native["median"] / other["median"]
    beyond = other["median"] - native["median"] > native["spread"] + other["spread"]
    if lost > LOSS and beyond:
        because = f"{ASYNC} is {lost:.0%} slower here"
        return told | {"disable_cuda_malloc": True, "because": because}
    return told | {"disable_cuda_malloc": False, "because": f"{ASYNC} works, {-lost:+.1%}"}


def child(backend: str, words: Sequence[str]) -> Json:
    """Ask a process of this interpreter, under one allocator."""
    home = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, *flags(), "-c", CODE.format(home), *words]
    environment = os.environ | {"PYTORCH_CUDA_ALLOC_CONF": f"backend:{backend}"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    try:
        told: Json = json.loads(ended.stdout)
    except ValueError:
        last = (ended.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return {"error": f"ended with {ended.returncode}: {last}"}
    if "error" in told:
        return {"error": str(told["error"].get("message", told["error"]))}
    return told
