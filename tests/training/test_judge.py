"""The judge sees what is there, with nothing but pixels, and is not easily talked into it."""

import pytest

torch = pytest.importorskip("torch")

from training.judge import look  # noqa: E402
from training.scenes import PALETTE, SIDE, draw, invent, named  # noqa: E402

COUNT = 60


@pytest.fixture(scope="module")
def scenes():
    return invent(COUNT, torch.Generator().manual_seed(21))


def agreed(pictures, scenes):
    return sum(look(one) == named(scenes, row) for row, one in enumerate(pictures))


def test_it_sees_all_of_a_scene(scenes):
    assert agreed(draw(scenes), scenes) >= COUNT - 1


def test_a_little_noise_and_blur_change_nothing(scenes):
    pictures = draw(scenes)
    pictures = pictures + 0.03 * torch.randn(
        pictures.shape, generator=torch.Generator().manual_seed(1)
    )
    seen = [look(one) for one in pictures]
    there = [named(scenes, row) for row in range(COUNT)]
    right = sum(
        s is not None and (s.shape, s.colour, s.ground) == (w.shape, w.colour, w.ground)
        for s, w in zip(seen, there, strict=True)
    )
    assert right >= 0.95 * COUNT


def test_an_empty_picture_shows_nothing():
    assert look(PALETTE[2].expand(SIDE, SIDE, 3)) is None


def test_noise_is_not_taken_for_a_scene(scenes):
    noise = torch.rand(COUNT, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(2))
    assert agreed(noise, scenes) == 0


def test_another_shape_is_another_shape(scenes):
    other = type(scenes)(**vars(scenes) | {"shape": (scenes.shape + 1) % 4})
    seen = [look(one) for one in draw(other)]
    assert not any(s and s.shape == named(scenes, row).shape for row, s in enumerate(seen))
