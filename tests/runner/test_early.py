"""Memory begun before torch: taken once, by who has room for it, and never in anybody's way."""

import sys
import threading

import pytest

torch = pytest.importorskip("torch")
from runner import checkpoint, early, memory, tables  # noqa: E402
from tests.runner.conftest import edit  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a call of Linux")


@pytest.fixture
def begun(monkeypatch):
    """A machine without cards, and nothing begun before or after."""
    monkeypatch.setattr(early, "ACCELERATORS", ())
    yield early.begin
    while early.taken:
        early.taken.pop().stop()


def test_it_is_as_large_as_the_weights_and_taken_once(begun, small):
    assert begun(small)
    size = (
        early.WIDEST * sum(entry.stop - entry.start for entry in tables.header(small).values()) // 2
    )  # the file is float16
    begun_with = early.taken[0].memory
    arena = memory.pages(size)
    assert arena.data_ptr() == torch.frombuffer(begun_with, dtype=torch.uint8).data_ptr()
    assert len(arena) == size
    assert not bool(arena.any())
    assert early.ready(1) is None
    assert early.held() == 0


def test_who_needs_more_gets_memory_of_its_own(begun, small):
    assert begun(small)
    more = len(early.taken[0].memory) + 1
    assert len(memory.pages(more)) == more
    assert not early.taken, "what is too small is given back"


def test_every_page_is_touched_unless_it_is_stopped(begun, small):
    assert begun(small)
    one = early.taken[0]
    one.thread.join(30)
    assert early.held() == len(one.memory)


@pytest.mark.parametrize(("slow", "large"), [(0.0, True), (1e15, False)])
def test_small_pages_take_over_where_large_ones_are_slow(begun, small, monkeypatch, slow, large):
    advised, piece = [], 1 << 16

    class Told(early.mmap.mmap):
        def madvise(self, how, *where):
            advised.append(how)

    monkeypatch.setattr(early.mmap, "mmap", Told)
    monkeypatch.setattr(early, "PIECE", piece)
    monkeypatch.setattr(early, "SLOW", slow)
    assert begun(small)
    early.taken[0].thread.join(30)
    assert advised[0] == early.mmap.MADV_HUGEPAGE
    assert (early.mmap.MADV_NOHUGEPAGE not in advised) == large
    assert early.held() == len(early.taken[0].memory)


def test_a_file_is_in_the_memory_of_the_system_afterwards(small, monkeypatch):
    with small.open("rb") as file:
        file.read()
        size = small.stat().st_size
        assert early.kept(file.fileno(), size)
        early.os.fsync(file.fileno())
        early.os.posix_fadvise(file.fileno(), 0, 0, early.os.POSIX_FADV_DONTNEED)
        monkeypatch.setattr(early, "READ", 1 << 16)
        before = set(threading.enumerate())
        early.read_ahead(small)
        for thread in set(threading.enumerate()) - before:
            thread.join(30)
        assert early.kept(file.fileno(), size)


def test_every_byte_of_a_file_is_read_once(small, monkeypatch):
    read, before = [], set(threading.enumerate())
    monkeypatch.setattr(early, "READ", 1 << 16)
    monkeypatch.setattr(early, "kept", lambda *_: False)
    monkeypatch.setattr(early, "read", lambda _, places: read.extend(places))
    early.read_ahead(small)
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    assert sorted(read) == list(range(0, small.stat().st_size, early.READ))
    assert len(read) > 2


def test_beside_a_card_the_file_is_read_and_no_memory_taken(begun, small, monkeypatch):
    read = []
    monkeypatch.setattr(early, "read_ahead", read.append)
    assert not begun(small, "cuda")
    assert read == [small]


def test_what_was_touched_counts_as_free(begun, small, monkeypatch):
    assert begun(small)
    early.taken[0].thread.join(30)
    size = len(early.taken[0].memory)
    monkeypatch.setattr(early, "held", lambda: size)
    monkeypatch.setattr(memory, "free_memory", lambda: 64.0)
    specs = [((size // 4,), torch.device("cpu"), torch.float32)]
    assert next(memory.reserve(specs)).numel() == size // 4


def test_weights_are_the_same_with_it(begun, small):
    from runner import devices, pipeline

    def loaded():
        there = devices.choose("cpu", "float32")
        return pipeline.load(checkpoint.read(small), there, 1, lambda *_: None)

    plain = loaded()
    assert begun(small)
    early_on = loaded()
    assert not early.taken
    ours, theirs = (dict(m.denoiser.unet.named_parameters()) for m in (early_on, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_no_render_reads_takes_no_memory(small, tmp_path):
    def trained(rows):
        name = next(name for name in rows if name != "__metadata__")
        return rows | {f"model_ema.{name}": rows[name]}

    more = edit(small, tmp_path / "ema.safetensors", trained)
    assert early.weights(more) == early.weights(small)


@pytest.mark.parametrize(
    ("most", "left"), [("max\n", 8192 << 10), ("5000000\n", 2_300_000), (None, 8192 << 10)]
)
def test_a_container_has_what_its_control_group_has_left(tmp_path, most, left):
    group = tmp_path / "sys/fs/cgroup"
    for folder in (group, tmp_path / "proc"):
        folder.mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8192 kB\n")
    (group / "memory.current").write_text("3000000\n")
    (group / "memory.stat").write_text("anon 7\ninactive_file 200000\nactive_file 100000\n")
    if most:
        (group / "memory.max").write_text(most)
    assert early.free(tmp_path) == left


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0no json!", b"\xff" * 64, b"<html>"])
def test_a_file_that_is_none_begins_nothing(begun, tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert not begun(path)
    assert not begun(tmp_path / "nowhere")
    assert not begun(tmp_path)


def test_nothing_is_begun_beside_a_card_or_without_room(begun, small, monkeypatch, tmp_path):
    assert not begun(small, "cuda")
    monkeypatch.setattr(early, "free", lambda: 64.0)
    assert not begun(small)
    monkeypatch.setattr(early, "ACCELERATORS", (str(tmp_path),))
    assert not begun(small)
