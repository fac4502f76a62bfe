"""Measure what 16 bits cost in ComfyUI itself: the bounds of `verify`'s 16-bit gates.

    COMFYUI_VENV/bin/python -m tests.runner.measure_sixteen COMFYUI_FOLDER MODEL FOLDER [ours]

On the CPU, with ComfyUI's own networks on a synthetic checkpoint, every stage in float16 and in
bfloat16, held against the golden numbers of float32 (whose own error, 3e-6, does not count
beside); with `ours`, the runner's, too. The synthetic VAE is the same in all three models, so
its figures are sd15's. Writes FOLDER/sixteen.MODEL.json. ComfyUI is made to
compute in 16 bits, as on a GPU that can: on a CPU it would store them and compute in 32.
"""

import json
import sys
import time
from pathlib import Path
from unittest.mock import MagicMock

import torch
from safetensors.torch import load_file

from runner import pipeline, synthetic
from runner.devices import Placement, small_convolutions
from runner.guidance import guide
from runner.pixels import gradient
from runner.trace import gap

SIGMAS = (0.4, 3.0, 14.0)
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
ROOT = Path(__file__).parents[2]


def quiet(*_):
    pass


class ComfyUI:
    """A checkpoint in ComfyUI's own hands, in one precision."""

    def __init__(self, folder, path, dtype):
        sys.argv = ["main.py", "--cpu", "--use-pytorch-cross-attention"]
        sys.path.insert(0, str(folder))
        import transformers.utils.import_utils  # noqa: F401 - looks for torchvision before we say so

        for absent in ("torchvision", "torchvision.transforms", "torchaudio"):
            sys.modules.setdefault(absent, MagicMock())  # imported there for models we do not load
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.model_management
        import comfy.sd

        comfy.model_management.should_use_fp16 = lambda *_, **__: dtype == torch.float16
        comfy.model_management.should_use_bf16 = lambda *_, **__: dtype == torch.bfloat16
        self.model, self.clip, self.vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(path), model_options={"dtype": dtype}
        )
        assert self.model.model.get_dtype() == dtype
        assert self.model.model.manual_cast_dtype is None
        self.vae.first_stage_model.to(dtype)
        self.vae.vae_dtype = dtype

    def conds(self, prompts):
        return [
            self.clip.encode_from_tokens_scheduled(self.clip.tokenize(prompts[name]))
            for name in ("plain", "negative")
        ]

    def denoised(self, conds, x, sigma):
        import comfy.sample
        import comfy.samplers

        seen = []

        def look(model, at, sigmas, extra_args=None, callback=None, disable=None, **_):
            seen.append(model(x * (sigma**2 + 1) ** 0.5, torch.tensor([sigma]), **extra_args))
            return at

        sigmas, blank = torch.tensor([sigma, 0.0]), torch.zeros_like(x)
        sampler = comfy.samplers.KSAMPLER(look)
        with torch.inference_mode():
            comfy.sample.sample_custom(
                self.model, blank, 5.0, sampler, sigmas, *conds, blank, disable_pbar=True
            )
        return seen[0]


def theirs(comfyui, golden, prompts, vae):
    with torch.inference_mode():
        conds = comfyui.conds(prompts)
        if vae:
            yield from theirs_of_vae(comfyui, golden)
    for sigma in SIGMAS:
        key = f"probe/denoised/sigma={sigma}"
        yield f"denoiser {sigma}", comfyui.denoised(conds, golden["probe/x"], sigma), golden[key]


def theirs_of_vae(comfyui, golden):
    with torch.inference_mode():
        yield "encode", comfyui.vae.encode(gradient(64, 64)), golden["latent/input"]
        yield "decode", comfyui.vae.decode(golden["latent/input"]), golden["image/roundtrip"]


@torch.inference_mode()
def ours(model, dtype, golden):
    placement = Placement(torch.device("cpu"), dtype, dtype)
    models = pipeline.load(synthetic.checkpoint(model), placement, 2, quiet)
    yield "encode", models.vae.encode(gradient(64, 64)), golden["latent/input"]
    yield "decode", models.vae.decode(golden["latent/input"]), golden["image/roundtrip"]
    x = golden["probe/x"]
    prompts = [
        pipeline.prompt(models, golden[f"cond/{name}"], golden.get(f"pooled/{name}"), x)
        for name in ("plain", "negative")
    ]
    for sigma in SIGMAS:
        level = torch.tensor(sigma)
        with small_convolutions(torch.device("cpu"), x):
            seen = guide(models.denoiser, *prompts, 5.0)(x * (level**2 + 1) ** 0.5, level)
        yield f"denoiser {sigma}", seen, golden[f"probe/denoised/sigma={sigma}"]


def measured(numbers, called):
    found = {}
    for stage, mine, golden in numbers:
        found[stage] = gap(mine, golden)
        print(f"{time.strftime('%H:%M:%S')} {called} {stage}: {found[stage]:.3e}", flush=True)  # noqa: T201
    return found


def main(folder, model, out, also=""):
    golden = load_file(ROOT / f"tests/golden/{model}.safetensors")
    story = json.loads((Path(out) / f"{model}.json").read_text("utf-8"))
    path = Path(out, f"synthetic.{model}.safetensors")
    if not path.exists():
        synthetic.write(model, path, 2, quiet)
    table = {}
    for name, dtype in DTYPES.items():
        comfyui = ComfyUI(folder, path, dtype)
        mine = theirs(comfyui, golden, story["prompts"], vae=model == "sd15")
        table[name] = measured(mine, f"ComfyUI {name}")
        if model != "sd15":
            first = json.loads((Path(out) / "sixteen.sd15.json").read_text("utf-8"))[name]
            table[name] |= {stage: first[stage] for stage in ("encode", "decode")}
        del comfyui
        if also == "ours":
            table[f"runner {name}"] = measured(ours(model, dtype, golden), f"runner {name}")
    text = json.dumps(table, indent=1)
    Path(out, f"sixteen.{model}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
