"""How long `comfy-doctor log` takes for 200 MB, and how much memory: healthy, sick and hostile.

PYTHON benchmarks/read_log.py [MEGABYTES] [--out benchmarks/results/read_log.json]

Processor seconds count, because others may work beside it. The peer is a pass over the same lines
in plain Python.
"""

import argparse
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from doctor import signatures, symptoms

HEALTHY = """got prompt
  0%|          | 0/20 [00:00<?, ?it/s]\r 50%|#####     | 10/20 [00:02<00:02,  4.15it/s]\r
Requested to load BaseModel
loaded completely 22137.8 235.84423828125 True
Prompt executed in {n}.34 seconds
"""
SICK = """!!! Exception during processing !!! Allocation on device {n}
Traceback (most recent call last):
  File "/opt/ComfyUI/execution.py", line {n}, in execute
    output_data = get_output_data(obj, input_data_all)
  File "/opt/ComfyUI/custom_nodes/pack{n}/nodes.py", line 90, in sample
    return model(x)
torch.OutOfMemoryError: Allocation on device {n}
2026-03-02 20:11:05,120 - ERROR - a node says {n}: file not found
"""


def logs(megabytes: int):
    size = megabytes << 20
    yield "healthy", "".join(HEALTHY.format(n=n) for n in range(size // 170)).encode()
    yield "sick", "".join(SICK.format(n=n) for n in range(size // 400)).encode()
    yield "one line", b"Error: " + b"no module named " * (size // 16)
    yield "NULs and bad UTF-8", (b"\0\xff\xfe error \x1b[31m\n" * (size // 18))[:size]


def plain(path: Path) -> int:
    """The peer: the same lines decoded and searched for one word, as grep in Python would."""
    with path.open("rb") as stream:
        return sum("error" in line.decode("utf-8", "replace").lower() for line in stream)


def timed(work: Callable[[], object]) -> tuple[object, float, float]:
    """What it gives, its processor seconds and the seconds that went by."""
    clock, processor = time.perf_counter(), time.process_time()
    given = work()
    return given, time.process_time() - processor, time.perf_counter() - clock


def read(path: Path, book: signatures.Book) -> symptoms.Reading:
    with path.open("rb") as stream:
        return symptoms.scan(stream, book)


def measured(megabytes: int) -> Iterator[dict[str, object]]:
    book = signatures.book()
    for name, text in logs(megabytes):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "log")
            path.write_bytes(text)
            del text
            seen, processor, clock = timed(lambda path=path: read(path, book))
            _, peer, _ = timed(lambda path=path: plain(path))
        yield {
            "log": name,
            "lines": seen.lines,
            "processor seconds": round(processor, 2),
            "seconds": round(clock, 2),
            "times a plain pass": round(processor / peer, 2),
        }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    options.add_argument("megabytes", nargs="?", type=int, default=200)
    options.add_argument("--out", type=Path)
    asked = options.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    rows = []
    for row in measured(asked.megabytes):
        print(row, flush=True)
        rows.append(row)
    told = {
        "command": shlex.join(["python", "benchmarks/read_log.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip(),
        "machine": {"system": platform.platform(), "python": platform.python_version()},
        "load": os.getloadavg()[0],
        "signatures": len(signatures.book().signatures),
        "megabytes": asked.megabytes,
        "logs": rows,
        "peak MB, with the log": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    if asked.out:
        asked.out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


RAW = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
