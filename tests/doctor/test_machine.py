"""The machine around the patient, from what tools print and what lies in /sys."""

import os
import socket
import time
from pathlib import Path

from doctor import cards, machine
from doctor.facts import Gpu, Unknown

OUTPUTS = Path(__file__).parents[1] / "outputs"


def output(name):
    return (OUTPUTS / name).read_text()


def test_nvidia_smi_tells_name_driver_capability_and_memory():
    assert list(cards.nvidia(output("nvidia-smi.csv"))) == [
        Gpu("NVIDIA GeForce RTX 4090", "nvidia", "560.94", "8.9", 24564 << 20),
        Gpu("Tesla T4", "nvidia", "460.32.03", "7.5", 15109 << 20),
    ]


def test_an_old_nvidia_smi_knows_no_capability_and_junk_is_no_card():
    found = list(cards.nvidia(output("nvidia-smi-old.csv")))
    assert found[0] == Gpu("Tesla K80", "nvidia", "450.80.02", "", 11441 << 20)
    assert all(card.memory == 0 for card in found[1:])
    assert "No devices were found" not in [card.name for card in found]


def test_rocm_smi_tells_the_gfx():
    assert list(cards.rocm(output("rocm-smi.json"))) == [
        Gpu("Radeon RX 7900 XTX", "amd", "6.7.0", "gfx1100")
    ]
    assert list(cards.rocm("no json")) == []


def test_a_card_without_a_driver_is_seen_on_the_bus(tmp_path):
    for slot, kind, vendor in (("a", "0x030000", "0x10de"), ("b", "0x020000", "0x10de")):
        device = tmp_path / slot
        device.mkdir()
        for name, text in (("class", kind), ("vendor", vendor), ("device", "0x2684")):
            (device / name).write_text(f"{text}\n")
    assert list(cards.on_the_bus(tmp_path)) == [Gpu("PCI 10de:2684")]


def script(folder, text):
    tool = folder / "tool"
    tool.write_text(f"#!/bin/sh\n{text}\n")
    tool.chmod(0o755)


def test_a_tool_that_fails_or_hangs_is_an_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.ask_tool("no-such-tool-at-all") is None
    script(tmp_path, "echo NVIDIA-SMI has failed; exit 9")
    failed = machine.ask_tool("tool")
    assert isinstance(failed, Unknown)
    assert failed.why == "tool exited with 9 and said: NVIDIA-SMI has failed"
    script(tmp_path, "exec sleep 20")
    start = time.monotonic()
    assert isinstance(machine.ask_tool("tool", timeout=0.3), Unknown)
    assert time.monotonic() - start < 5


def test_a_taken_port_is_told_with_its_owner():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        number = server.getsockname()[1]
        assert machine.port(number).taken
        assert str(os.getpid()) in machine.port(number).by
    assert not machine.port(number).taken


def test_a_disk_is_asked_where_the_folder_will_be(tmp_path):
    (disk,) = machine.disks({"installation": tmp_path / "not" / "yet"})
    assert 0 < disk.free <= disk.total


def test_only_telling_variables_are_kept(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "x")
    monkeypatch.setenv("MY_SECRET_TOKEN", "s")
    kept = machine.environment()
    assert kept["CUDA_VISIBLE_DEVICES"] == "7"
    assert "PYTORCH_CUDA_ALLOC_CONF" in kept
    assert "MY_SECRET_TOKEN" not in kept


def test_this_host_is_described():
    host = machine.host()
    assert host.os in ("linux", "macos", "windows")
    assert 0 < host.memory_free <= host.memory < 1 << 60
