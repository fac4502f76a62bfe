"""Does level 1 stay within its second with 1,000 custom nodes and 5,000 model files?

PYTHON benchmarks/check_large.py [--rounds 5] [--out benchmarks/results/check_large.json]

A folder of that size is made and removed. Beside it, in turn, pip check of the same interpreter,
which looks at packages alone: what people run today, and a measure of how busy the machine is.
"""

import argparse
import json
import os
import platform
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

NODES, MODELS, TENSORS = 1000, 5000, 200


def header() -> bytes:
    """Of a model of 200 tensors, and nothing behind it but the bytes it promises."""
    tensors = {
        f"model.diffusion_model.input_blocks.{n}.weight": {
            "dtype": "F16",
            "shape": [1],
            "data_offsets": [2 * n, 2 * n + 2],
        }
        for n in range(TENSORS)
    }
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * (2 * TENSORS)


def build(root: Path) -> None:
    (root / "comfy").mkdir(parents=True)
    (root / "main.py").write_text("")
    for number in range(NODES):
        pack = root / "custom_nodes" / f"pack-{number:04}"
        pack.mkdir(parents=True)
        (pack / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
        (pack / "requirements.txt").write_text("packaging\nrequests>=2\n")
    content = header()
    for number in range(MODELS):
        folder = root / "models" / ("loras", "checkpoints", "vae")[number % 3] / f"{number % 50}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.safetensors").write_bytes(content)


def seconds(words: list[str]) -> tuple[float, float]:
    """By the clock, and of the processor, children included."""
    start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(words, capture_output=True)
    if run.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(words)} ended with {run.returncode}")
    taken, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def measure(root: Path, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Every raw number; the first round warms the disk cache and does not count."""
    check = [sys.executable, "-m", "doctor", "check", "--level", "1", "--json"]
    commands = {
        "check level 1": [*check, "--comfyui", str(root), "--python", sys.executable],
        "pip check": [sys.executable, "-m", "pip", "check"],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, words in commands.items():
            taken = seconds(words)
            if number:
                found[name].append(taken)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--out", type=Path)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "ComfyUI")
        build(root)
        found = measure(root, asked.rounds)
    print(f"{NODES} nodes, {MODELS} models")
    for name, runs in found.items():
        clock, processor = (median(values) for values in zip(*runs, strict=True))
        print(f"{name:<14} median {clock:.2f} s, {processor:.2f} s of the processor")
    taken = median(clock for clock, _ in found["check level 1"])
    print(f"promise 1 s: {'kept' if taken <= 1 else 'BROKEN'}; load {os.getloadavg()[0]:.1f}")
    if asked.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
        whole = {
            "command": f"python benchmarks/check_large.py --rounds {asked.rounds}",
            "date": time.strftime("%Y-%m-%d"),
            "commit": commit.stdout.strip(),
            "machine": {"system": platform.platform(), "python": platform.python_version()},
            "load": os.getloadavg()[0],
            "nodes": NODES,
            "models": MODELS,
            "seconds by the clock, and of the processor": found,
        }
        asked.out.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
