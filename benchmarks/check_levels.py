"""Does `check` keep its promises (level 1: 1 s, level 2: 15 s), beside a bare import?

python benchmarks/check_levels.py --python PATIENT [--rounds 5] [--out benchmarks/results/F.json]

Whole processes, in turn, so that a machine that slows down slows all of them; ratios are taken
round by round. PATIENT is the interpreter that is judged; it needs torch and numpy.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from record import record

PROMISE = {"check level 1": 1.0, "check level 2": 15.0}  # seconds


def commands(patient: str) -> dict[str, list[str]]:
    check = [sys.executable, "-m", "doctor", "check", "--python", patient, "--json"]
    return {
        "import torch, numpy": [patient, "-c", "import torch, numpy"],
        "check level 1": [*check, "--level", "1"],
        "check level 2": [*check, "--level", "2"],
    }


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    run = subprocess.run(words, capture_output=True)
    if run.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(words)} ended with {run.returncode}")
    return time.perf_counter() - start


def measure(patient: str, rounds: int) -> dict[str, list[float]]:
    """Every raw number; the first round warms the disk cache and does not count."""
    found: dict[str, list[float]] = {name: [] for name in commands(patient)}
    for number in range(rounds + 1):
        for name, words in commands(patient).items():
            taken = seconds(words)
            if number:
                found[name].append(taken)
    return found


def lines(found: dict[str, list[float]]) -> list[str]:
    bare = found["import torch, numpy"]
    told = []
    for name, runs in found.items():
        ratio = median(run / base for run, base in zip(runs, bare, strict=True))
        seconds = f"{min(runs):6.2f} {median(runs):6.2f} {max(runs):6.2f} s"
        line = f"{name:<20} {seconds}   {ratio:5.2f} ×"
        if name in PROMISE:
            kept = "kept" if max(runs) <= PROMISE[name] else "BROKEN"
            line += f"   promise {PROMISE[name]:.0f} s: {kept}"
        told.append(line)
    return told


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--python", required=True)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--out", type=Path)
    asked = options.parse_args()
    found = measure(asked.python, asked.rounds)
    print(f"{'':<20}    min median    max     of the bare import")
    print("\n".join(lines(found)))
    if asked.out:
        record(
            asked.out,
            f"python benchmarks/check_levels.py --rounds {asked.rounds}",
            {"seconds": found},
        )


if __name__ == "__main__":
    main()
