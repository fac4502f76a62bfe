"""A thousand nodes' answers through the real rounds, verdict, report and page: seconds and memory.

    python benchmarks/fleet.py [--nodes 1000] [--rounds 3] [--out benchmarks/results/fleet.json]

The answers are real ones, of this machine: a check of this interpreter, one of an environment
without torch, and a timing, each with other names and figures for every node; one node in 20 gives
none. Nothing travels: what is measured is what the driver does. Beside it, in the same run, what
reading the same JSON alone takes.
"""

import argparse
import json
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import record  # noqa: E402

from doctor.fleet import parcel, told  # noqa: E402
from doctor.fleet.places import DEAD, Lost, Node, Reply, Slot, Work  # noqa: E402
from doctor.fleet.rounds import Patience, rounds  # noqa: E402
from doctor.fleet.sheet import html  # noqa: E402
from doctor.fleet.verdict import fleet, outcome, to_json  # noqa: E402


def part(*words: str) -> str:
    """What one node says, by our own command line."""
    command = [sys.executable, "-m", "doctor", "fleet", "here", *words, "--json"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert '"schema": "comfy-doctor.fleet-part/1"' in run.stdout, run.stderr
    return json.dumps(json.loads(run.stdout))


def real() -> list[tuple[int, str]]:
    """(exit code, answer) of a check that finds something, one that finds less, and a timing."""
    with tempfile.TemporaryDirectory() as name:
        venv = Path(name, "venv")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        sick = part("check", "--level=1", "--python", str(venv / "bin" / "python"))
    mine = ("--python", sys.executable)
    timed = part("bench", *mine, "--steps", "10", "--runs", "3")
    return [(1, sick), (0, part("check", "--level=1", *mine)), (0, timed)]


class Answers:
    """A cluster that answers at once."""

    def __init__(self, replies: dict[str, Reply | Lost]) -> None:
        self.replies, self.slots = replies, dict[int, str]()

    def start(self, slot: Slot, work: Work) -> object:
        self.slots[len(self.slots)] = slot.node.name
        return len(self.slots) - 1

    def ended(self, handles: list[object], seconds: float) -> list[object]:
        return handles[:1]

    def result(self, handle: int) -> Reply | Lost:
        return self.replies[self.slots[handle]]

    def cancel(self, handle: object) -> None: ...

    def dead(self, node: Node) -> bool:
        return False


def replies(count: int, kinds: list[tuple[int, str]]) -> dict[str, Reply | Lost]:
    """As many answers, each a little different: other rates, now and then another driver."""
    dice = random.Random(1)
    found: dict[str, Reply | Lost] = {}
    for n in range(count):
        if n % 20 == 19:
            found[f"gpu-{n:04}"] = Lost(DEAD, "the node died")
            continue
        code, text = kinds[n % len(kinds)]
        said = json.loads(text)
        if "bench" in said:
            said["bench"]["steps_per_second"] *= dice.gauss(1.0, 0.03)
        if "facts" in said:
            said["facts"]["driver"] = "570.124.06" if n % 50 else "560.35.03"
        found[f"gpu-{n:04}"] = Reply(code, json.dumps(said), "", dice.uniform(1, 20))
    return found


def aggregated(there: dict[str, Reply | Lost]) -> dict[str, float]:
    """Seconds of each stage of what `fleet` does with the answers."""
    slots = [Slot(Node(f"id-{name}", name, gpus=8)) for name in there]
    work = Work("check", (), 60.0)
    todo = dict.fromkeys(slots, work)
    seconds, began = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal began
        seconds[name], began = time.perf_counter() - began, time.perf_counter()

    ends = rounds(Answers(there), slots, lambda slot: todo.pop(slot, None), Patience())
    outcomes = [outcome(end.slot, end.work, end.result) for end in ends]
    for one in outcomes:
        told.live(one, "en")
    lap("answers read and told, one by one")
    whole = fleet("check", "2026-01-01T00:00:00Z", outcomes)
    lap("verdict and outliers")
    lines = list(told.lines(whole, "en"))
    lap("lines")
    page = html(whole, "en")
    lap("page")
    json.dumps(to_json(whole))
    lap("JSON")
    assert len(outcomes) == len(there)
    assert len(lines) > len(there) / 20
    return {**seconds, "all": sum(seconds.values()), "page bytes": len(page.encode())}


def travels() -> dict[str, float]:
    """What each action sends to a node, packed as Ray packs it."""
    light = parcel.INSTALLERS | parcel.PICTURES
    kinds = {
        "check": (False, light),
        "bench, render": (True, light),
        "run": (True, parcel.INSTALLERS),
        "run --yes": (True, frozenset[str]()),
    }
    sizes = {}
    for name, (runner, without) in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            parcel.packed(Path(folder, "parcel"), runner, without)
            whole = shutil.make_archive(f"{folder}/whole", "zip", f"{folder}/parcel")
            sizes[name] = round(Path(whole).stat().st_size / 1e6, 1)
    return sizes


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--nodes", type=int, default=1000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/fleet.json")
    asked = options.parse_args()
    kinds = real()
    there = replies(asked.nodes, kinds)
    laps, alone = [], []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(asked.rounds):
        began = time.perf_counter()
        for one in there.values():
            json.loads(one.out) if isinstance(one, Reply) else None
        alone.append(time.perf_counter() - began)
        laps.append(aggregated(there))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sizes = {name: len(pickle.dumps(Reply(0, text, "", 1.0))) for name, (_, text) in
             zip(("a sick check", "a check", "a timing"), kinds, strict=True)}  # fmt: skip
    found = {
        "load": os.getloadavg()[0],
        "nodes": asked.nodes,
        "bytes of one answer": sizes,
        "seconds": laps,
        "seconds of reading the same JSON alone": alone,
        "megabytes at most, before and after": [before / 1000, peak / 1000],
        "megabytes that travel to a node": travels(),
    }
    command = f"python benchmarks/fleet.py --nodes {asked.nodes} --rounds {asked.rounds}"
    record(asked.out, command, found)
    whole = median(lap["all"] for lap in laps)
    print(f"{asked.nodes} nodes: {whole:.2f} s ({whole / median(alone):.1f} times reading JSON)")
    print(f"page {laps[0]['page bytes'] / 1e6:.2f} MB, memory {peak / 1000:.0f} MB, {sizes}")


if __name__ == "__main__":
    main()
