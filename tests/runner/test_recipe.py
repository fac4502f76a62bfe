import pytest

from runner.recipe import Recipe, Refused


def test_a_recipe_goes_to_json_and_back():
    recipe = Recipe("a cat", steps=7, seed=2**64 - 1, width=64)
    assert Recipe.from_json(recipe.to_json()) == recipe
    with pytest.raises(Refused, match="no colour"):
        Recipe.from_json({"positive": "", "colour": "red"})


@pytest.mark.parametrize(
    ("wrong", "id"),
    [
        ({"steps": 0}, "bad-steps"),
        ({"steps": 10_001}, "bad-steps"),
        ({"cfg": float("nan")}, "bad-cfg"),
        ({"cfg": -1.0}, "bad-cfg"),
        ({"denoise": 1.1}, "bad-denoise"),
        ({"denoise": float("nan")}, "bad-denoise"),
        ({"seed": -1}, "bad-seed"),
        ({"seed": 2**64}, "bad-seed"),
        ({"width": 7}, "bad-width"),
        ({"height": 20_000}, "bad-height"),
    ],
)
def test_what_ksampler_would_not_take_is_refused_by_name(wrong, id):
    with pytest.raises(Refused) as refused:
        Recipe("", **wrong).checked()
    assert refused.value.id == id


def test_the_limits_themselves_are_allowed():
    Recipe("", steps=1, cfg=0.0, denoise=0.0, seed=0, width=8).checked()
    Recipe("", steps=10_000, cfg=100.0, denoise=1.0, seed=2**64 - 1).checked()
