"""Small checkpoints in the layouts of SD 2.x and SDXL: recognised, loaded strictly, rendered."""

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402

from runner import checkpoint, devices, families, openclip, pipeline  # noqa: E402
from runner.clip import TextShape  # noqa: E402
from runner.pixels import gradient  # noqa: E402
from runner.recipe import Recipe, Refused  # noqa: E402
from runner.unet import UNet, UNetShape  # noqa: E402
from runner.vae import VAE, VAEShape  # noqa: E402
from tests.runner.conftest import write  # noqa: E402

FIRST, SECOND = TextShape(768, 64, 3), TextShape(1280, 64, 3)
LAYOUTS = {
    "SD 2.x": (
        families.SD2,
        lambda: openclip.OpenEncoder(TextShape(1024, 64, 3)),
        UNetShape(64, (1, 2), (1, 0), heads=0, context=1024, linear=True),
    ),
    "SDXL": (
        families.SDXL,
        lambda: openclip.PairEncoder(FIRST, SECOND),
        UNetShape(64, (1, 2), (0, 2), 2, heads=0, context=2048, linear=True, labels=2816),
    ),
}


def table(name):
    family, text, unet = LAYOUTS[name]
    with torch.device("meta"):
        vae = VAE(VAEShape(widths=(32, 32, 64, 64), blocks=1))
        parts = {"text": text(), "unet": UNet(unet), "vae": vae}
    return {
        family.prefixes[part] + key: tuple(weight.shape)
        for part, network in parts.items()
        for key, weight in network.named_parameters()
    }


@pytest.fixture(scope="module", params=LAYOUTS)
def file(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    return request.param, write(path, table(request.param))


def loaded(path):
    read = checkpoint.read(path)
    return pipeline.load(read, devices.choose("cpu", "float32"), 2, lambda *_: None)


def render(models, **more):
    seen = {}
    recipe = Recipe("a (red:1.3) cat", "a dog", steps=2, seed=3, **more)
    pipeline.img2img(models, recipe, gradient(64, 64), seen.__setitem__)
    return seen


def test_a_family_is_recognised_by_its_shapes_and_renders(file):
    name, path = file
    assert checkpoint.read(path).family == name
    models = loaded(path)
    seen = render(models)
    assert models.latent_scale == {"SD 2.x": 0.18215, "SDXL": 0.13025}[name]
    assert seen["image/output"].isfinite().all()
    assert seen["cond/positive"].shape == (1, 77, {"SD 2.x": 1024, "SDXL": 2048}[name])
    assert ("pooled/positive" in seen) == (name == "SDXL")
    assert seen["tokens/positive"][0, -1] == {"SD 2.x": 0, "SDXL": 49407}[name]


def test_clip_skip_looks_at_another_layer(file):
    models = loaded(file[1])
    usual, same, deeper = (models.text.encode("a cat", last)[0] for last in (None, -2, -3))
    assert torch.equal(usual, same)
    assert not torch.allclose(usual, deeper)
    assert torch.equal(models.text.encode("a cat", -1)[1], models.text.encode("a cat")[1])


def test_a_clip_skip_past_the_first_layer_is_none(file):
    models = loaded(file[1])
    last, past = models.text.encode("a cat", -1)[0], models.text.encode("a cat", -24)[0]
    assert torch.equal(last, past) == (file[0] == "SD 2.x")  # SDXL's is normed only then


def test_a_missing_and_an_extra_tensor_are_named(file, tmp_path):
    name, path = file
    stored = load_file(path)
    key = next(key for key in stored if key.endswith("in_proj_weight"))
    broken = {other: tensor for other, tensor in stored.items() if other != key}
    save_file(broken, tmp_path / "a.safetensors")
    with pytest.raises(
        Refused, match=rf"not a whole {name} checkpoint: 1 tensors missing.*in_proj"
    ):
        checkpoint.read(tmp_path / "a.safetensors")


def test_what_a_file_predicts_is_told_by_its_marks(file, tmp_path):
    name, path = file
    assert checkpoint.read(path).predicts == "eps"
    stored = load_file(path) | {"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)}
    save_file(stored, tmp_path / "a.safetensors")
    models = loaded(tmp_path / "a.safetensors")
    if name == "SD 2.x":  # ComfyUI looks for the mark in SDXL alone
        assert models.denoiser.predicts == "eps"
        return
    assert models.denoiser.predicts == "v"
    assert float(models.denoiser.table.sigmas[-1]) > 4000
    other = render(models)["image/output"]
    assert not torch.equal(other, render(loaded(path))["image/output"])


def test_an_sd2_is_v_where_its_bias_is_spread_wide(monkeypatch):
    shapes = {"unet": {checkpoint.V_BIAS: (320,)}}

    def fill(width):
        return lambda part, name, out: out.copy_(torch.linspace(-width, width, 320))

    assert checkpoint.spread(fill(0.2), shapes) > checkpoint.V_SPREAD
    assert checkpoint.spread(fill(0.1), shapes) < checkpoint.V_SPREAD


def test_sd2_in_the_layout_of_sgm_is_the_same(tmp_path):
    path = write(tmp_path / "a.safetensors", table("SD 2.x"))
    stored = load_file(path)
    moved = {
        k.replace("cond_stage_model.", "conditioner.embedders.0."): v for k, v in stored.items()
    }
    save_file(moved, tmp_path / "b.safetensors")
    ours, theirs = loaded(path).text, loaded(tmp_path / "b.safetensors").text
    assert torch.equal(ours.encode("a cat")[0], theirs.encode("a cat")[0])


@pytest.mark.parametrize("mark", ["edm_vpred.sigma_max", "edm_mean"])
def test_edm_variants_are_refused(tmp_path, mark):
    path = write(tmp_path / "a.safetensors", table("SDXL") | {mark: (1,)})
    with pytest.raises(Refused, match="EDM variant of SDXL"):
        checkpoint.read(path)
