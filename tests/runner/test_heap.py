"""Memory kept between steps: a setting of a whole process, so it is tried in one of its own."""

import subprocess
import sys

import pytest

BLOCKS = """
import ctypes, sys
from runner import heap
kept = heap.keep() if sys.argv[1] == "keep" else None
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
    ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p])
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
block = libc.malloc(1 << 26)
ctypes.memset(block, 1, 1 << 26)
before = resident()
libc.free(block)
print(kept, before - resident() > 1 << 25)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
@pytest.mark.parametrize(("asked", "answer"), [("keep", "True False"), ("leave", "None True")])
def test_what_is_freed_stays_only_if_asked(asked, answer):
    run = subprocess.run([sys.executable, "-c", BLOCKS, asked], capture_output=True, text=True)
    assert run.stdout.strip() == answer, run.stderr
