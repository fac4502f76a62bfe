"""What a figure must be read with: machine, date, commit, command."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path


def record(path: Path, command: str, found: Mapping[str, object]) -> None:
    """Write a results file: what was found, and what it must be read with."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    whole = {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip(),
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "cpu": processor(),
            "cores": os.cpu_count(),
        },
        **found,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def processor() -> str:
    """Its name and, where the name does not tell, its model and instruction sets."""
    told: dict[str, str] = {}
    try:
        for row in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = row.partition(":")
            told.setdefault(key.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine()
    sets = [
        s
        for s in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
        if s in told.get("flags", "").split()
    ]
    return f"{told.get('model name', '?')} (model {told.get('model', '?')}, {' '.join(sets)})"
