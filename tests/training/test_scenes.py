"""Scenes are what their captions say, and nothing else can be said of them."""

import random

import pytest

torch = pytest.importorskip("torch")

from runner.tokenizer import CHUNK, END, chunks  # noqa: E402
from training.scenes import (  # noqa: E402
    COLOURS,
    PALETTE,
    SIDE,
    Scene,
    caption,
    draw,
    every_word,
    forget,
    invent,
    named,
)


@pytest.fixture(scope="module")
def scenes():
    return invent(300, torch.Generator().manual_seed(11))


def test_a_thing_is_never_of_the_colour_of_its_ground(scenes):
    assert not (scenes.colour == scenes.ground).any()


def test_pictures_are_whole_and_repeatable(scenes):
    pictures = draw(scenes)
    assert pictures.shape == (300, SIDE, SIDE, 3)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert torch.equal(pictures, draw(invent(300, torch.Generator().manual_seed(11))))


def test_things_stay_inside(scenes):
    plain = scenes[scenes.weave == 0]
    edge = draw(plain)[:, :, 0]
    ground = PALETTE[plain.ground][:, None] * plain.light[:, 1, None, None]
    assert torch.allclose(edge, ground.clamp(0, 1).expand_as(edge), atol=1e-6)


def test_a_caption_says_what_is_left_and_no_more():
    dice = random.Random(0)
    whole = Scene("ring", "red", "blue", "small", "top left", "plain", "striped")
    for _ in range(200):
        told = forget(whole, dice)
        text = caption(told, dice)
        assert ("red" in text) == bool(told.colour)
        assert ("blue" in text) == bool(told.ground)
        assert ("top left" in text) == bool(told.place)
        assert any(word in text for word in ("ring", "donut")) == bool(told.shape)
        assert not any(other in text for other in COLOURS if other not in ("red", "blue"))
    assert caption(Scene(), random.Random(0)) == ""


def test_every_word_of_a_caption_is_counted_and_fits_a_chunk():
    dice, known = random.Random(1), every_word()
    scenes = invent(500, torch.Generator().manual_seed(3))
    for row in range(500):
        text = caption(named(scenes, row), dice)
        assert set(text.replace(",", " , ").split()) <= known
        assert len(chunks(text)) == 1
        assert [token for token, _ in chunks(text)[0]].index(END) < 32 < CHUNK
