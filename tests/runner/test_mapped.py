"""Weights left in their file: the same numbers, in the file's own precision, and only if asked."""

from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

torch = pytest.importorskip("torch")

from runner import checkpoint, cli, devices, early, pipeline, tables  # noqa: E402
from runner.mapped import Conv2d, Linear  # noqa: E402
from runner.recipe import Recipe  # noqa: E402
from runner.trace import gap  # noqa: E402

UNET = "model.diffusion_model."
CLOSE = 5e-6  # relative rms: a product in parts, and no more


def quiet(*_):
    pass


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """The networks here are small: what is lent begins at fewer numbers."""
    for module in (early, checkpoint):
        monkeypatch.setattr(module, "LENT", 1 << 12)


def models(path, mapped, change=lambda one: one):
    place = devices.choose("cpu", "float32")
    return pipeline.load(change(checkpoint.read(path)), place, 1, quiet, mapped)


def kept(models):
    return dict(models.denoiser.unet.named_parameters())


@pytest.mark.parametrize("layer", [Linear(6, 4), Conv2d(6, 4, 3, padding=1)])
def test_a_layer_computes_in_the_precision_of_what_it_meets(layer):
    x = torch.randn(2, 6) if isinstance(layer, Linear) else torch.randn(2, 6, 5, 5)
    narrow = layer.requires_grad_(False).weight.half()
    layer.weight.copy_(narrow)
    right = layer(x)
    layer.weight = torch.nn.Parameter(narrow, requires_grad=False)
    assert torch.equal(layer(x), right)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_wide_weights_stay_in_the_file(small, tmp_path, dtype):
    stored = {key: tensor.to(dtype) for key, tensor in load_file(small).items()}
    save_file(stored, tmp_path / "a.safetensors")
    lent, whole = (
        kept(models(tmp_path / "a.safetensors", True)),
        kept(models(tmp_path / "a.safetensors", False)),
    )
    assert {weight.dtype for weight in whole.values()} == {torch.float32}
    for name, weight in lent.items():
        assert torch.equal(weight, stored[UNET + name].to(weight.dtype)), name
        assert weight.dtype == (dtype if weight.numel() >= 1 << 12 else torch.float32)


def test_nothing_is_copied(small):
    one = checkpoint.read(small)
    name = max(one.shapes["unet"], key=lambda name: torch.Size(one.shapes["unet"][name]).numel())
    first, again = one.lend("unet", name), one.lend("unet", name)
    assert first.data_ptr() == again.data_ptr()
    assert kept(models(small, True, lambda _: one))[name].data_ptr() == first.data_ptr()


def test_the_picture_is_the_same(small):
    image, recipe = torch.rand(1, 32, 32, 3), Recipe("a dog", steps=2)
    made = [pipeline.img2img(models(small, mapped), recipe, image, quiet) for mapped in (0, 1)]
    assert gap(made[1], made[0]) < CLOSE


def test_the_plain_network_is_the_same(small):
    width = checkpoint.read(small).shapes["unet"][
        "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    ][1]
    x, text = torch.randn(1, 4, 8, 8), torch.randn(1, 7, width)
    nets = [models(small, mapped).denoiser.unet for mapped in (False, True)]
    one, other = (net(x, torch.tensor([3.0]), text) for net in nets)
    assert gap(other, one) < CLOSE


def test_what_a_lora_changes_is_written_anew(small):
    name = next(k for k, w in kept(models(small, True)).items() if w.dtype == torch.float16)

    def change(one):
        return replace(one, changes={("unet", name): (lambda weight: weight + 1,)})

    changed = kept(models(small, True, change))
    assert changed[name].dtype == torch.float32
    assert torch.equal(changed[name], load_file(small)[UNET + name].float() + 1)


def test_another_precision_of_the_device_or_of_comfyui_lends_nothing(small):
    one, name = checkpoint.read(small), "middle_block.0.in_layers.2.weight"
    cpu = torch.device("cpu")
    assert one.lent("unet", name, (cpu, torch.float32)) is not None
    assert one.lent("unet", name, (cpu, torch.bfloat16)) is None
    assert one.lent("unet", name, (torch.device("meta"), torch.float32)) is None
    assert one.lent("vae", "decoder.conv_in.weight", (cpu, torch.float32)) is None
    rounded = devices.Placement(cpu, torch.float32, torch.float32, torch.bfloat16)
    weights = kept(pipeline.load(one, rounded, 1, quiet, True)).values()
    assert {weight.dtype for weight in weights} == {torch.float32}


def test_a_table_that_lies_between_two_numbers_is_read(small, tmp_path):
    data = small.read_bytes()
    length = int.from_bytes(data[:8], "little")
    odd = tmp_path / "odd.safetensors"
    odd.write_bytes(
        (length + 1).to_bytes(8, "little") + data[8 : 8 + length] + b" " + data[8 + length :]
    )
    assert {weight.dtype for weight in kept(models(odd, True)).values()} == {torch.float32}


def test_a_file_that_cannot_be_mapped_is_read(small, monkeypatch):
    def no(path):
        raise OSError("no such operation")

    monkeypatch.setattr(tables, "mapped", no)
    assert {weight.dtype for weight in kept(models(small, True)).values()} == {torch.float32}


def test_where_memory_is_short_they_stay_in_the_file(small, monkeypatch):
    numbers = sum(
        torch.Size(s).numel() for p in checkpoint.read(small).shapes.values() for s in p.values()
    )
    monkeypatch.setattr(pipeline, "free_memory", lambda: 4 * numbers / pipeline.MOST - 8)
    assert torch.float16 in {weight.dtype for weight in kept(models(small, False)).values()}
    monkeypatch.setattr(pipeline, "free_memory", lambda: 4 * numbers / pipeline.MOST + 8)
    assert torch.float16 not in {weight.dtype for weight in kept(models(small, False)).values()}


@pytest.mark.parametrize(
    ("words", "stays"),
    [
        (["--steps=4"], True),
        (["--steps=20"], False),
        (["--steps=4", "--lora=x"], False),
        (["--steps=4", "--images=x"], False),
    ],
)
def test_a_short_render_leaves_them_and_takes_less_memory_early(small, words, stays, monkeypatch):
    begun = []
    monkeypatch.setattr(early, "begin", lambda *one: begun.append(one))
    monkeypatch.setattr(cli, "renders", lambda options, *_: (0, {}, []))
    monkeypatch.setitem(cli.COMMANDS, "render", (cli.renders, *cli.COMMANDS["render"][1:]))
    cli.main(["render", f"--checkpoint={small}", "--out=x", *words])
    assert begun == [(small, None, stays)]
    assert early.weights(small, True) < early.weights(small)


@pytest.mark.parametrize("lever", ["mapped", "all"])
def test_the_lever_reads_them_even_where_memory_is_short(small, lever, monkeypatch):
    monkeypatch.setattr(pipeline, "free_memory", lambda: 8.0)
    place = devices.choose("cpu", "float32")
    for without, dtypes in (((), {torch.float16, torch.float32}), ((lever,), {torch.float32})):
        made, _ = cli.loaded(checkpoint.read(small), place, quiet, without)
        assert {weight.dtype for weight in kept(made).values()} == dtypes
