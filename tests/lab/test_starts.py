"""Every way not to start, launched for real: named from what it prints, cured where a flag does."""

import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.request import urlopen

import pytest

from doctor.receipts import Journal
from tests.doctor.command import answer
from tests.doctor.test_launch import begun, running
from tests.lab.mains import free_port, main_py
from tests.lab.starts import STARTS, make


def left(folder, port):
    """Processes of it that run, and its port, if somebody listens there."""
    with socket.socket() as one:
        taken = one.connect_ex(("127.0.0.1", port)) == 0
    return [*running(folder), *([port] if taken else [])]


WITHOUT = [name for name, start in STARTS.items() if not start.flag]


def launched(folder):
    """Exit code, answer, and what was left of it."""
    port = free_port()
    who = ["--comfyui", folder, "--python", sys.executable]
    return *answer("launch", *who, "--", "--port", port), left(folder, port)


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """All that no flag cures, as many at once as there are cores for."""
    folders = [make(tmp_path_factory.mktemp(name), name) for name in WITHOUT]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(WITHOUT, pool.map(launched, folders), strict=True))


@pytest.mark.parametrize("name", WITHOUT)
def test_what_no_flag_cures_is_named_and_not_started_again(starts, name):
    code, said, rest = starts[name]
    assert code == 1
    assert [finding["id"] for finding in said["findings"]][:1] == [STARTS[name].owed]
    assert said["restarts"] == []
    assert rest == []


@pytest.mark.parametrize("name", [name for name, start in STARTS.items() if start.flag])
def test_what_a_flag_cures_comes_up_on_the_second_start(tmp_path, name):
    make(tmp_path, name)
    port = free_port()
    process, lines = begun(["--comfyui", tmp_path, "--python", sys.executable], port)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    text = "".join(lines)
    assert f"[{STARTS[name].owed}" in text
    assert f"! Starting once more with {STARTS[name].flag}" in text
    assert STARTS[name].flag in (tmp_path / ".comfy-doctor/flags.json").read_text()
    assert Journal(tmp_path / ".comfy-doctor").history()[-1].state == "done"
    assert left(tmp_path, port) == []


def test_a_flag_that_helped_is_there_from_the_first_start_on_the_next_time(tmp_path):
    make(tmp_path, "allocator")
    who = ["--comfyui", tmp_path, "--python", sys.executable]
    texts = []
    for _ in range(2):
        process, lines = begun(who, free_port())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        texts.append("".join(lines))
    assert "once more" in texts[0]
    assert "once more" not in texts[1]
    assert "--disable-cuda-malloc  kept because of cuda-malloc-unsupported" in texts[1]


def test_a_fault_while_it_serves_is_answered_with_a_restart(tmp_path):
    main_py(
        tmp_path,
        live="def live():\n    if '--disable-cuda-malloc' not in sys.argv:\n"
        "        raise RuntimeError('CUDA error: operation not supported')\n",
    )
    port = free_port()
    process, _ = begun(["--comfyui", tmp_path, "--python", sys.executable], port)
    with suppress(OSError):
        urlopen(f"http://127.0.0.1:{port}/fault", timeout=10).read()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("✓ Ready"):
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert "! Starting once more with --disable-cuda-malloc" in "".join(lines)


def test_a_flag_that_contradicts_the_owners_is_told_and_not_given(tmp_path):
    make(tmp_path, "allocator")
    who = ["--comfyui", tmp_path, "--python", sys.executable]
    code, said = answer("launch", *who, "--", "--port", free_port(), "--cuda-malloc")
    assert (code, said["restarts"]) == (1, [])


def test_a_healthy_one_never_gets_a_flag(tmp_path):
    main_py(tmp_path)
    process, lines = begun(["--comfyui", tmp_path, "--python", sys.executable], free_port())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert "once more" not in "".join(lines)
    assert not (tmp_path / ".comfy-doctor/flags.json").exists()


def test_thirty_kinds():
    assert len(STARTS) >= 30
