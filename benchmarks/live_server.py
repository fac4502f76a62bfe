"""A real ComfyUI started, watched and asked: its picture against the runner's, with times.

    COMFYUI_DIR=... COMFYUI_PYTHON=... python -m benchmarks.live_server [--checkpoint F] [--out F]

The checkpoint is the synthetic SD 1.5 at full size, made where none is named. torchvision is a
stand-in that can only be imported (tests/lab/comfyui.py), and is named as such in the result.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from tests.doctor.command import ROOT, answer, doctor
from tests.lab import comfyui
from tests.lab.mains import free_port


def measured(checkpoint: Path | None) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="live-server-") as folder:
        place, python = comfyui.patient(Path(folder))
        who = ["--comfyui", place, "--python", python]
        began = time.monotonic()
        code, launched = answer("launch", *who, "--detach", "--", "--port", free_port())
        ready = time.monotonic() - began
        status = answer("status", *who)
        stopped = doctor("stop", *who)[0]
        own = ["--checkpoint", checkpoint] if checkpoint else []
        began = time.monotonic()
        smoke_code, smoke = answer("smoke", *who, *own, "--out", Path(folder, "pictures"))
        return {
            "launch": {
                "exit": code,
                "ready": launched["ready"],
                "seconds": round(ready, 1),
                "flags": sorted(status[1]["flags"]),
                "restarts": status[1]["restarts"],
                "status_exit": status[0],
                "stop_exit": stopped,
            },
            "smoke": {
                "exit": smoke_code,
                "seconds": round(time.monotonic() - began, 1),
                "verdict": smoke["verdict"],
                "gates": smoke["gates"],
                "seconds_by_node": smoke["stages"],
                "start": smoke["start"],
                "versions": {key: smoke["versions"][key] for key in VERSIONS},
            },
        }


VERSIONS = ("comfyui_version", "python_version", "pytorch_version")


def about() -> dict[str, object]:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    theirs = subprocess.run(
        ["git", "-C", os.environ[comfyui.DIR], "rev-parse", "HEAD"], capture_output=True, text=True
    )
    return {
        "command": "python -m benchmarks.live_server --out benchmarks/results/live_server.json",
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip(),
        "comfyui_commit": theirs.stdout.strip(),
        "machine": {"cpus": psutil.cpu_count(), "memory": psutil.virtual_memory().total},
        "load_average_before": round(os.getloadavg()[0], 1),
        "stand_ins": sorted({name.partition("/")[0] for name in comfyui.FILES}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    result = about() | measured(asked.checkpoint)
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
