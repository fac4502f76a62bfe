import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from runner import families  # noqa: E402
from runner.unet import UNet, UNetShape, waves  # noqa: E402

PREFIX = "model.diffusion_model."
KEYS = json.loads(Path("tests/golden/sd15.keys.json").read_text())
OWN = {key.removeprefix(PREFIX): shape for key, shape in KEYS.items() if key.startswith(PREFIX)}


def test_the_shape_is_read_off_the_weights():
    assert UNetShape.of(OWN) == UNetShape()


@pytest.mark.parametrize("family", [families.SD1, families.SD2, families.SDXL])
def test_the_shape_of_every_family_comes_back_from_its_own_weights(family):
    with torch.device("meta"):
        named = UNet(family.unet).named_parameters()
    assert UNetShape.of({name: tuple(weight.shape) for name, weight in named}) == family.unet


def test_norms_have_the_eps_they_were_trained_with():
    """1e-5 but before attention, where it is 1e-6: too small a difference for a golden number."""
    with torch.device("meta"):
        network = UNet(UNetShape())
    for name, module in network.named_modules():
        if isinstance(module, nn.GroupNorm):
            assert module.eps == (1e-6 if name.endswith(".1.norm") else 1e-5), name


def test_a_timestep_is_cosines_then_sines():
    first = waves(torch.tensor([2.0]), 4)[0]
    angles = torch.tensor([2.0, 2.0 / 100])
    assert torch.allclose(first, torch.cat([angles.cos(), angles.sin()]))


@pytest.mark.parametrize(("high", "wide"), [(8, 8), (7, 11), (1, 3)])
def test_any_size_comes_back_as_it_went_in(high, wide):
    network = UNet(UNetShape(channels=32, widths=(1, 2), depths=(1, 0), context=16))
    x, text = torch.randn(2, 4, high, wide), torch.randn(2, 5, 16)
    assert network(x, torch.tensor([1.0, 2.0]), text).shape == x.shape
