"""Glimpses: the colours of a latent, fitted to what went in; and that nobody gets one unasked."""

import base64
import json

import pytest
import torch

from runner.cli import main
from runner.glimpse import SIDE, fitted, glimpse


def world(high=12, wide=10, channels=4):
    """A picture, and the latent of an encoder whose inverse is linear."""
    dice = torch.Generator().manual_seed(3)
    latent = torch.randn(1, channels, high, wide, generator=dice)
    shares = torch.rand(channels + 1, 3, generator=dice) / 8
    shares[-1] = 0.5
    picture = torch.einsum("bchw,cr->bhwr", latent, shares[:-1]) + shares[-1]
    return latent, shares, picture.clamp(0, 1).repeat_interleave(8, 1).repeat_interleave(8, 2)


def shown(told):
    rgb = torch.frombuffer(bytearray(base64.b64decode(told["rgb"])), dtype=torch.uint8)
    return rgb.reshape(told["height"], told["width"], 3)


def test_the_colours_of_a_linear_world_are_found():
    latent, shares, picture = world(40, 40)
    assert fitted(latent, picture.movedim(-1, 1)) == pytest.approx(shares, abs=0.02)


def test_noise_is_taken_for_what_it_is_worth():
    """The state after a step has σ² more variance than a latent; at the end there is none."""
    latent, _, picture = world()
    seen = {"latent/input": latent / 0.5, "image/input": picture}
    seen |= {"sigmas": torch.tensor([9.0, 3.0, 0.0]), "step/2": latent}
    seen["step/1"] = latent * (1 + 9.0) ** 0.5
    last = shown(glimpse(seen, 2, 0.5))
    assert (last.float() / 255 - picture[0, ::8, ::8]).abs().max() < 0.03
    assert (shown(glimpse(seen, 1, 0.5)).int() - last.int()).abs().max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (97, 49)])
@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_it_is_small_whole_and_never_fails(size, value):
    latent = torch.full((1, 16, *size), value)
    seen = {"latent/input": latent, "step/1": latent, "sigmas": torch.tensor([1.0, 0.5])}
    seen["image/input"] = torch.full((1, 8 * size[0], 8 * size[1], 3), 0.25)
    told = glimpse(seen, 1, 1.0)
    assert max(told["width"], told["height"]) <= SIDE
    assert shown(told).numel() == told["width"] * told["height"] * 3


def test_each_step_has_one_where_they_are_asked_for_and_the_picture_is_the_same(tmp_path, capfd):
    words = ["render", "--embedded", "--steps", "2", "--progress", "json", "--json", "--out"]
    assert main([*words, str(tmp_path / "a.png"), "--glimpses"]) == 0
    out, err = capfd.readouterr()
    assert main([*words, str(tmp_path / "b.png")]) == 0
    plain, quiet = capfd.readouterr()
    last = [json.loads(line.removeprefix("@progress ")) for line in err.splitlines()][-1]
    assert (last["stage"], last["done"], last["of"]) == ("step", 2, 2)
    assert shown(last["picture"]).float().std() > 1
    assert "picture" not in quiet
    assert json.loads(out)["sha256"] == json.loads(plain)["sha256"]
