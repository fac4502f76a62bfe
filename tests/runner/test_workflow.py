"""A graph, executed: the same numbers as a render, and what a node changes and does not."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch")
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from runner import checkpoint, devices, graph, pipeline, pixels, workflow  # noqa: E402
from runner.cli import main  # noqa: E402
from runner.folders import Folders  # noqa: E402
from runner.nodes import NODES  # noqa: E402
from runner.recipe import Recipe, Refused  # noqa: E402
from runner.trace import gap  # noqa: E402
from tests.runner.graphs import IMG2IMG, added, changed  # noqa: E402


@pytest.fixture
def comfyui(small, tmp_path):
    """A folder laid out as ComfyUI's, with one checkpoint and one picture."""
    for folder in ("models/checkpoints", "models/vae", "models/loras", "input", "output"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(small, tmp_path / "models/checkpoints/small.safetensors")
    png = pixels.to_png(pixels.gradient(64, 64)[0], {})
    (tmp_path / "input/in.png").write_bytes(png)
    return tmp_path


def executed(comfyui, rows):
    asked = graph.parse(json.dumps(rows))
    placement = devices.choose("cpu", "float32")
    return workflow.execute(asked, Folders.of(comfyui), placement, 2, lambda *_: None)


@pytest.fixture
def run(comfyui):
    return lambda rows: executed(comfyui, rows).tensors()


def test_every_known_node_is_executed():
    assert workflow.RUNS.keys() == NODES.keys()


def test_a_graph_gives_what_its_recipe_gives(comfyui, small):
    done = executed(comfyui, IMG2IMG)
    models = pipeline.load(
        checkpoint.read(small), devices.choose("cpu", "float32"), 2, lambda *_: None
    )
    recipe = Recipe("a (red:1.3) cat", "a dog", steps=2, cfg=7.0, seed=3, denoise=0.6)
    image = pipeline.img2img(models, recipe, pixels.gradient(64, 64), lambda *_: None)
    assert torch.equal(done.values["7"][0], image)
    [picture] = done.pictures
    assert picture.file == comfyui / "output/out_00001_.png"
    with Image.open(picture.file) as saved:
        told = saved.text
        assert torch.equal(pixels.from_picture(saved), torch.from_numpy(
            pixels.to_bytes(image[0]).astype("float32") / 255)[None])  # fmt: skip
    assert json.loads(told["prompt"]) == IMG2IMG
    assert json.loads(told["workflow"])["version"] == 0.4


def test_a_graph_comes_back_out_of_its_picture(comfyui):
    [picture] = executed(comfyui, IMG2IMG).pictures
    again = graph.read(picture.file)
    assert again.source == IMG2IMG
    [second] = executed(comfyui, dict(again.source)).pictures
    assert second.file.name == "out_00002_.png"
    assert second.sha256 == picture.sha256


def test_both_halves_of_an_advanced_sampler_make_one_walk(run):
    whole = run(changed(n6={"denoise": 1.0, "steps": 4}))["node/6"]
    names = ("model", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative")
    same = {name: changed(n6={"steps": 4})["6"]["inputs"][name] for name in names}

    def half(latent, start, end, noise, leftover):
        return {
            **same, "noise_seed": 3, "latent_image": latent, "start_at_step": start,
            "end_at_step": end, "add_noise": noise, "return_with_leftover_noise": leftover,
        }  # fmt: skip

    first = ("10", "KSamplerAdvanced", half(["5", 0], 0, 2, "enable", "enable"))
    second = ("11", "KSamplerAdvanced", half(["10", 0], 2, 10000, "disable", "disable"))
    parts = run(added(first, second, n7={"samples": ["11", 0]}))["node/11"]
    assert gap(parts, whole) <= 1e-5


def test_an_empty_latent_is_a_batch(run, comfyui):
    node = ("9", "EmptyLatentImage", {"width": 64, "height": 32, "batch_size": 2})
    seen = run(added(node, n6={"latent_image": ["9", 0], "denoise": 1}))
    assert seen["node/7"].shape == (2, 32, 64, 3)
    assert not torch.equal(seen["node/7"][0], seen["node/7"][1])
    assert sorted(p.name for p in (comfyui / "output").iterdir()) == [
        "out_00001_.png",
        "out_00002_.png",
    ]


def test_only_what_a_picture_needs_is_run(comfyui):
    lonely = ("9", "LoadImage", {"image": "not there.png"})
    assert "9" not in executed(comfyui, added(lonely)).values


def test_clip_skip_and_v_prediction_are_nodes(run):
    usual = run(IMG2IMG)
    skip = ("9", "CLIPSetLastLayer", {"clip": ["1", 1], "stop_at_clip_layer": -2})
    assert not torch.equal(run(added(skip, n2={"clip": ["9", 0]}))["node/2"], usual["node/2"])
    turned = ("9", "ModelSamplingDiscrete", {"model": ["1", 0], "sampling": "v_prediction",
              "zsnr": True})  # fmt: skip
    assert not torch.equal(run(added(turned, n6={"model": ["9", 0]}))["node/6"], usual["node/6"])


def test_a_vae_of_its_own(run, comfyui, small):
    stored = load_file(small)
    from safetensors.torch import save_file

    own = {
        key.removeprefix("first_stage_model."): tensor * (0.5 if "conv_out" in key else 1)
        for key, tensor in stored.items()
        if key.startswith("first_stage_model.")
    }
    save_file(own, comfyui / "models/vae/other.safetensors")
    node = ("9", "VAELoader", {"vae_name": "other.safetensors"})
    usual = run(IMG2IMG)
    other = run(added(node, n7={"vae": ["9", 0]}))
    assert torch.equal(other["node/6"], usual["node/6"])
    assert not torch.equal(other["node/7"], usual["node/7"])


@pytest.mark.parametrize("method", ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"])
def test_scaling(run, method):
    inputs = {"image": ["4", 0], "upscale_method": method, "width": 48, "height": 32,
              "crop": "center"}  # fmt: skip
    seen = run(added(("9", "ImageScale", inputs), n5={"pixels": ["9", 0]}))
    assert seen["node/9"].shape == (1, 32, 48, 3)
    assert seen["node/6"].shape == (1, 4, 4, 6)


REFUSED = [
    (changed(n6={"sampler_name": "eulr"}), "unknown-sampler", "Did you mean euler"),
    (changed(n6={"scheduler": "x"}), "unknown-scheduler", "There are: simple"),
    (changed(n1={"ckpt_name": "other.safetensors"}), "model-not-found", "there: small"),
    (changed(n1={"ckpt_name": "../checkpoints/small.safetensors"}), "name-leads-outside", "below"),
    (changed(n1={"ckpt_name": "/etc/passwd"}), "name-leads-outside", "/etc/passwd"),
    (changed(n4={"image": "../../in.png"}), "name-leads-outside", "input"),
    (changed(n4={"image": "gone.png"}), "no-such-image", "gone.png"),
    (changed(n8={"filename_prefix": "../x"}), "name-leads-outside", "output"),
    (changed(n8={"filename_prefix": "C:\\x"}), "name-leads-outside", "output"),
]


@pytest.mark.parametrize(("rows", "id", "said"), REFUSED)
def test_a_name_that_is_not_there_or_leads_outside_is_refused(comfyui, rows, id, said):
    with pytest.raises(Refused) as caught:
        executed(comfyui, rows)
    assert caught.value.id == id
    assert said in str(caught.value)


def test_absurd_sizes_are_refused_for_their_memory(comfyui):
    node = ("9", "EmptyLatentImage", {"width": 16384, "height": 16384, "batch_size": 4096})
    with pytest.raises(Refused) as caught:
        executed(comfyui, added(node, n6={"latent_image": ["9", 0]}))
    assert caught.value.id == "not-enough-memory"


def test_the_command_says_what_it_did(comfyui, capsys):
    path = comfyui / "graph.json"
    path.write_text(json.dumps({"prompt": IMG2IMG}))
    words = ["workflow", str(path), "--comfyui", str(comfyui), "--device", "cpu", "--json"]
    assert main([*words, "--trace", str(comfyui / "t.safetensors")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "runner.workflow/1"
    assert told["files"] == [str(comfyui / "output/out_00001_.png"), str(comfyui / "t.safetensors")]
    assert {"node/2", "node/5", "node/6", "node/7"} <= load_file(comfyui / "t.safetensors").keys()
    assert main(["workflow", str(comfyui / "input/in.png")]) == 2
    assert "carries no graph" in capsys.readouterr().err
