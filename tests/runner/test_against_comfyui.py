"""The same graph and files through a real ComfyUI and through the runner, on the CPU.

    COMFYUI_DIR=... python -m pytest tests/runner/test_against_comfyui.py

COMFYUI_PYTHON is its interpreter, COMFYUI_DIR/../venv/bin/python by default. Full-size networks:
it takes 2.1 GB of disk, 8 GB of memory and minutes. torchvision is stood in for where it lacks.
"""

import json
import os

import pytest

torch = pytest.importorskip("torch")
from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from runner import canvas, devices, graph, pixels, synthetic, workflow  # noqa: E402
from runner.folders import Folders  # noqa: E402
from runner.trace import gap  # noqa: E402
from tests.runner import loras  # noqa: E402
from tests.runner.graphs import added  # noqa: E402

pytestmark = [
    pytest.mark.comfyui,
    pytest.mark.skipif("COMFYUI_DIR" not in os.environ, reason="COMFYUI_DIR names no ComfyUI"),
]
CHANGED = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (320, 320),
    "lora_unet_input_blocks_4_1_transformer_blocks_0_ff_net_2": (640, 2560),
    "lora_unet_mid_block_resnets_0_conv1": (1280, 1280, 3, 3),
    "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_k": (1280, 768),
    "lora_te_text_model_encoder_layers_3_mlp_fc1": (3072, 768),
    "text_encoder.text_model.encoder.layers.7.self_attn.q_proj": (768, 768),
}
TEXT = "a \\(red\\) (cat:1.3) embedding:mine, on ((a mat))"
ROWS = added(
    ("9", "LoraLoader", {"model": ["1", 0], "clip": ["1", 1], "lora_name": "l.safetensors",
                         "strength_model": 0.8, "strength_clip": -0.5}),
    ("10", "CLIPSetLastLayer", {"clip": ["9", 1], "stop_at_clip_layer": -2}),
    ("11", "ModelSamplingDiscrete", {"model": ["9", 0], "sampling": "v_prediction", "zsnr": True}),
    ("12", "ImageScale", {"image": ["4", 0], "upscale_method": "lanczos", "width": 72,
                          "height": 64, "crop": "center"}),
    ("13", "VAELoader", {"vae_name": "v.safetensors"}),
    n1={"ckpt_name": "full.safetensors"},
    n2={"text": TEXT, "clip": ["10", 0]},
    n3={"clip": ["10", 0]},
    n5={"pixels": ["12", 0], "vae": ["13", 0]},
    n6={"model": ["11", 0], "cfg": 3.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"},
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything the graph names: checkpoint, LoRA, embedding, VAE of its own, picture."""
    root = tmp_path_factory.mktemp("comfyui")
    for kind in ("checkpoints", "loras", "vae", "embeddings"):
        (root / "models" / kind).mkdir(parents=True)
    (root / "input").mkdir()
    whole = root / "models/checkpoints/full.safetensors"
    synthetic.write("sd15", whole, 2, lambda *_: None)
    changes = {}
    for alias, shape in CHANGED.items():
        changes |= loras.product(alias, shape)
    save_file(changes, root / "models/loras/l.safetensors")
    start = "first_stage_model."
    vae = {k.removeprefix(start): v for k, v in load_file(whole).items() if k.startswith(start)}
    vae["decoder.conv_out.weight"] *= 0.75
    save_file(vae, root / "models/vae/v.safetensors")
    vectors = {"emb_params": loras.made("mine", 3, 768).float()}
    save_file(vectors, root / "models/embeddings/mine.safetensors")
    (root / "input/in.png").write_bytes(pixels.to_png(pixels.gradient(90, 70)[0], {}))
    return root


def test_a_graph_gives_the_same_numbers_and_the_same_picture(folder):
    from tests.runner.pack_comfyui import ask

    asked = graph.parse(json.dumps(ROWS))
    (folder / "g.json").write_text(json.dumps(ROWS))
    (folder / "g.ui.json").write_text(json.dumps(canvas.drawn(asked)))
    ask("graph", folder, folder / "g.json", folder / "theirs.safetensors")
    placement = devices.choose("cpu", "float32")
    done = workflow.execute(asked, Folders.of(folder), placement, 2, lambda *_: None)
    theirs, ours = load_file(folder / "theirs.safetensors"), done.tensors()
    apart = {name: gap(ours[name], tensor) for name, tensor in theirs.items() if name in ours}
    assert {"node/2", "node/3", "node/5", "node/6", "node/7"} <= apart.keys()
    bounds = {"node/5": 5e-6, "node/6": 1e-4, "node/7": 1e-4}
    assert all(value <= bounds.get(name, 1e-5) for name, value in apart.items()), apart
    [mine], [other] = done.pictures, (folder / "comfyui").glob("*.png")
    with Image.open(mine.file) as a, Image.open(other) as b:
        levels = (torch.tensor(bytearray(a.tobytes())).int() - torch.tensor(
            bytearray(b.tobytes())).int()).abs()  # fmt: skip
        assert levels.max() <= 1  # a last bit of float32, where SaveImage truncates
        assert levels.count_nonzero() <= levels.numel() / 1000
        assert json.loads(a.text["prompt"]) == json.loads(b.text["prompt"]) == ROWS
        assert json.loads(a.text["workflow"]) == json.loads(b.text["workflow"])
    assert graph.read(other).source == ROWS
