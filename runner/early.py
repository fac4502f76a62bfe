"""Early: a file's bytes, and memory for its weights, fetched while torch is still being imported.

Fresh memory costs the system more time than reading a file that it knows (measured, 4 GB: 3 to 9 of
14 seconds of processor time), and importing torch keeps one core busy for as long. Only where
weights will lie on the CPU; whoever does not come for the memory loses nothing but that time.

Pages are touched by writing to them: since Linux 6.4 that takes no lock that imports want, too
(per-VMA locks); madvise(2)'s MADV_POPULATE_WRITE does, and doubled the time of importing torch.

Large pages come fastest, 10 GB/s, until what the system has of them is memory that a virtual
machine's host has taken back: then 0.5 GB/s were measured, where small pages go on with 2.
"""

import ctypes
import json
import mmap
import os
import sys
import threading
import time
from contextlib import suppress
from math import inf, prod
from pathlib import Path

PIECE = 1 << 26  # bytes a call: each begins with waiting for the interpreter's lock
READ, LOOKS = 1 << 24, 16  # bytes a call, and places of a file that are looked at first
READERS = 2  # threads; half the time of one, and as much as four
WIDEST = 4  # bytes of a weight on the CPU
SLOW = 1.5e9  # bytes a second; small pages are faster
SPARE = 2  # times what is taken must be free: a machine short of memory is left alone
LENT, LENDER = 1 << 20, "model.diffusion_model."  # numbers of a weight that stays in its file
ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
FILES = ("inactive_file", "active_file")
UNASKED = ("__metadata__", "model_ema.", "loss.")  # names that no render reads
LONGEST_HEADER = 1 << 24  # bytes; SDXL's has 350,000

taken: "list[Early]" = []  # at most one; taken by whoever asks first


class Early:
    """So many bytes of memory, and a thread that touches them until it is stopped."""

    def __init__(self, size: int):
        self.memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory.madvise(mmap.MADV_HUGEPAGE)
        self.touched, self.enough = 0, threading.Event()
        self.thread = threading.Thread(target=self.touch, daemon=True)
        self.thread.start()

    def touch(self) -> None:
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        while self.touched < len(self.memory) and not self.enough.is_set():
            size = min(PIECE, len(self.memory) - self.touched)
            began = time.thread_time()
            ctypes.memset(start + self.touched, 0, size)  # lets other threads run
            if size < (time.thread_time() - began) * SLOW:
                self.memory.madvise(mmap.MADV_NOHUGEPAGE)  # from here on
            self.touched += size

    def stop(self) -> mmap.mmap:
        self.enough.set()
        self.thread.join()
        return self.memory


def begin(path: Path, device: str | None = None, mapped: bool = False) -> bool:
    """Begin for a safetensors file; whether memory is on its way. Never fails.

    mapped: most of its weights will stay in it (mapped.py).
    """
    if sys.platform != "linux" or taken or not path.is_file():  # to open a pipe is to wait
        return False
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        size, room = weights(path, mapped) * WIDEST, free() / SPARE
        if size and path.stat().st_size < room:
            read_ahead(path)
        if 0 < size < room and on_processor(device):
            taken.append(Early(size))
    return bool(taken)


def on_processor(device: str | None) -> bool:
    """Whether weights will lie on the CPU, as far as is known before torch is."""
    return device in (None, "cpu") and not any(map(os.path.exists, ACCELERATORS))


def read_ahead(path: Path) -> None:
    """Begin to read a file into the system's memory, unless it is there; by reading it: what
    readahead(2) takes in one call is bounded by a setting of the disk, 128 kB on most."""
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        if kept(file.fileno(), size):
            return
    for first in range(READERS):
        places = range(first * READ, size, READERS * READ)
        threading.Thread(target=read, args=(path, places), daemon=True).start()


def read(path: Path, places: range) -> None:
    """READ bytes at each of these places, for the system to keep."""
    piece = bytearray(READ)
    with suppress(OSError), path.open("rb", buffering=0) as file:
        for place in places:
            file.seek(place)
            file.readinto(piece)


def kept(file: int, size: int) -> bool:
    """Whether the system has a file in its memory, by a look at some places (preadv2(2))."""
    try:
        for place in range(0, size, max(size // LOOKS, 1)):
            os.preadv(file, [bytearray(1)], place, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    return True


def weights(path: Path, mapped: bool = False) -> int:
    """How many numbers of a file are to be written elsewhere; fewer, if what can stays in it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            return 0
        rows = json.loads(file.read(length))
    sizes = {name: prod(row["shape"]) for name, row in rows.items() if not name.startswith(UNASKED)}
    stays = {name for name, size in sizes.items() if size >= LENT and name.startswith(LENDER)}
    return sum(size for name, size in sizes.items() if not (mapped and name in stays))


def free(system: Path = Path("/")) -> float:
    """Bytes that are to be had, as Linux says, of the machine or of a container. OSError,
    StopIteration, ValueError or IndexError elsewhere.
    """
    rows = (system / "proc/meminfo").read_text().splitlines()
    said = next(int(row.split()[1]) * 1024 for row in rows if row.startswith("MemAvailable"))
    return min(said, left(system / "sys/fs/cgroup"))


def left(group: Path) -> float:
    """Bytes that a control group has left, files that it would let go among them (cgroup v2)."""
    try:
        most, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        rows = (row.split() for row in (group / "memory.stat").read_text().splitlines())
        return most - used + sum(int(size) for name, size in rows if name in FILES)
    except (OSError, ValueError):  # no such group; "max"
        return inf


def ready(size: int) -> mmap.mmap | None:
    """Memory of at least that many bytes, if it was begun in time; another asker gets none.

    What is too small for the first who asks is given back.
    """
    if not taken:
        return None
    memory = taken.pop().stop()
    return memory if len(memory) >= size else None


def held() -> int:
    """Bytes that are touched already and still to be had."""
    return taken[0].touched if taken else 0
