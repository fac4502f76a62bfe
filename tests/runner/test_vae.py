import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from runner.vae import VAE, VAEShape  # noqa: E402

PREFIX = "first_stage_model."
KEYS = json.loads(Path("tests/golden/sd15.keys.json").read_text())
OWN = {key.removeprefix(PREFIX): shape for key, shape in KEYS.items() if key.startswith(PREFIX)}


def test_the_shape_is_read_off_the_weights():
    assert VAEShape.of(OWN) == VAEShape()


def test_norms_have_the_eps_they_were_trained_with():
    with torch.device("meta"):
        network = VAE(VAEShape())
    assert {m.eps for m in network.modules() if isinstance(m, nn.GroupNorm)} == {1e-6}


@torch.inference_mode()
def test_the_mean_is_given_and_the_picture_stays_within_its_range():
    torch.manual_seed(0)
    network = VAE(VAEShape(widths=(32, 32, 64, 64), blocks=1)).requires_grad_(False)
    image = torch.rand(1, 16, 24, 3)
    latent = network.encode(image)
    assert latent.shape == (1, 4, 2, 3)
    assert torch.equal(latent, network.encode(image))
    network.decoder.conv_out.weight.mul_(100)
    out = network.decode(latent)
    assert out.shape == image.shape
    assert (out.min(), out.max()) == (0, 1)
