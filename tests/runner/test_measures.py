"""What a render says about itself: formulas against sums done by hand."""

import math

import pytest

torch = pytest.importorskip("torch")

from runner.measures import divergence, psnr, reconstruction  # noqa: E402


def test_the_divergence_of_known_gaussians():
    standard = torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)
    assert divergence(*standard).tolist() == [0, 0]
    mean, logvar = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), math.log(0.25))
    by_hand = 0.5 * (9 + 0.25 - 1 - math.log(0.25))
    assert float(divergence(mean, logvar)) == pytest.approx(by_hand)


def test_the_divergence_agrees_with_torchs_own():
    from torch.distributions import Normal, kl_divergence

    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 3, 4, 5, 5, generator=generator)
    theirs = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0, 1)).sum((1, 2, 3))
    assert torch.allclose(divergence(mean, logvar), theirs, rtol=1e-5)


def test_reconstruction_is_an_rms_and_psnr_its_decibels():
    white, grey = torch.ones(1, 8, 8, 3), torch.full((1, 8, 8, 3), 0.9)
    assert reconstruction(grey, white) == pytest.approx(0.1)
    assert psnr(0.1) == pytest.approx(20)
    assert psnr(0) == 99
