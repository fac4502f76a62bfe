"""Pack what `verify` needs into runner/data/golden.MODEL.*.

    ATEN_CPU_CAPABILITY=avx2 python -m tests.runner.pack_goldens FOLDER [MODEL ...]

FOLDER holds schedules, samplers and each MODEL (.safetensors, .json), computed with ComfyUI 0.3.64
on the CPU in float32, torch 2.13.0, two threads, with sixteen.MODEL.json (measure_sixteen.py) and
steps.MODEL.safetensors (pack_comfyui.py).
Taken from there: schedules and samplers that the runner has (into sd15's), prompts, tokens, text
embeddings, latents, 8-bit pictures. Added here, from the runner itself once it agrees with those:
checksums of the synthetic weights, the noise of seed 42, marks of every layer.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from runner import rungs_network
from runner.devices import choose, name
from runner.gate import Subject
from runner.golden import DATA, MODELS, Golden
from runner.layers import layers
from runner.noise import first_noise
from runner.pipeline import load
from runner.pixels import to_bytes
from runner.samplers import SAMPLERS
from runner.schedules import SCHEDULES
from runner.synthetic import MODELS as FAMILIES
from runner.synthetic import checkpoint

KEPT_WHOLE = {"plain", "negative"}


def formulas(folder):
    for key, tensor in load_file(folder / "schedules.safetensors").items():
        if key.split("/")[2] in SCHEDULES and tensor.isfinite().all():
            yield key, tensor  # kl_optimal at one step is NaN in ComfyUI, and refused here
    for key, tensor in load_file(folder / "samplers.safetensors").items():
        if key.split("/")[1] in SAMPLERS:
            yield key, tensor


def network(folder, model):
    """What is copied: runs' latents and pictures, most embeddings thinned out."""
    for key, tensor in load_file(folder / f"{model}.safetensors").items():
        kind, _, rest = key.partition("/")
        if kind == "run" and rest.endswith("/image"):
            yield f"{key[:-5]}picture", torch.from_numpy(to_bytes(tensor[0]).copy())
            continue
        if key == "image/input" or (kind == "pooled" and rest not in KEPT_WHOLE):
            continue
        if kind == "cond" and rest not in KEPT_WHOLE and tensor.shape[1] >= 77:
            tensor = tensor[:, ::7, ::16].contiguous()
        yield key, tensor
    yield from load_file(folder / f"steps.{model}.safetensors").items()


def told(folder, model):
    made = json.loads((folder / f"{model}.json").read_text())
    samplers = json.loads((folder / "samplers.json").read_text())
    calls = {k: v["model_calls"] for k, v in samplers.items() if k.split("/")[1] in SAMPLERS}
    sixteen = json.loads((folder / f"sixteen.{model}.json").read_text())
    tokens = {key: next(iter(value.values())) for key, value in made["tokens"].items()}
    return {
        "source": {key: made[key] for key in ("comfyui", "torch", "device", "compute")},
        "prompts": made["prompts"],
        "tokens": tokens if model == "sd15" else {},
        "runs": made["runs"],
        "model_calls": calls if model == "sd15" else {},
        "sixteen": {dtype: sixteen[dtype] for dtype in ("float16", "bfloat16")},
    }


@torch.inference_mode()
def added(model, golden):
    """Checksums of the weights in both precisions, and the marks of every layer."""
    weights = checkpoint(model)
    subject = Subject(load(weights, choose("cpu", "float32"), 2, lambda *_: None), weights, golden)
    prefixes = FAMILIES[model].prefixes
    keys = sorted(
        (prefixes[part] + key, weight)
        for part, network in rungs_network.parts(subject.models)
        for key, weight in network.named_parameters()
    )
    for dtype in (torch.float32, torch.float16):
        sums = []
        for _, weight in keys:
            sums.append(rungs_network.checksum(weight.to(dtype)))  # exact: they are float16's
        yield f"weights/{name(dtype)}", torch.tensor(sums), None
    for stage, (network, run) in rungs_network.runs(subject).items():
        marks = layers(network, run)
        numbers = torch.stack([mark.numbers for mark in marks.values()]).float()
        yield f"layers/{stage}", numbers, list(marks)


def pack(folder, model):
    golden = Golden(model)
    numbers = dict(formulas(folder)) if model == "sd15" else {}
    numbers |= network(folder, model)
    if model == "sd15":
        numbers["noise/seed=42"] = first_noise(42, torch.empty(1, 4, 8, 8))
    story = told(folder, model) | {"layers": {}}
    golden.__dict__.update(tensors=numbers, story=story)  # in place of what lies in the file
    for key, tensor, names in list(added(model, golden)):
        numbers[key] = tensor
        if names:
            story["layers"][key.removeprefix("layers/")] = names
    save_file(numbers, DATA / f"golden.{model}.safetensors")
    text = json.dumps(story, ensure_ascii=False, separators=(",", ":"))
    (DATA / f"golden.{model}.json").write_text(text + "\n", "utf-8")


def main(folder, *models):
    for model in models or MODELS:
        pack(Path(folder), model)


if __name__ == "__main__":
    main(*sys.argv[1:])
