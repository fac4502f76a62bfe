"""What a real ComfyUI makes of the same files: run by its own interpreter, from this repository.

    COMFYUI_PYTHON tests/runner/comfyui.py COMFYUI_DIR lora CHECKPOINT LORA STRENGTH OUT
    COMFYUI_PYTHON tests/runner/comfyui.py COMFYUI_DIR names CHECKPOINT OUT
    COMFYUI_PYTHON tests/runner/comfyui.py COMFYUI_DIR graph FOLDER GRAPH.json OUT
    COMFYUI_PYTHON tests/runner/comfyui.py COMFYUI_DIR kinds NAMES.json OUT
    COMFYUI_PYTHON tests/runner/comfyui.py COMFYUI_DIR dtypes CARDS.json OUT
    COMFYUI_PYTHON tests/runner/comfyui.py COMFYUI_DIR tokens PROMPTS.json FOLDER OUT
    COMFYUI_PYTHON tests/runner/comfyui.py COMFYUI_DIR steps CHECKPOINT ASKED.json GOLDEN OUT

`lora` gives every weight that LoraLoader changes; `graph` runs a graph node by node on the CPU
and gives what each node gave; `dtypes` asks model_management for each card; `tokens` gives
checksums of prompts' tokens; `steps` gives the state between the steps of golden runs and the
guided denoiser on a latent of odd size. torchvision and torchaudio are stood in for where they
are missing.
"""

import importlib.util
import json
import sys
import types
import zlib
from pathlib import Path


def stand_in():
    """Empty modules for what ComfyUI imports and these nodes do not use."""

    class Anything(types.ModuleType):
        __path__ = ()

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return Anything(f"{self.__name__}.{name}")

        def __call__(self, *_, **__):
            return self

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in missing:
                return importlib.util.spec_from_loader(name, self)
            return None

        def create_module(self, spec):
            return Anything(spec.name)

        def exec_module(self, module):
            pass

    missing = {n for n in ("torchvision", "torchaudio") if importlib.util.find_spec(n) is None}
    sys.meta_path.insert(0, Finder())


def start(folder, *flags):
    """Import ComfyUI's modules, on the CPU, with PyTorch's attention."""
    sys.path.insert(0, str(folder))
    sys.argv = ["main.py", "--cpu", "--use-pytorch-cross-attention", *flags]
    stand_in()
    import comfy.options

    comfy.options.enable_args_parsing()


def known(checkpoint):
    """(UNet's weights, text encoders' weights, alias -> key), all by ComfyUI's own names."""
    import comfy.lora
    import comfy.model_detection
    import comfy.utils
    from safetensors.torch import load_file

    stored = load_file(checkpoint)
    prefix = "model.diffusion_model."
    config = comfy.model_detection.detect_unet_config(stored, prefix)
    unet = {k.replace(prefix, "diffusion_model."): v for k, v in stored.items() if prefix in k}
    text = dict(towers(stored, comfy.utils))

    class Model:
        def __init__(self, weights):
            self.weights = weights
            self.model_config = types.SimpleNamespace(unet_config=config)

        def state_dict(self):
            return self.weights

    keys = comfy.lora.model_lora_keys_unet(Model(unet), {})
    return unet, text, comfy.lora.model_lora_keys_clip(Model(text), keys)


def towers(stored, utils):
    for start, tower in (
        ("cond_stage_model.transformer.", "clip_l."),
        ("conditioner.embedders.0.transformer.", "clip_l."),
        ("cond_stage_model.model.", "clip_h."),
        ("conditioner.embedders.1.model.", "clip_g."),
    ):
        part = {k.replace(start, "x."): v for k, v in stored.items() if k.startswith(start)}
        name = f"{tower}transformer."
        if tower == "clip_l.":
            part = {k.replace("x.", name): v for k, v in part.items()}
        yield from utils.clip_text_transformers_convert(part, "x.", name).items()


def names(checkpoint, out):
    """alias -> [key, shape] of all that a LoRA file may change."""
    unet, text, keys = known(checkpoint)
    told = {alias: [key, list((unet | text)[key].shape)] for alias, key in keys.items()
            if key in unet or key in text}  # fmt: skip
    out.write_text(json.dumps(told))


def lora(checkpoint, file, strength, out):
    """Every changed weight by ComfyUI's name, as LoraLoader would change it."""
    import comfy.lora
    import torch
    from safetensors.torch import load_file, save_file

    unet, text, keys = known(checkpoint)
    weights, changed = unet | text, {}
    for key, patch in comfy.lora.load_lora(load_file(file), keys).items():
        if key in weights:
            weight = weights[key].to(torch.float32, copy=True)
            patches = [(strength, patch, 1.0, None, None)]
            changed[key] = comfy.lora.calculate_weight(patches, weight, key).contiguous()
    save_file(changed, out)


def graph(folder, path, out):
    """Run a graph node by node, and keep what each gave."""
    import torch
    from safetensors.torch import save_file

    rows, kinds, kept = json.loads(path.read_text("utf-8")), there(folder), {}
    drawn = path.with_suffix(".ui.json")
    more = {"workflow": json.loads(drawn.read_text())} if drawn.exists() else {}
    with torch.inference_mode():
        run(rows, kinds, more, kept)
    save_file({name: value.contiguous() for name, value in kept.items()}, out)


def there(folder):
    """The kinds of nodes, looking into a folder laid out as ComfyUI's."""
    import folder_paths
    import nodes
    from comfy_extras import nodes_model_advanced

    for kind in ("checkpoints", "loras", "vae", "embeddings"):
        folder_paths.add_model_folder_path(kind, str(folder / "models" / kind), is_default=True)
    folder_paths.set_input_directory(str(folder / "input"))
    folder_paths.set_output_directory(str(folder / "comfyui"))
    return nodes.NODE_CLASS_MAPPINGS | nodes_model_advanced.NODE_CLASS_MAPPINGS


def kinds(known, out):
    """kind -> {inputs: name -> [type, limits and default], outputs} of the kinds asked for."""
    (out.parent / "input").mkdir(exist_ok=True)
    nodes, told = there(out.parent), {}
    for kind in json.loads(known.read_text()):
        inputs = {}
        for name, (type, *more) in nodes[kind].INPUT_TYPES()["required"].items():
            about = {k: v for k, v in (more or [{}])[0].items() if k in KEPT}
            choices = type if isinstance(type, (list, tuple)) else None
            named = name.endswith("_name") or name == "image"  # of files, or of samplers
            about |= {"choices": list(choices)} if choices and not named else {}
            inputs[name] = ["COMBO" if choices is not None else str(type), about]
        told[kind] = {"inputs": inputs, "outputs": [str(one) for one in nodes[kind].RETURN_TYPES],
                      "saves": bool(getattr(nodes[kind], "OUTPUT_NODE", False))}  # fmt: skip
    out.write_text(json.dumps(told, indent=1) + "\n")


KEPT = ("default", "min", "max", "control_after_generate", "image_upload")


def run(rows, kinds, more, kept):
    values = {}

    def value(id):
        if id not in values:
            kind, inputs = rows[id]["class_type"], rows[id]["inputs"]
            given = {
                name: value(one[0])[one[1]] if isinstance(one, list) else one
                for name, one in inputs.items()
            }
            if kind == "SaveImage":
                given |= {"prompt": rows, "extra_pnginfo": more}
            values[id] = getattr(kinds[kind](), kinds[kind].FUNCTION)(**given)
            kept.update(keep(id, values[id]))
        return values[id]

    for id, row in rows.items():
        if row["class_type"] == "SaveImage":
            value(id)


def keep(id, given):
    """The tensors in what a node gave."""
    first = given[0] if isinstance(given, tuple) and given else None
    if isinstance(first, dict) and "samples" in first:
        yield f"node/{id}", first["samples"]
    elif isinstance(first, list):
        yield f"node/{id}", first[0][0]
        yield f"node/{id}/pooled", first[0][1]["pooled_output"]
    elif type(first).__name__ == "Tensor":
        yield f"node/{id}", first


def dtypes(path, out):
    """[denoiser, its arithmetic, VAE] for each card, as ComfyUI chooses them."""
    from unittest import mock

    import comfy.model_management as manager
    import torch

    manager.cpu_state = manager.CPUState.GPU
    device, told = torch.device("cuda"), []
    supported = [torch.float16, torch.bfloat16, torch.float32]
    for card in json.loads(path.read_text()):
        about = types.SimpleNamespace(
            name=card["name"], major=card["major"], minor=card["minor"], gcnArchName="",
            total_memory=card["memory"],
        )  # fmt: skip
        stored = getattr(torch, card["stored"])
        always = mock.Mock
        with (
            mock.patch("torch.cuda.get_device_properties", always(return_value=about)),
            mock.patch("torch.cuda.is_bf16_supported", always(return_value=True)),
            mock.patch.object(manager, "get_total_memory", always(return_value=card["memory"])),
            mock.patch.object(manager, "WINDOWS", card["windows"]),
            mock.patch.object(
                manager, "EXTRA_RESERVED_VRAM", (600 if card["windows"] else 400) * 2**20
            ),
        ):
            unet = manager.unet_dtype(device, card["weights"], supported, stored)
            cast = manager.unet_manual_cast(unet, device, supported)
            vae = manager.vae_dtype(device, [torch.bfloat16, torch.float32])
        told.append([str(one).removeprefix("torch.") for one in (unet, cast or unet, vae)])
    out.write_text(json.dumps(told))


def tokens(path, folder, out):
    """The checksum of every prompt's chunks of (id, or two numbers of a vector; weight)."""
    import comfy.sd1_clip

    reader = comfy.sd1_clip.SDTokenizer(embedding_directory=str(folder))
    told = []
    for prompt in json.loads(path.read_text("utf-8")):
        rows = reader.tokenize_with_weights(prompt)
        told.append(zlib.crc32(repr([[plain(*token) for token in row] for row in rows]).encode()))
    out.write_text(json.dumps(told))


def steps(checkpoint, asked, golden, out):
    """run/I/step/N, the sampler's state after step N; odd/x and odd/denoised/sigma=S at cfg 5."""
    import comfy.sample
    import comfy.samplers
    import comfy.sd
    import torch
    from safetensors.torch import load_file, save_file

    told, known, kept = json.loads(asked.read_text("utf-8")), load_file(golden), {}
    model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_vae=False)
    positive, negative = (
        clip.encode_from_tokens_scheduled(clip.tokenize(told["prompts"][one]))
        for one in ("plain", "negative")
    )
    latent = known["latent/input"]
    for place, row in enumerate(told["runs"]):

        def seen(step, denoised, x, of, place=place):
            if step:  # what is shown before the first step is noise on the latent
                kept[f"run/{place}/step/{step}"] = x.clone()

        noise = comfy.sample.prepare_noise(latent, row["seed"])
        comfy.sample.sample(
            model, noise, row["steps"], row["cfg"], row["sampler"], row["scheduler"],
            positive, negative, latent, denoise=row["denoise"], seed=row["seed"], callback=seen,
            disable_pbar=True,
        )  # fmt: skip

    def probed(denoise, x, sigmas, extra_args, **_):
        for sigma in told["probes"]:
            level = x.new_tensor(sigma)
            kept[f"odd/denoised/sigma={sigma}"] = denoise(
                odd * (level**2 + 1) ** 0.5, level[None], **extra_args
            )
        return x

    odd = torch.randn(told["odd"], generator=torch.Generator().manual_seed(9))
    kept["odd/x"] = odd
    comfy.sample.sample_custom(
        model, torch.zeros_like(odd), 5.0, comfy.samplers.KSAMPLER(probed), torch.ones(2),
        positive, negative, torch.zeros_like(odd), disable_pbar=True,
    )  # fmt: skip
    save_file({name: value.contiguous() for name, value in kept.items()}, out)


def plain(token, weight):
    return token if isinstance(token, int) else [float(n) for n in token[:2]], weight


if __name__ == "__main__":
    home, command, *more = sys.argv[1:]
    start(Path(home))
    if command == "lora":
        lora(*more[:2], float(more[2]), more[3])
    else:
        commands = {"names": names, "kinds": kinds, "graph": graph, "dtypes": dtypes}
        (commands | {"tokens": tokens, "steps": steps})[command](*map(Path, more))
