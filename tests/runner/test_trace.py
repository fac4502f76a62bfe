from math import inf

import pytest

torch = pytest.importorskip("torch")
from safetensors import safe_open  # noqa: E402

from runner import checkpoint, devices, pipeline, trace  # noqa: E402
from runner.pixels import gradient  # noqa: E402
from runner.recipe import Recipe  # noqa: E402


def test_a_gap_is_relative_rms():
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 4.0])
    assert trace.gap(a, b) == pytest.approx(0.75)
    assert trace.gap(a, a) == 0
    assert trace.gap(a, torch.zeros(2)) == pytest.approx(5)


def test_a_nan_or_another_shape_is_infinitely_far():
    nan = torch.tensor([float("nan")])
    assert trace.gap(nan, nan) == inf
    assert trace.gap(torch.ones(2), torch.ones(3)) == inf


@pytest.fixture(scope="module")
def done(small):
    models = pipeline.load(checkpoint.read(small), devices.choose("cpu"), 2, lambda *_: None)
    recipe = Recipe("a cat", steps=2, seed=1)
    return recipe, *trace.render(models, recipe, gradient(64, 64), lambda *_: None)


def test_a_render_says_where_how_long_and_what(done):
    _, render, kept = done
    told = render.to_json()
    assert told["schema"] == "runner.render/1"
    assert set(told["seconds"]) == {"text", "encode", "sample", "decode", "total"}
    assert told["sha256"]["output"] == trace.digest(kept.tensors["image/output"])
    assert set(told["sha256"]) == {"input", "output", "latent"}
    assert told["finite"] is True


def test_a_trace_is_written_with_its_recipe(done, tmp_path):
    recipe, _, kept = done
    trace.save(kept, tmp_path / "t.safetensors", {"recipe": recipe.to_json()})
    with safe_open(tmp_path / "t.safetensors", "pt") as file:
        assert set(file.keys()) == kept.tensors.keys()
        assert '"seed": 1' in file.metadata()["recipe"]
        dtypes = {file.get_tensor(key).dtype for key in file.keys() if "tokens" not in key}  # noqa: SIM118
    assert dtypes == {torch.float32}
