from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from runner import devices  # noqa: E402
from runner.recipe import Refused  # noqa: E402


def test_the_cpu_computes_in_float32_and_keeps_text_in_sixteen_bits():
    placement = devices.choose("cpu")
    assert (placement.unet, placement.vae, placement.dtype) == (torch.float32,) * 2 + ("float32",)
    assert placement.places["text"] == (torch.device("cpu"), torch.float16)
    assert devices.choose("cpu", "bfloat16").vae == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "major", "unet", "vae"),
    [
        ("NVIDIA H100", 9, "float16", "bfloat16"),
        ("NVIDIA GeForce RTX 3080", 8, "float16", "bfloat16"),
        ("NVIDIA GeForce RTX 2080", 7, "float16", "float32"),
        ("NVIDIA GeForce GTX 1660", 7, "float32", "float32"),
        ("NVIDIA GeForce GTX 1080", 6, "float32", "float32"),
    ],
)
def test_cards_get_the_precision_comfyui_gives_them(monkeypatch, name, major, unet, vae):
    card = SimpleNamespace(name=name, major=major)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.version, "hip", None)
    gpu = torch.device("cuda")
    assert devices.name(devices.denoiser_dtype(gpu)) == unet
    assert devices.name(devices.vae_dtype(gpu)) == vae


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
