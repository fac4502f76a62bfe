"""Pack what `verify` needs into runner/data/golden.*.

    ATEN_CPU_CAPABILITY=avx2 python -m tests.runner.pack_goldens FOLDER

FOLDER holds schedules, samplers and sd15 (.safetensors, .json), computed with ComfyUI 0.3.64 on
the CPU in float32, torch 2.13.0, two threads. Taken from there: schedules and samplers that the
runner has, prompts, tokens, text embeddings, latents. Added here, from the runner itself once it
agrees with those: checksums of the synthetic weights, the noise of seed 42, marks of every layer.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from runner import verify
from runner.checkpoint import PREFIXES
from runner.devices import choose
from runner.noise import first_noise
from runner.pipeline import load
from runner.pixels import gradient
from runner.samplers import SAMPLERS
from runner.schedules import SCHEDULES
from runner.synthetic import checkpoint, make
from runner.tokenizer import chunks
from runner.trace import layers

KEPT_WHOLE = {"plain", "negative"}


def taken(folder):
    """What is copied: runs' latents but not their pictures, most embeddings thinned out."""
    for key, tensor in load_file(folder / "schedules.safetensors").items():
        if key.split("/")[2] in SCHEDULES and tensor.isfinite().all():
            yield key, tensor  # kl_optimal at one step is NaN in ComfyUI, and refused here
    for key, tensor in load_file(folder / "samplers.safetensors").items():
        if key.split("/")[1] in SAMPLERS:
            yield key, tensor
    for key, tensor in load_file(folder / "sd15.safetensors").items():
        kind, _, rest = key.partition("/")
        if kind == "pooled" or rest.endswith("/image") or key == "image/input":
            continue
        if kind == "cond" and rest not in KEPT_WHOLE and tensor.shape[-1] == 768:
            tensor = tensor[:, ::7, ::16].contiguous()
        yield key, tensor


def told(folder):
    sd15 = json.loads((folder / "sd15.json").read_text())
    samplers = json.loads((folder / "samplers.json").read_text())
    calls = {k: v["model_calls"] for k, v in samplers.items() if k.split("/")[1] in SAMPLERS}
    return {
        "source": {key: sd15[key] for key in ("comfyui", "torch", "device", "compute")},
        "prompts": sd15["prompts"],
        "tokens": {key: value["l"] for key, value in sd15["tokens"].items()},
        "runs": sd15["runs"],
        "model_calls": calls,
    }


@torch.inference_mode()
def added(numbers):
    """Checksums of the weights in both precisions, noise, and the marks of every layer."""
    models = load(checkpoint("sd15"), choose("cpu", "float32"), 2, lambda *_: None)
    keys = sorted(
        (PREFIXES[part] + key, weight)
        for part, network in verify.parts(models)
        for key, weight in network.named_parameters()
    )
    for dtype in (torch.float32, torch.float16):
        sums = []
        for key, weight in keys:
            fresh = torch.empty(weight.shape, dtype=dtype)
            make(key, fresh)
            sums.append(verify.checksum(fresh))
        yield f"weights/{verify.name(dtype)}", torch.tensor(sums), None
    yield "noise/seed=42", first_noise(42, torch.empty(1, 4, 8, 8)), None
    verify.golden = lambda: numbers
    for part, network, run in (
        ("text", models.text, lambda: models.text(chunks("a dog with a hat"))),
        ("encode", models.vae, lambda: models.vae.encode(gradient(64, 64))),
        ("decode", models.vae, lambda: models.vae.decode(numbers["latent/input"])),
        ("denoiser", models.denoiser.unet, lambda: verify.probe(models, models.denoiser, 3.0)),
    ):
        marks = layers(network, run)
        yield f"layers/{part}", torch.stack(list(marks.values())).float(), list(marks)


def main(folder):
    numbers, story = dict(taken(folder)), told(folder)
    story["layers"] = {}
    for key, tensor, names in list(added(numbers)):
        numbers[key] = tensor
        if names:
            story["layers"][key.removeprefix("layers/")] = names
    save_file(numbers, verify.DATA / "golden.safetensors")
    text = json.dumps(story, ensure_ascii=False, separators=(",", ":"))
    (verify.DATA / "golden.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
