"""How much memory an img2img takes at its peak: each model and precision in a process of its own.

    python -m benchmarks.memory [--out FILE] [MODEL:DTYPE ...]

By default sd15, sd21 and sdxl on the CPU in float32, in float16, and in float32 with the wide
weights left in the mapped file ("mapped": runner/mapped.py), from whole float16 files of zeros:
memory does not ask what a weight is, and a file of zeros is made in no time. The peak is the
process's own resident set (VmHWM), what it has looked at of a mapped file among it; the bound for
SDXL in float32 is 16 GB. On a CPU without float16 arithmetic a step in float16 takes minutes, so
those load, read the prompts, and stop.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from math import prod
from pathlib import Path

from runner import checkpoint, devices, pipeline, synthetic
from runner.pixels import gradient
from runner.recipe import Recipe

MAPPED = "mapped"
ALL = [f"{model}:{how}" for model in synthetic.MODELS for how in ("float32", "float16", MAPPED)]
RECIPE = Recipe("a dog with a hat", "blurry", steps=1, denoise=1.0)


def child(path, how):
    """Load and render one picture of 64 x 64; peak and size of the weights, in bytes."""
    dtype = "float32" if how == MAPPED else how
    placement = devices.choose("cpu", dtype)
    start = time.perf_counter()
    models = pipeline.load(
        checkpoint.read(Path(path)), placement, 2, lambda *_: None, how == MAPPED
    )
    loaded, peak = time.perf_counter() - start, highest()
    if dtype == "float32":
        pipeline.img2img(models, RECIPE, gradient(64, 64), lambda *_: None)
    else:
        pipeline.reads(models, RECIPE, lambda *_: None)
    networks = models.text, models.denoiser.unet, models.vae
    held = sum(w.numel() * w.element_size() for one in networks for w in one.parameters())
    return {"loaded": peak, "peak": highest(), "weights": held, "seconds_to_load": loaded}


def highest():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def zeros(model, path):
    """A whole float16 checkpoint, every weight 0, which takes no room on most disks."""
    prefixes = synthetic.MODELS[model].prefixes
    parts = synthetic.shapes(model)
    table = {prefixes[p] + k: shape for p, names in parts.items() for k, shape in names.items()}
    head = synthetic.header(table)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 2 * sum(prod(shape) for shape in table.values()))


def measured(asked, folder):
    model, dtype = asked.split(":")
    path = folder / f"{model}.safetensors"
    if not path.exists():
        for other in folder.iterdir():
            other.unlink()
        zeros(model, path)
    words = [sys.executable, "-m", "benchmarks.memory", "--child", str(path), dtype]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    return {"model": model, "dtype": dtype, "file": path.stat().st_size, **json.loads(run.stdout)}


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("asked", nargs="*", default=ALL, metavar="MODEL:DTYPE")
    options.add_argument("--out", type=Path)
    options.add_argument("--child", nargs=2)
    given = options.parse_args()
    if given.child:
        print(json.dumps(child(*given.child)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(asked, Path(folder)) for asked in given.asked]
    for row in rows:
        name, size = f"{row['model']} {row['dtype']}", row["weights"] / 1e9
        print(f"{name}: {row['peak'] / 1e9:.2f} GB at the peak, {size:.2f} GB of it weights")
    if given.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
        about = {
            "command": "python -m benchmarks.memory",
            "commit": commit.stdout.strip(),
            "date": time.strftime("%Y-%m-%d"),
            "cores": os.cpu_count(),
            "bytes": rows,
        }
        given.out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
