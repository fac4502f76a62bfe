"""SD 2.1 and SDXL at full size, on synthetic weights, against ComfyUI's numbers.

SDXL in float32 takes 13 GB: its tests are skipped, aloud, where less than 17 GB is free.
"""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402

from runner import devices, pipeline, synthetic  # noqa: E402
from runner.guidance import guide  # noqa: E402
from runner.pixels import gradient  # noqa: E402
from runner.recipe import Recipe  # noqa: E402
from runner.tokenizer import chunks  # noqa: E402
from runner.trace import Trace, gap  # noqa: E402

NEEDS = {"sd21": 7e9, "sdxl": 17e9}  # bytes that must be free
STORIES = {m: json.loads(Path(f"tests/golden/{m}.json").read_text()) for m in NEEDS}
PLACES = [(m, place) for m in NEEDS for place in range(3)]
PROMPTS = [(m, name) for m in NEEDS for name in STORIES[m]["prompts"]]


def free():
    rows = Path("/proc/meminfo").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("MemAvailable"))


@pytest.fixture(scope="module")
def loaded():
    """model -> (its models, golden numbers); one at a time, for a machine of 24 GB."""
    kept, threads = {}, torch.get_num_threads()
    torch.set_num_threads(2)  # as the golden numbers were made

    def load(model):
        if model not in kept:
            kept.clear()
            if free() < NEEDS[model]:
                pytest.skip(f"{model} needs {NEEDS[model] / 1e9:.0f} GB free; {free() / 1e9:.1f}")
            placement = devices.choose("cpu", "float32")
            models = pipeline.load(synthetic.checkpoint(model), placement, 2, lambda *_: None)
            kept[model] = models, load_file(f"tests/golden/{model}.safetensors")
        return kept[model]

    yield load
    kept.clear()
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("model", "name"), PROMPTS)
def test_tokens(model, name):
    """Exactly ComfyUI's, for every encoder's own padding."""
    prompt, theirs = STORIES[model]["prompts"][name], STORIES[model]["tokens"][name]
    for encoder, rows in theirs.items():
        pad = 49407 if encoder == "l" else 0
        assert [[list(token) for token in chunk] for chunk in chunks(prompt, pad)] == rows


@pytest.mark.parametrize(("model", "name"), PROMPTS)
@torch.inference_mode()
def test_text(loaded, model, name):
    models, golden = loaded(model)
    cond, pooled = models.text.encode(STORIES[model]["prompts"][name])
    theirs = golden[f"cond/{name}"]
    assert gap(cond if cond.shape == theirs.shape else cond[:, ::7, ::16], theirs) <= 1e-5
    assert gap(pooled, golden[f"pooled/{name}"]) <= 1e-5


@pytest.mark.parametrize("model", NEEDS)
@torch.inference_mode()
def test_encode_and_decode(loaded, model):
    models, golden = loaded(model)
    assert gap(models.vae.encode(gradient(64, 64)), golden["latent/input"]) <= 2e-5
    assert gap(models.vae.decode(golden["latent/input"]), golden["image/roundtrip"]) <= 2e-5


@pytest.mark.parametrize("model", NEEDS)
@pytest.mark.parametrize("sigma", [0.4, 3.0, 14.0])
@torch.inference_mode()
def test_the_guided_denoiser(loaded, model, sigma):
    models, golden = loaded(model)
    x, level = golden["probe/x"], torch.tensor(sigma)
    prompts = (
        pipeline.prompt(models, golden[f"cond/{name}"], golden[f"pooled/{name}"], x)
        for name in ("plain", "negative")
    )
    with devices.small_convolutions(torch.device("cpu"), x):
        ours = guide(models.denoiser, *prompts, 5.0)(x * (level**2 + 1) ** 0.5, level)
    assert gap(ours, golden[f"probe/denoised/sigma={sigma}"]) <= 2e-5


@pytest.mark.parametrize(("model", "place"), PLACES)
def test_whole_runs(loaded, model, place):
    models, golden = loaded(model)
    told = dict(STORIES[model]["runs"][place])
    prompts, sampler_name = STORIES[model]["prompts"], told.pop("sampler")
    recipe = Recipe(prompts["plain"], prompts["negative"], sampler_name=sampler_name, **told)
    trace = Trace()
    pipeline.img2img(models, recipe, gradient(64, 64), trace.watch)
    assert gap(trace.tensors["latent/output"], golden[f"run/{place}/latent"]) <= 1e-4
    assert gap(trace.tensors["image/output"], golden[f"run/{place}/image"]) <= 1e-4
