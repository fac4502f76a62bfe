"""The quick VAE is the plain one: the same numbers, the same weights, and its layers are heard."""

import pytest

torch = pytest.importorskip("torch")
from runner import checkpoint, darkroom, devices, pipeline  # noqa: E402
from runner.recipe import Recipe  # noqa: E402
from runner.trace import Trace, gap  # noqa: E402


@pytest.fixture(scope="module")
def models(small):
    there = devices.choose("cpu", "float32")
    return pipeline.load(checkpoint.read(small), there, 1, lambda *_: None)


def tiles(vae):
    return [one for one in vae.modules() if isinstance(one, darkroom.Tiled)]


@torch.inference_mode()
def test_the_same_numbers(models, monkeypatch):
    monkeypatch.setattr(darkroom, "REPAYS", 1)
    quick = darkroom.quick(models.vae)
    picture = torch.rand(1, 72, 104, 3, generator=torch.Generator().manual_seed(1))
    assert gap(quick.encode(picture), models.vae.encode(picture)) <= 5e-6
    latent = models.vae.encode(picture)
    assert gap(quick.decode(latent), models.vae.decode(latent)) <= 5e-6
    used = [one for one in tiles(quick) if one.tiles is not None]
    assert len(used) == len(tiles(quick)) > 10
    used[-1].tiles.mul_(1.001)
    assert gap(quick.decode(latent), models.vae.decode(latent)) > 5e-6, "tiles are what is used"


def test_no_weight_is_there_twice_and_none_is_renamed(models):
    ours = dict(models.darkroom.named_parameters())
    plain = dict(models.vae.named_parameters())
    assert not tiles(models.vae)
    assert ours.keys() < plain.keys()
    assert all(one is plain[name] for name, one in ours.items())


@torch.inference_mode()
def test_few_pixels_are_convolved_the_plain_way(models):
    quick = darkroom.quick(models.vae)
    latent = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(2))
    assert torch.equal(quick.decode(latent), models.vae.decode(latent))


@torch.inference_mode()
def test_who_listens_to_a_layer_hears_it(models, monkeypatch):
    monkeypatch.setattr(darkroom, "REPAYS", 1)
    quick, heard = darkroom.quick(models.vae), []
    layer = models.vae.decoder.up[0].block[0].conv1
    hook = layer.register_forward_hook(lambda *_: heard.append(1))
    quick.decode(torch.zeros(1, 4, 4, 4))
    hook.remove()
    assert heard == [1]


def test_a_render_uses_it_unless_its_lever_is_left_alone(models, monkeypatch):
    plainly = pipeline.replace(models, denoiser=models.denoiser.without(["vae"]))
    assert models.painter is models.darkroom
    assert plainly.painter is models.vae
    monkeypatch.setattr(darkroom, "REPAYS", 1)
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(3))
    traces = Trace(), Trace()
    for one, trace in zip((models, plainly), traces, strict=True):
        pipeline.img2img(one, Recipe("a dog", steps=2), image, trace.watch)
    ours, theirs = (trace.tensors["image/output"] for trace in traces)
    assert gap(ours, theirs) <= 2e-5
    assert any(one.tiles is not None for one in tiles(models.darkroom))


def test_in_16_bits_or_without_memory_the_plain_one_is_used(models, monkeypatch):
    monkeypatch.setattr(darkroom, "free_memory", lambda: 1000.0)
    assert darkroom.quick(models.vae) is models.vae
