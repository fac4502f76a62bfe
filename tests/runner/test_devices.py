import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from runner import checkpoint, devices, pipeline  # noqa: E402
from runner.recipe import Refused  # noqa: E402


def test_the_cpu_computes_in_float32_and_keeps_text_in_sixteen_bits():
    placement = devices.choose("cpu")
    assert (placement.unet, placement.vae, placement.dtype) == (torch.float32,) * 2 + ("float32",)
    assert placement.places["text"] == (torch.device("cpu"), torch.float16)
    assert devices.choose("cpu", "bfloat16").vae == torch.bfloat16


GB, SD15, SDXL = 2**30, 859_520_964, 2_567_463_684
NAMES = {  # (compute capability, memory in GB)
    "NVIDIA GeForce RTX 5090": (12, 32),
    "NVIDIA H100 80GB HBM3": (9, 80),
    "NVIDIA GeForce RTX 4090": (8, 24),
    "NVIDIA GeForce RTX 3060 Laptop GPU": (8, 6),
    "NVIDIA A100-SXM4-40GB": (8, 40),
    "NVIDIA GeForce RTX 2080 Ti": (7, 11),
    "Tesla T4": (7, 16),
    "Tesla V100-SXM2-16GB": (7, 16),
    "NVIDIA TITAN V": (7, 12),
    "NVIDIA GeForce GTX 1660 SUPER": (7, 6),
    "NVIDIA GeForce GTX 1650": (7, 4),
    "NVIDIA T1000 8GB": (7, 8),
    "NVIDIA T600 Laptop GPU": (7, 4),
    "NVIDIA GeForce MX450": (7, 2),
    "NVIDIA CMP 30HX": (7, 6),
    "NVIDIA GeForce GTX 1080 Ti": (6, 11),
    "NVIDIA GeForce GTX 1060 3GB": (6, 3),
    "NVIDIA GeForce GT 1030": (6, 2),
    "NVIDIA TITAN Xp": (6, 12),
    "Tesla P40": (6, 24),
    "Tesla P100-PCIE-16GB": (6, 16),
    "Quadro P2000": (6, 5),
    "Quadro P6000": (6, 24),
    "NVIDIA GeForce GTX 980 Ti": (5, 6),
    "NVIDIA GeForce GTX 750": (5, 1),
    "Tesla K80": (3, 12),
}
CARDS = [
    {"name": name, "major": major, "minor": 0, "memory": memory * GB, "weights": weights,
     "stored": stored, "windows": windows}
    for name, (major, memory) in NAMES.items()
    for weights in (SD15, SDXL)
    for stored in ("float16", "float32")
    for windows in (False, True)
]  # fmt: skip


def test_cards_get_the_precision_comfyui_gives_them():
    """Held against ComfyUI's own functions, asked about cards that are not here."""
    golden = json.loads(Path("tests/golden/cards.json").read_text())
    assert [{k: v for k, v in row.items() if k != "chosen"} for row in golden] == CARDS
    for row in golden:
        card = devices.Card(row["name"], row["major"], row["memory"], row["windows"])
        unet, stored, vae = map(devices.name, devices.precision(card, row["weights"]))
        assert [stored, unet, vae] == row["chosen"], row


def test_a_card_is_asked_for_what_decides(monkeypatch):
    card = SimpleNamespace(name="NVIDIA GeForce GTX 1080", major=6, total_memory=8 * GB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.version, "hip", None)
    placement = devices.usual(torch.device("cuda"))
    assert (placement.unet, placement.stored) == (torch.float32, torch.float16)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert devices.usual(torch.device("cuda")).unet == torch.float16


def test_weights_kept_in_sixteen_bits_are_rounded_before_they_are_used(small):
    stored = checkpoint.read(small)
    half = replace(devices.choose("cpu", "float32"), stored=torch.float16)
    out, rounded = torch.empty(4, 32, 3, 3), pipeline.rounded_for(
        replace(stored, fill=lambda part, name, out: out.fill_(1 / 3)), half)  # fmt: skip
    rounded.write("unet", "out.2.weight", out)
    assert out[0, 0, 0, 0] == torch.tensor(1 / 3).half().float()
    rounded.write("vae", "decoder.conv_out.weight", out)
    assert out[0, 0, 0, 0] == torch.tensor(1 / 3)


@pytest.mark.parametrize(
    ("device", "dtype", "id"),
    [
        ("toaster", None, "unknown-device"),
        ("cpu", "float7", "unknown-dtype"),
        ("meta", None, "device-not-available"),
    ],
)
def test_what_is_not_there_is_refused(device, dtype, id):
    with pytest.raises(Refused) as caught:
        devices.choose(device, dtype)
    assert caught.value.id == id


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu_is_one_sentence():
    with pytest.raises(Refused, match="cuda is not available"):
        devices.choose("cuda")


def test_the_machine_says_what_decides_the_last_bits():
    machine = devices.machine(torch.device("cpu"))
    assert machine["threads"] == torch.get_num_threads()
    assert {"capability", "torch", "cpu", "device"} <= machine.keys()


def test_small_convolutions_are_the_same_numbers():
    conv, x = torch.nn.Conv2d(8, 8, 3, padding=1), torch.randn(1, 8, 8, 8)
    with devices.small_convolutions(torch.device("cpu"), x):
        ours = conv(x)
    assert torch.allclose(ours, conv(x), atol=1e-6)
    assert torch._C._get_mkldnn_enabled() or not torch.backends.mkldnn.is_available()
