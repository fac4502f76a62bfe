"""Weights left in their file: the same numbers, in the file's own precision, and only if asked."""

from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

torch = pytest.importorskip("torch")

from runner import checkpoint, cli, devices, early, engine, pipeline, sources, tables  # noqa: E402
from runner.mapped import Conv2d, Linear  # noqa: E402
from runner.pixels import gradient, to_png  # noqa: E402
from runner.recipe import Recipe, Refused  # noqa: E402
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


@pytest.mark.parametrize("mapped", [True, False])
def test_a_denoiser_says_whether_it_does(small, mapped):
    assert ("mapped" in models(small, mapped).denoiser.levers) is mapped


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


def test_a_file_cut_after_its_header_was_read_is_refused_as_such(small, tmp_path):
    copy = tmp_path / "a.safetensors"
    copy.write_bytes(small.read_bytes())
    one = checkpoint.read(copy)
    with copy.open("r+b") as file:
        file.truncate(copy.stat().st_size // 2)
    with pytest.raises(Refused, match="is cut off"):
        models(copy, True, lambda _: one)


@pytest.mark.parametrize("changed", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_a_file_written_to_while_it_is_rendered_with_is_refused(small, tmp_path, mapped, changed):
    copy = tmp_path / "a.safetensors"
    copy.write_bytes(small.read_bytes())
    made, recipe = models(copy, mapped), Recipe("a dog", steps=1)
    if changed:
        with copy.open("r+b") as file:
            file.seek(-2, 2)
            file.write(b"ab")
    else:  # another of its name is not it
        copy.unlink()
        copy.write_bytes(b"another")
    if mapped and changed:
        with pytest.raises(Refused, match="was written to while"):
            pipeline.img2img(made, recipe, torch.rand(1, 16, 16, 3), quiet)
    else:
        pipeline.img2img(made, recipe, torch.rand(1, 16, 16, 3), quiet)


def test_a_pickle_lends_what_it_holds(small, tmp_path):
    stored = load_file(small)
    torch.save({"state_dict": stored}, tmp_path / "a.ckpt")
    lent = kept(models(tmp_path / "a.ckpt", True))
    assert torch.float16 in {weight.dtype for weight in lent.values()}
    for name, weight in lent.items():
        assert torch.equal(weight.float(), stored[UNET + name].float()), name


def test_what_has_more_bits_than_are_computed_with_is_read(small, tmp_path):
    stored = {key: tensor.double() for key, tensor in load_file(small).items()}
    save_file(stored, tmp_path / "a.safetensors")
    weights = kept(models(tmp_path / "a.safetensors", True)).values()
    assert {weight.dtype for weight in weights} == {torch.float32}


def test_another_vae_beside_it_changes_nothing_of_that(small):
    both = sources.with_vae(checkpoint.read(small), small)
    assert torch.float16 in {w.dtype for w in kept(models(small, True, lambda _: both)).values()}
    assert both.lend("vae", "decoder.conv_in.weight") is None, "not the one of its own file"


def test_tiles_take_nothing_that_mapped_weights_need(small, monkeypatch):
    monkeypatch.setattr(engine, "free_memory", lambda: 1e9)
    unet = models(small, True).denoiser.unet
    narrow = sum(2 * weight.numel() for weight in unet.parameters() if weight.dtype != unet.dtype)
    assert unet.narrow == narrow > 0
    assert engine.Engine(unet, engine.Levers()).spare == (1e9 - narrow) / 2


@pytest.mark.parametrize("words", [["--steps=1"], ["--steps=11"]])
def test_a_render_from_the_command_line_does_so(small, words, tmp_path, monkeypatch):
    seen = []
    real = pipeline.load
    monkeypatch.setattr(pipeline, "load", lambda *one: seen.append(real(*one)) or seen[0])
    monkeypatch.setattr(early, "begin", lambda *_: False)
    out = tmp_path / "a.png"
    common = ["render", f"--checkpoint={small}", f"--out={out}", "--device=cpu", "--progress=none"]
    picture = tmp_path / "in.png"
    picture.write_bytes(to_png(gradient(16, 16)[0], {}))
    assert cli.main([*common, f"--image={picture}", *words]) == 0
    assert out.exists()
    dtypes = {weight.dtype for weight in kept(seen[0]).values()}
    assert (torch.float16 in dtypes) == (words == ["--steps=1"])


@pytest.mark.parametrize(
    ("words", "stays"),
    [
        (["--steps=10"], True),
        (["--steps=10", "--dtype=float32"], True),
        (["--steps=11"], False),
        (["--steps=4", "--without=mapped"], False),
        (["--steps=4", "--without=all"], False),
        (["--steps=4", "--dtype=bfloat16"], False),
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


def test_memory_begun_early_is_what_is_written(small):
    one = checkpoint.read(small)
    numbers = {
        (p, k): torch.Size(s).numel() for p, names in one.shapes.items() for k, s in names.items()
    }
    wide = sum(n for (part, _), n in numbers.items() if part == "unet" and n >= early.LENT)
    assert any(n >= early.LENT for (part, _), n in numbers.items() if part != "unet")
    assert early.weights(small) - early.weights(small, True) == wide
