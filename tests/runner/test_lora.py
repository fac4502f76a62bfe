"""LoRA files: every weight changed as ComfyUI changes it, and what does not fit is said."""

import gzip
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402

from runner import checkpoint, devices, lora, pipeline, sources  # noqa: E402
from runner.aliases import OPEN_CLIP  # noqa: E402
from runner.pixels import gradient  # noqa: E402
from runner.recipe import Recipe, Refused  # noqa: E402
from runner.synthetic import make  # noqa: E402
from runner.trace import gap  # noqa: E402
from tests.runner import loras  # noqa: E402
from tests.runner.conftest import small_table, write  # noqa: E402
from tests.runner.test_families import table  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden"
TABLES = {
    "SD 1.x": small_table,
    "SD 2.x": lambda: table("SD 2.x"),
    "SDXL": lambda: table("SDXL"),
}
STRENGTH = 0.7
SAMPLES = 16  # numbers kept of every changed weight


def samples(weight):
    flat = weight.flatten()
    return flat[[place * (len(flat) - 1) // (SAMPLES - 1) for place in range(SAMPLES)]]


def ours(patched, key):
    """The weight that ComfyUI calls `key`, of a checkpoint of ours, changed, in float32."""
    if key.startswith("diffusion_model."):
        return written(patched, "unet", key.removeprefix("diffusion_model."))
    tower, name = key.split(".transformer.")
    start = {"SD 1.x": "", "SD 2.x": "model."}.get(
        patched.family, {"clip_l": "0.transformer.", "clip_g": "1.model."}[tower]
        if tower != "clip_h" else "")  # fmt: skip
    if tower == "clip_l":
        return written(patched, "text", start + name)
    if name == "text_projection.weight":
        return written(patched, "text", f"{start}text_projection").T
    outer = {
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.final_layer_norm.weight": "ln_final.weight",
    }
    if name in outer:
        return written(patched, "text", start + outer[name])
    number, _, rest = name.removeprefix("text_model.encoder.layers.").partition(".")
    layer = f"{start}transformer.resblocks.{number}"
    if rest[:11] in ("self_attn.q", "self_attn.k", "self_attn.v"):
        whole = written(patched, "text", f"{layer}.attn.in_proj_weight")
        return whole.chunk(3)["qkv".index(rest[10])]
    theirs = {theirs: ours for ours, theirs in OPEN_CLIP.items()}
    return written(patched, "text", f"{layer}.{theirs[rest.removesuffix('.weight')]}.weight")


def written(patched, part, name):
    out = torch.empty(patched.shapes[part][name])
    patched.write(part, name, out)
    return out


def small(family):
    """A small checkpoint in no file: its weights follow from their keys."""
    name = checkpoint.FAMILIES[family]
    shapes = {part: {} for part in name.prefixes}
    for key, shape in TABLES[family]().items():
        part = next(part for part, prefix in name.prefixes.items() if key.startswith(prefix))
        shapes[part][key.removeprefix(name.prefixes[part])] = shape

    def fill(part, own, out):
        make(name.prefixes[part] + own, out)

    return checkpoint.Checkpoint("small", family, shapes, fill)


def names(family):
    with gzip.open(GOLDEN / "lora.json.gz", "rt") as file:
        return json.load(file)[family]


@pytest.fixture(scope="module", params=TABLES)
def family(request):
    return request.param


def test_every_name_that_comfyui_knows_is_known_and_no_other(family):
    known = lora.targets(small(family), small(family))
    assert {alias: list(target.shape) for alias, target in known.items()} == {
        alias: shape for alias, (_, shape) in names(family).items()
    }


def test_every_weight_is_changed_as_comfyui_changes_it(family, tmp_path):
    path, base = tmp_path / "l.safetensors", small(family)
    save_file(loras.tensors(names(family)), path)
    file = lora.read(path, base)
    assert file.left_out == ()
    both = file.applied(file.applied(base, "unet", STRENGTH), "text", STRENGTH)
    theirs = load_file(GOLDEN / "lora.safetensors")
    theirs = {k.partition("/")[2]: v for k, v in theirs.items() if k.startswith(family)}
    assert theirs.keys() == {key for key, _ in names(family).values()}
    worst = max((gap(samples(ours(both, key)), value), key) for key, value in theirs.items())
    assert worst[0] <= 1e-6, worst


def test_two_files_are_added_before_anything_is_rounded(tmp_path):
    base, name = small("SD 1.x"), "out.2.weight"
    shape = base.shapes["unet"][name]
    save_file({"lora_unet_out_2.diff": torch.full(shape, 1e-4)}, tmp_path / "a.safetensors")
    file = lora.read(tmp_path / "a.safetensors", base)
    once = file.applied(base, "unet", 1.0)
    for _ in range(9):
        once = file.applied(once, "unet", 1.0)
    out = torch.empty(shape, dtype=torch.float16)
    once.write("unet", name, out)
    whole = written(base, "unet", name) + 1e-3
    assert (out.float() - whole).abs().max() <= 2**-11 * whole.abs().max()


def test_strength_zero_and_the_other_part_stay_as_they_are(tmp_path):
    base = small("SD 1.x")
    key, name = "lora_te_text_model_encoder_layers_0_mlp_fc1", (
        "text_model.encoder.layers.0.mlp.fc1.weight")  # fmt: skip
    save_file(loras.product(key, base.shapes["text"][name]), tmp_path / "a.safetensors")
    file = lora.read(tmp_path / "a.safetensors", base)
    plain = written(base, "text", name)
    assert torch.equal(written(file.applied(base, "unet", 1.0), "text", name), plain)
    assert torch.equal(written(file.applied(base, "text", 0.0), "text", name), plain)
    assert not torch.equal(written(file.applied(base, "text", 1.0), "text", name), plain)


def refused(path, base):
    with pytest.raises(Refused) as caught:
        lora.read(path, base)
    assert str(path) in str(caught.value)
    return caught.value.id, str(caught.value)


def test_what_does_not_fit_is_refused_or_counted(tmp_path):
    base, path = small("SD 1.x"), tmp_path / "a.safetensors"
    save_file(loras.product("lora_unet_out_2", (4, 99, 3, 3)), path)
    assert refused(path, base)[0] == "lora-misfit"
    save_file({"x.hada_w1_a": torch.ones(2)}, path)
    assert refused(path, base) == (
        "lora-other-kind", f"{path} is a LoHa, which is not applied here.",
    )  # fmt: skip
    save_file({"x.lora_up.weight": torch.ones(2)}, path)
    assert refused(path, base)[0] == "lora-fits-nothing"
    more = {"lora_te9_x.lora_up.weight": torch.ones(2, 2)}
    save_file(loras.product("lora_unet_out_2", (4, 32, 3, 3)) | more, path)
    [note] = lora.read(path, base).notes()
    assert "1 of" in note
    assert "lora_te9_x" in note


def test_a_render_with_a_lora_differs_and_says_what_it_left_out(tmp_path):
    path = write(tmp_path / "m.safetensors", small_table())
    file = tmp_path / "l:o.safetensors"
    left = {"lora_te9_x.lora_up.weight": torch.ones(2, 2)}
    save_file(loras.product("lora_unet_out_2", (4, 32, 3, 3)) | left, file)
    seen = {}
    for asked in ("", ":0.5", ":0:1"):
        read = checkpoint.read(path)
        read = sources.changed(read, loras=[f"{file}{asked}"] if asked else [])
        models = pipeline.load(read, devices.choose("cpu", "float32"), 2, lambda *_: None)
        assert len(models.notes) == bool(asked)
        recipe = Recipe("a", steps=1)
        seen[asked] = pipeline.img2img(models, recipe, gradient(16, 16), lambda *_: None)
    assert not torch.equal(seen[""], seen[":0.5"])
    assert torch.equal(seen[""], seen[":0:1"])


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        ("a.safetensors", ("a.safetensors", 1, 1)),
        ("a.safetensors:0.5", ("a.safetensors", 0.5, 0.5)),
        ("C:\\a.safetensors:-1:0.25", ("C:\\a.safetensors", -1, 0.25)),
    ],
)
def test_strengths_stand_behind_the_file(asked, read):
    path, *rest = sources.strengths(asked)
    assert (str(path), *rest) == read


@pytest.mark.parametrize("asked", ["a:101", "a:1.2.3", "a:0:-200"])
def test_a_strength_that_is_none_is_refused(asked):
    with pytest.raises(Refused, match="a:"):
        sources.strengths(asked)
