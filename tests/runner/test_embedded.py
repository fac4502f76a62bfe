"""The embedded checkpoint is a checkpoint like any other, and it means something."""

import json
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from PIL import Image  # noqa: E402

from runner import checkpoint, embedded, weights  # noqa: E402
from runner.cli import main  # noqa: E402
from runner.families import SD1  # noqa: E402
from training import measure  # noqa: E402

KEYS = json.loads(Path("tests/golden/sd15.keys.json").read_text())
QUICK = 12  # pairs of the two hundred: their share of the measures, for every run of the suite


@pytest.fixture(scope="module")
def models():
    return measure.loaded()


@pytest.fixture
def render(tmp_path, capfd):
    def called(*words):
        out = tmp_path / "out.png"
        code = main(["render", "--embedded", "--out", str(out), "--json", "--lang", "en", *words])
        return code, json.loads(capfd.readouterr().out), out

    return called


def test_it_is_small_and_has_the_names_of_sd15():
    assert embedded.PATH.stat().st_size <= 16_000_000
    names = set(weights.opened(embedded.PATH).shapes)
    own = {name for name in names if name.startswith(embedded.PREFIX)}
    assert unnumbered(names - own) <= unnumbered(KEYS)  # fewer blocks, so other numbers
    assert {name.removeprefix(embedded.PREFIX) for name in own} == {
        name for name, _ in embedded.contrast().named_parameters()
    }


def unnumbered(names):
    return {re.sub(r"\d+", "#", name) for name in names}


def test_it_is_read_like_any_other_file():
    told = checkpoint.read(embedded.PATH)
    assert (told.family, told.predicts) == (SD1.name, "eps")
    table = told.shapes["text"]["text_model.embeddings.token_embedding.weight"]
    assert table[0] == 49_408


def test_the_latents_have_the_spread_that_sd1_counts_on(models):
    told = measure.autoencoder(models, 40)
    assert told["spread"] == pytest.approx(1, abs=0.1)


def test_a_picture_without_any_other_word(render):
    code, told, out = render()
    assert (code, told["checkpoint"], told["notes"]) == (0, "embedded", [])
    assert told["recipe"]["positive"] == embedded.POSITIVE
    with Image.open(out) as picture:
        assert picture.size == (embedded.SIDE, embedded.SIDE)
    measures = told["measures"]
    assert measures["positive"]["output"] > measures["positive"]["input"]
    assert measures["negative"] is None
    assert 0 < measures["reconstruction"] < 0.2
    assert measures["kl"] > 0


def test_words_it_does_not_know_are_named(render):
    told = render("--positive", "a dog with a red circle, masterpiece", "--steps", "1")[1]
    assert told["notes"] == [
        "This model does not know dog, with, masterpiece; it knows shapes, colours, sizes, places "
        "and textures."
    ]


def test_what_it_does_not_know_changes_nothing(models):
    zero = models.text.get_parameter("text_model.embeddings.token_embedding.weight")
    assert list(embedded.unknown_words(models.text, "a red circle, 1 zebra")) == ["1", "zebra"]
    assert (zero.abs().sum(1) > 0).sum() < 100


def test_another_size_is_said(render):
    told = render("--width", "64", "--height", "64", "--steps", "1")[1]
    assert "48 x 48" in told["notes"][0]


def test_one_thread_draws_a_small_picture_and_as_many_as_asked_for_any(render):
    """Two wait for each other longer than they work; and what was set before is set again."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert render("--steps", "1")[1]["threads"] == 1
        assert torch.get_num_threads() == 2
        assert render("--steps", "1", "--width", "128", "--height", "64")[1]["threads"] == 2
        assert render("--steps", "1", "--threads", "2")[1]["threads"] == 2
    finally:
        torch.set_num_threads(before)


def test_it_can_be_timed(capfd):
    words = ["bench", "--model", "embedded", "--steps", "1", "--runs", "1", "--warmup", "0"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["settings"]["model"] == "embedded"


def test_it_follows_a_prompt_at_high_denoise(models):
    shares = measure.followed(models, list(measure.cases(QUICK))).shares()
    for name in ("shape", "colour", "ground", "size", "place", "weave", "both"):
        assert shares[name]["share"] >= 0.8, shares


def test_it_keeps_a_picture_at_low_denoise_whatever_the_prompt(models):
    shares = measure.kept(models, list(measure.cases(QUICK))).shares()
    for name in ("shape", "colour", "ground", "size", "place", "weave", "both"):
        assert shares[name]["share"] >= 0.8, shares


def test_a_negative_prompt_removes_the_colour_that_it_names_and_not_the_shape(models):
    shares = measure.left_out(models, list(measure.cases(QUICK // 2))).shares()
    assert shares["colour_gone"]["share"] >= 0.8, shares
    assert shares["shape_kept"]["share"] >= 0.6, shares


def test_the_measures_on_record_are_of_the_defaults_and_of_two_hundred_pairs():
    told = json.loads(Path("benchmarks/results/embedded.json").read_text())
    assert told["recipe"] == measure.RECIPE.to_json()
    assert told["pairs"] == 200
    for asked, name, least in (
        ("followed at denoise 0.8", "both", 0.95),
        ("kept at denoise 0.2", "both", 0.95),
        ("left out at denoise 0.8", "colour_gone", 0.95),
        ("left out at denoise 0.8", "texture_gone", 0.95),
    ):
        assert told[asked][name]["share"] >= least, (asked, name)
