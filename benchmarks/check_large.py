"""Does level 1 stay within its second with 1,000 custom nodes and 5,000 model files?

PYTHON benchmarks/check_large.py [--rounds 5]      (a folder of that size is made and removed)
"""

import argparse
import json
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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    rounds = options.parse_args().rounds
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "ComfyUI")
        build(root)
        check = [sys.executable, "-m", "doctor", "check", "--level", "1", "--json"]
        words = [*check, "--comfyui", str(root), "--python", sys.executable]
        taken = []
        for number in range(rounds + 1):
            start = time.perf_counter()
            run = subprocess.run(words, capture_output=True)
            taken += [time.perf_counter() - start] if number else []
            json.loads(run.stdout)
    print(f"{NODES} nodes, {MODELS} models: {' '.join(f'{t:.2f}' for t in taken)} s")
    kept = "kept" if median(taken) <= 1 else "BROKEN"
    print(f"median {median(taken):.2f} s; promise 1 s: {kept}")


if __name__ == "__main__":
    main()
