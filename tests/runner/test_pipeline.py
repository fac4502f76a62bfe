import pytest

torch = pytest.importorskip("torch")

from runner import checkpoint, devices, pipeline  # noqa: E402
from runner.pixels import gradient  # noqa: E402
from runner.recipe import Recipe, Refused  # noqa: E402
from runner.samplers import SAMPLERS  # noqa: E402
from runner.schedules import SCHEDULES  # noqa: E402


@pytest.fixture(scope="module")
def models(small):
    return pipeline.load(checkpoint.read(small), devices.choose("cpu"), 2, lambda *_: None)


def run(models, image=None, **recipe):
    seen = {}
    recipe = Recipe(**({"positive": "a cat", "steps": 2, "seed": 3} | recipe))
    image = gradient(64, 64) if image is None else image
    pipeline.img2img(models, recipe, image, seen.__setitem__)
    return seen


def test_the_trace_has_every_name_in_order(models):
    assert list(run(models)) == [
        "tokens/positive", "cond/positive", "cond/negative", "image/input", "latent/input",
        "noise", "sigmas", "step/1", "step/2", "latent/output", "image/output",
    ]  # fmt: skip


PAIRS = [(name, [*SCHEDULES][place % len(SCHEDULES)]) for place, name in enumerate(SAMPLERS)]


@pytest.mark.parametrize(("sampler_name", "scheduler"), PAIRS)
def test_every_sampler_and_every_schedule_renders_and_repeats(models, sampler_name, scheduler):
    once = run(models, sampler_name=sampler_name, scheduler=scheduler)
    again = run(models, sampler_name=sampler_name, scheduler=scheduler)
    assert all(torch.equal(once[key], again[key]) for key in once)
    assert torch.isfinite(once["image/output"]).all()


@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"positive": "a dog"}, {"negative": "a dog"}, {"cfg": 2.0}, {"denoise": 0.5}],
)
def test_whatever_the_recipe_says_changes_the_picture(models, change):
    assert not torch.equal(run(models)["image/output"], run(models, **change)["image/output"])


def test_denoise_zero_gives_the_encoded_picture_back(models):
    seen = run(models, denoise=0.0)
    assert torch.equal(seen["latent/output"], seen["latent/input"])
    assert len(seen["sigmas"]) == 0


def test_odd_sizes_are_cropped_and_odd_latents_walk_through(models):
    seen = run(models, gradient(61, 90))
    assert seen["latent/input"].shape == (1, 4, 11, 7)
    assert seen["image/output"].shape == (1, 88, 56, 3)
    assert run(models, width=72, height=64)["image/output"].shape == (1, 64, 72, 3)


def test_a_flat_zero_latent_and_the_largest_sigma_keep_their_variance():
    table = pipeline.sigma_table()
    noise, latent = torch.ones(4), torch.full((4,), 0.5)
    top = table.sigmas[-1]
    assert torch.equal(
        pipeline.noised(latent, noise, top, table), torch.sqrt(1 + top**2) * noise + 0.5
    )
    below = torch.tensor(2.0)
    assert torch.equal(pipeline.noised(latent, noise, below, table), torch.full((4,), 2.5))


def test_ancestral_noise_begins_with_the_noise_of_the_seed():
    like = torch.empty(1, 4, 8, 8)
    first, fresh = pipeline.first_noise(5, like), pipeline.Dice(5, like)
    assert torch.equal(first, fresh())
    assert not torch.equal(first, fresh())
    pipeline.first_noise(2**64 - 1, like)


def test_a_batch_draws_its_noise_at_once():
    one, two = torch.empty(1, 4, 8, 8), torch.empty(2, 4, 8, 8)
    assert torch.equal(pipeline.first_noise(5, two)[:1], pipeline.first_noise(5, one))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [({"sampler_name": "eulr"}, "Did you mean euler?"), ({"scheduler": "carras"}, "mean karras?")],
)
def test_an_unknown_name_gets_the_nearest(recipe, words):
    with pytest.raises(Refused) as caught:
        pipeline.named(Recipe("", **recipe))
    assert words in str(caught.value)


def test_the_first_tensor_that_is_not_finite_is_named():
    bad = {"a": torch.ones(2), "n": torch.arange(3), "b": torch.tensor([1.0, float("nan")])}
    assert list(pipeline.not_finite(bad.items())) == ["b"]


def test_models_change_their_precision_in_place(small):
    cpu = devices.choose("cpu")
    models = pipeline.load(checkpoint.read(small), cpu, 2, lambda *_: None)
    narrow = pipeline.recast(models, devices.choose("cpu", "bfloat16"))
    assert narrow.denoiser.dtype == torch.bfloat16
    assert torch.isfinite(run(narrow)["image/output"]).all()


def test_clip_skip_changes_the_text_and_numbers_outside_its_range_are_refused(models):
    usual, skipped = run(models), run(models, stop_at_clip_layer=-2)
    assert not torch.equal(usual["cond/positive"], skipped["cond/positive"])
    same = run(models, stop_at_clip_layer=-1)
    assert torch.equal(usual["cond/positive"], same["cond/positive"])
    for wrong in (0, 1, -25):
        with pytest.raises(Refused, match="-24 to -1"):
            Recipe("a", stop_at_clip_layer=wrong).checked()


def test_a_walk_in_two_parts_ends_where_the_whole_does(models):
    """KSamplerAdvanced twice: the first leaves its noise over, the second adds none."""
    setting = {"steps": 4, "denoise": 1.0, "sampler_name": "euler"}
    whole = run(models, **setting)
    first = run(models, end_at_step=2, return_with_leftover_noise=True, **setting)
    assert torch.equal(first["step/2"], whole["step/2"])
    recipe = Recipe("a cat", seed=3, start_at_step=2, add_noise=False, **setting)
    sigmas = pipeline.part(whole["sigmas"], 2, 10_000, False)
    texts = (pipeline.Prompt(whole[f"cond/{name}"]) for name in ("positive", "negative"))
    guided = pipeline.guide(models.denoiser, *texts, recipe.cfg)
    with torch.inference_mode():
        half = first["latent/output"]
        end = pipeline.sample(models, recipe, guided, half, sigmas, lambda *_: None)
    assert torch.allclose(end, whole["latent/output"], rtol=1e-4, atol=1e-4)


def test_nothing_is_left_to_do_after_the_last_step(models):
    seen = run(models, start_at_step=2)
    assert torch.equal(seen["latent/output"], seen["latent/input"])
    assert not run(models, add_noise=False)["noise"].any()
