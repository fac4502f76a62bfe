"""Graphs for tests: ComfyUI's img2img in API format, small enough for a small checkpoint."""

from copy import deepcopy

IMG2IMG = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "small.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a (red:1.3) cat", "clip": ["1", 1]}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "a dog", "clip": ["1", 1]}},
    "4": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
    "5": {"class_type": "VAEEncode", "inputs": {"pixels": ["4", 0], "vae": ["1", 2]}},
    "6": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["1", 0],
            "seed": 3,
            "steps": 2,
            "cfg": 7.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "positive": ["2", 0],
            "negative": ["3", 0],
            "latent_image": ["5", 0],
            "denoise": 0.6,
        },
    },
    "7": {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0], "vae": ["1", 2]}},
    "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "out"}},
}


def changed(**nodes):
    """IMG2IMG with some inputs of some nodes replaced: changed(n6={"steps": 3}); None removes."""
    rows = deepcopy(IMG2IMG)
    for id, inputs in nodes.items():
        here = rows[id[1:]]["inputs"]
        for name, value in inputs.items():
            here[name] = value
            if value is None:
                del here[name]
    return rows


def added(*kinds, **nodes):
    """changed(**nodes), with nodes of (id, class_type, inputs) more."""
    rows = changed(**nodes)
    for id, kind, inputs in kinds:
        rows[id] = {"class_type": kind, "inputs": inputs}
    return rows
