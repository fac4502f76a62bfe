"""Glimpses: the colours of a latent, fitted to an encoder; and that nobody gets one unasked."""

import base64
import json

import pytest
import torch

from runner.cli import main
from runner.glimpse import SIDE, colours, glimpse

SHARES = torch.rand(3, 4, generator=torch.Generator().manual_seed(3)) * 4 - 2


def encode(image):
    """A linear encoder: (B, H, W, 3) -> (B, 4, H / 8, W / 8)."""
    return torch.einsum("bhwr,rc->bchw", image[:, ::8, ::8] - 0.4, SHARES)


def shown(told):
    rgb = torch.frombuffer(bytearray(base64.b64decode(told["rgb"])), dtype=torch.uint8)
    return rgb.reshape(told["height"], told["width"], 3)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_linear_encoder_is_undone_and_noise_is_taken_for_what_it_is_worth(scale):
    """The state after a step has σ² more variance than a latent; at the end there is none."""
    picture = torch.rand(1, 80, 96, 3, generator=torch.Generator().manual_seed(0))
    latent = encode(picture) * scale
    seen = {"sigmas": torch.tensor([9.0, 3.0, 0.0]), "step/2": latent}
    seen["step/1"] = latent * (1 + 9.0) ** 0.5
    shares = colours(encode, scale)
    for step in (1, 2):
        told = shown(glimpse(seen, step, shares))
        assert told.shape == (10, 12, 3)
        assert (told.float() / 255 - picture[0, ::8, ::8]).abs().max() < 0.06


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (97, 49)])
@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_it_is_small_whole_and_never_fails(size, value):
    seen = {"step/1": torch.full((1, 16, *size), value), "sigmas": torch.tensor([1.0, 0.5])}
    told = glimpse(seen, 1, colours(lambda image: torch.ones(len(image), 16, 6, 6), 1.0))
    assert max(told["width"], told["height"]) <= SIDE
    assert shown(told).numel() == told["width"] * told["height"] * 3


def test_each_step_has_one_where_they_are_asked_for_and_the_picture_is_the_same(
    tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr("runner.announcer.PAUSE", 0.0)  # a quick stage is not announced otherwise
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
