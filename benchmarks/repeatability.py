"""Is the benchmark to be believed? The same run in new processes, on a machine that is left alone,
and again while every core is kept busy.

python benchmarks/repeatability.py --model SD15.safetensors [--size 256] [--runs 3] [--times 2]
    [--python PY] [--out benchmarks/results/repeatability.json]

Alone, medians are to agree within 3 %; under load the benchmark itself is to say that it doubts.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from record import record

ROOT = Path(__file__).resolve().parents[1]
WITHIN = 0.03


def bench(options: argparse.Namespace) -> dict[str, Any]:
    words = ["--model", options.model, "--size", options.size, "--steps", options.steps]
    words += ["--runs", options.runs, "--json", "--progress", "none"]
    run = subprocess.run(
        [options.python, "-m", "runner", "bench", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told: dict[str, Any] = json.loads(run.stdout)
    names = ("median", "spread", "others", "doubts", "seconds")
    return {name: told[name] for name in names}


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but take a core, and are well under way."""
    code = "while True: pass"
    runs = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for run in runs:
            run.kill()
            run.wait()


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--model", default="embedded", help="as `runner bench` takes it")
    words.add_argument("--size", type=int, default=256)
    words.add_argument("--steps", type=int, default=5)
    words.add_argument("--runs", type=int, default=3)
    words.add_argument("--times", type=int, default=2)
    words.add_argument("--python", default=sys.executable)
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    load = os.getloadavg()[0]
    alone = [bench(options) for _ in range(options.times)]
    with busy(2 * (os.cpu_count() or 1)):
        loaded = bench(options)
    medians = [one["median"] for one in alone]
    apart = max(medians) / min(medians) - 1
    slower = loaded["median"] / median(medians)
    print(f"alone: {', '.join(f'{m:.4f}' for m in medians)} s a step, {apart:.1%} apart")
    print(f"under load: {slower:.2f} x as long; it says: {' '.join(loaded['doubts']) or 'nothing'}")
    if options.out:
        command = f"python benchmarks/repeatability.py --model {Path(options.model).name}"
        command += f" --size {options.size} --steps {options.steps} --runs {options.runs}"
        found = {"load_before": load, "apart": apart, "alone": alone, "under_load": loaded}
        record(options.out, command, found)
    return 0 if apart <= WITHIN and loaded["doubts"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
