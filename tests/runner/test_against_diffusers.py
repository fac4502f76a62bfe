"""Odd sizes against diffusers, on small networks; full size by the command of against_diffusers."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers", reason="diffusers is not installed")

from runner import checkpoint, devices, pipeline  # noqa: E402
from runner.unet import UNetShape  # noqa: E402
from runner.vae import VAEShape  # noqa: E402
from tests.runner import against_diffusers  # noqa: E402


@pytest.fixture(scope="module")
def models(small):
    read = checkpoint.read(small)
    return pipeline.load(read, devices.choose("cpu", "float32"), 2, lambda *_: None), (
        UNetShape.of(read.shapes["unet"]), VAEShape.of(read.shapes["vae"]))  # fmt: skip


@pytest.mark.parametrize("size", [(64, 64), (72, 40), (75, 43), (8, 200)])
def test_every_size_gives_diffusers_numbers(models, size):
    told = against_diffusers.compare(*models, *size)
    assert told["encode"] <= 5e-6
    assert told["step"] <= 2e-5
    assert told["decode"] <= 2e-5
