"""The engine: the same numbers as the page one reads, lever by lever."""

from dataclasses import fields, replace

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from runner.engine import Engine  # noqa: E402
from runner.guidance import Denoiser  # noqa: E402
from runner.levers import Levers  # noqa: E402
from runner.recipe import Refused  # noqa: E402
from runner.sampler import Guided  # noqa: E402
from runner.samplers import SAMPLERS  # noqa: E402
from runner.schedules import sigma_table, walk  # noqa: E402
from runner.trace import gap  # noqa: E402
from runner.unet import UNet, UNetShape  # noqa: E402

NONE = Levers().without(("all",))
PULLED = (
    "words",
    "times",
    "trunk",
    "columns",
    "mapped",
    "onednn",
    "vae",
    "heap",
)  # on the CPU, without winograd
ELSEWHERE = ("graph", "vae", "mapped")  # of a GPU; test_darkroom.py and test_mapped.py have them
NAMES = [field.name for field in fields(Levers) if field.name not in ELSEWHERE]
FAMILIES = {
    "SD 1.x": UNetShape(channels=32, context=48, widths=(1, 2, 2), depths=(1, 1, 0)),
    "SD 2.x": UNetShape(32, (2, 4), (1, 1), heads=0, context=48, linear=True),
    "SDXL": UNetShape(32, (2, 4), (0, 2), 2, heads=0, context=48, linear=True, labels=24),
}
CLOSE = 5e-6  # relative rms: another order of sums, and no more
STEPS = [901.0, 500.0, 21.0]


@pytest.fixture(params=FAMILIES)
def unet(request):
    torch.manual_seed(3)
    return UNet(FAMILIES[request.param]).eval().requires_grad_(False)


def asked(unet, batch=1, size=(8, 8), seed=5):
    """x, and two texts, with labels where they are asked for, for each of its rows."""
    torch.manual_seed(seed)
    label = torch.randn(2 * batch, unet.labels) if unet.labels else None
    return torch.randn(batch, 4, *size), torch.randn(2 * batch, 7, 48), label


def plain(unet, x, t, text, label):
    rows = x.repeat(len(text) // len(x), 1, 1, 1)
    return unet(rows, torch.full((len(rows),), t), text, label)


@pytest.fixture(autouse=True)
def tiles_for_few_pixels(monkeypatch):
    """The networks here are small; tiles and columns are to be tried on them all the same."""
    monkeypatch.setattr("runner.engine.HEAVY", 1)
    monkeypatch.setattr("runner.engine.FEWEST", 16)


def begun(unet, levers, times=1000):
    engine = Engine(unet, levers)
    engine.begin(STEPS * times)
    return engine


@pytest.mark.parametrize("name", ["none", *NAMES, "all"])
def test_every_lever_gives_the_numbers_of_the_plain_network(unet, name):
    levers = {"none": NONE, "all": Levers(qkv=True)}.get(name) or replace(NONE, **{name: True})
    engine = begun(unet, levers)
    x, text, label = asked(unet)
    for t in STEPS:
        assert gap(engine(x, t, text, label), plain(unet, x, t, text, label)) < CLOSE


@pytest.mark.parametrize(("batch", "size"), [(3, (8, 8)), (1, (9, 7)), (2, (5, 12))])
def test_batches_and_odd_sizes(unet, batch, size):
    engine = begun(unet, Levers())
    x, text, label = asked(unet, batch, size)
    assert gap(engine(x, 40.0, text, label), plain(unet, x, 40.0, text, label)) < CLOSE


@pytest.mark.parametrize("kept", [torch.float16, torch.bfloat16])
def test_weights_of_fewer_bits_are_widened_on_every_way(unet, kept):
    x, text, label = asked(unet)
    for module in unet.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module is not unet.out[2]:
            module.weight.copy_(module.weight.to(kept))
    right = [plain(unet, x, t, text, label) for t in STEPS]
    for module in unet.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module is not unet.out[2]:
            module.weight = nn.Parameter(module.weight.to(kept), requires_grad=False)
    for levers in (NONE, Levers()):
        engine = begun(unet, levers)
        for t, owed in zip(STEPS, right, strict=True):
            assert gap(engine(x, t, text, label), owed) < CLOSE


def test_columns_are_for_few_pixels_and_many_weights(unet, monkeypatch):
    seen = []
    monkeypatch.setattr("runner.engine.by_columns", lambda x, layer: seen.append(layer) or layer(x))
    x, text, label = asked(unet)
    begun(unet, replace(NONE, columns=True))(x, 40.0, text, label)
    assert any(layer.stride == (2, 2) for layer in seen)
    assert any(layer.stride == (1, 1) for layer in seen)
    halved = len(text) * x.shape[2] * x.shape[3] // 4
    with monkeypatch.context() as patch:  # those that halve a side see a quarter of its pixels
        patch.setattr("runner.engine.FEW", halved)
        seen.clear()
        begun(unet, replace(NONE, columns=True))(x, 40.0, text, label)
        assert any(layer.stride == (2, 2) for layer in seen)
        patch.setattr("runner.engine.FEW", halved - 1)
        seen.clear()
        begun(unet, replace(NONE, columns=True))(x, 40.0, text, label)
        assert unet.input_blocks[0][0] not in seen
    for name, number in (("HEAVY", 1 << 40), ("FEW", 0)):
        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(f"runner.engine.{name}", number)
            begun(unet, replace(NONE, columns=True))(x, 40.0, text, label)
        assert not seen


def test_a_new_text_or_label_is_not_answered_with_the_old_one(unet):
    engine = begun(unet, Levers())
    for seed in (1, 2):
        x, text, label = asked(unet, seed=seed)
        assert gap(engine(x, 21.0, text, label), plain(unet, x, 21.0, text, label)) < CLOSE


def test_a_step_that_was_not_foretold_is_answered(unet):
    engine = Engine(unet, Levers())
    x, text, label = asked(unet)
    assert gap(engine(x, 333.0, text, label), plain(unet, x, 333.0, text, label)) < CLOSE


def test_tiles_are_made_only_where_they_repay(unet):
    x, text, label = asked(unet)
    few, many = begun(unet, Levers(), times=1), begun(unet, Levers())
    for engine in (few, many):
        engine(x, 21.0, text, label)
    assert not few.tiled
    assert many.tiled


def test_memory_that_is_not_there_is_not_taken(unet):
    engine = begun(unet, Levers())
    engine.spare = 0.0
    x, text, label = asked(unet)
    assert gap(engine(x, 21.0, text, label), plain(unet, x, 21.0, text, label)) < CLOSE
    assert not engine.tiled


def test_weights_stay_the_networks_own(unet):
    before = {name: weight.clone() for name, weight in unet.named_parameters()}
    begun(unet, Levers(qkv=True))(*asked(unet)[:1], 21.0, *asked(unet)[1:])
    assert all(torch.equal(weight, before[name]) for name, weight in unet.named_parameters())


def test_an_unknown_lever_is_refused_by_name():
    with pytest.raises(Refused, match="no lever 'fp8'; there are: all, words"):
        Levers().without(("fp8",))
    assert Levers().without(("winograd",)).pulled == PULLED


def test_a_denoiser_says_and_leaves_out_its_levers():
    torch.manual_seed(3)
    unet = UNet(FAMILIES["SD 1.x"]).eval().requires_grad_(False)
    denoiser = Denoiser.of(unet, sigma_table())
    assert "winograd" in denoiser.levers
    there = tuple(name for name in PULLED if name != "mapped")  # nothing of it is kept narrow
    assert denoiser.without(["winograd"]).levers == there
    assert denoiser.without(["all"]).levers == ()


ADAPTIVE = "dpm_adaptive"  # its steps depend on the latent: it must wait for it


@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - {ADAPTIVE}))
def test_sigmas_on_the_host_move_latents_elsewhere(name):
    """No sampler may want a number of a latent back: each would wait for the device."""
    sigmas = walk(sigma_table(), "normal", "euler", 4, 1.0)
    x = torch.zeros(1, 4, 4, 4, device="meta")  # where there are no numbers to be had
    guided = Guided(lambda x, sigma: x * 0.5, lambda x, sigma: (x * 0.5, x * 0.25))
    *_, end = SAMPLERS[name](guided, x, sigmas, lambda: torch.zeros_like(x))
    assert end.device.type == "meta"
