"""How long `comfy-doctor log` takes for 200 MB, and how much memory: healthy, sick and hostile.

PYTHON benchmarks/read_log.py [MEGABYTES]
"""

import resource
import sys
import tempfile
import time
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


def main() -> None:
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    book = signatures.book()
    for name, text in logs(megabytes):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "log")
            path.write_bytes(text)
            del text
            start = time.perf_counter()
            with path.open("rb") as stream:
                seen = symptoms.scan(stream, book)
            took = time.perf_counter() - start
        print(f"{name}: {megabytes} MB, {seen.lines} lines, {took:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak memory of this process, with the logs it made: {peak} MB")


if __name__ == "__main__":
    main()
