"""Odd sizes against diffusers, on small networks; full size by the command of against_diffusers."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers", reason="diffusers is not installed")

from runner import checkpoint, devices, pipeline, sources  # noqa: E402
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


def test_a_vae_that_diffusers_saved_is_read_under_its_names(models, small, tmp_path):
    ours, (_, shape) = models
    theirs = against_diffusers.vae(ours.vae, shape)
    halved = {name: weight / 2 for name, weight in theirs.state_dict().items()}
    against_diffusers.given(theirs, halved).save_pretrained(tmp_path)
    base = sources.with_vae(
        checkpoint.read(small), tmp_path / "diffusion_pytorch_model.safetensors"
    )
    other = pipeline.load(base, devices.choose("cpu", "float32"), 2, lambda *_: None)
    assert dict(other.vae.named_parameters()).keys() == dict(ours.vae.named_parameters()).keys()
    for name, weight in other.vae.named_parameters():
        assert torch.equal(weight, dict(ours.vae.named_parameters())[name] / 2), name
