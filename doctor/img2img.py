"""Img2img: ComfyUI's graph of it, in API format. Pure.

Its ids are words, so that whatever a server says of a node can be read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Graph = dict[str, dict[str, Any]]
LATENTS = {"latents-encode": "encode", "latents-sample": "sample"}  # SaveLatent -> whose latents
PICTURE = "picture"  # the node whose output is the picture


@dataclass(frozen=True)
class Case:
    """One img2img: what is asked of the server, and of the runner. ComfyUI's names."""

    image: str = ""  # as LoadImage names it
    checkpoint: str = ""
    positive: str = "a dog with a hat"
    negative: str = "blurry, bad"
    steps: int = 4
    cfg: float = 5.0
    sampler_name: str = "euler"
    scheduler: str = "normal"
    denoise: float = 0.6
    seed: int = 42

    def other_seed(self) -> "Case":
        return replace(self, seed=self.seed + 1)

    def other_prompt(self) -> "Case":
        return replace(self, positive=f"{self.positive}, at night")


def graph(case: Case, latents: str = "") -> Graph:
    """The nodes and their links; with `latents`, a prefix for SaveLatent, two files more.

    PreviewImage writes into the server's temporary folder, which it empties itself.
    """
    nodes = {
        "checkpoint": ("CheckpointLoaderSimple", {"ckpt_name": case.checkpoint}),
        "positive": ("CLIPTextEncode", {"text": case.positive, "clip": ["checkpoint", 1]}),
        "negative": ("CLIPTextEncode", {"text": case.negative, "clip": ["checkpoint", 1]}),
        "image": ("LoadImage", {"image": case.image}),
        "encode": ("VAEEncode", {"pixels": ["image", 0], "vae": ["checkpoint", 2]}),
        "sample": ("KSampler", sampling(case)),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["checkpoint", 2]}),
        PICTURE: ("PreviewImage", {"images": ["decode", 0]}),
    }
    for node, source in LATENTS.items() if latents else ():
        saved = {"samples": [source, 0], "filename_prefix": f"{latents}/{node}"}
        nodes[node] = ("SaveLatent", saved)
    return {id: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in nodes.items()}


def sampling(case: Case) -> Mapping[str, Any]:
    links = {"model": "checkpoint", "positive": "positive", "negative": "negative"}
    return {
        **{name: [node, 0] for name, node in links.items()},
        "latent_image": ["encode", 0],
        "seed": case.seed,
        "steps": case.steps,
        "cfg": case.cfg,
        "sampler_name": case.sampler_name,
        "scheduler": case.scheduler,
        "denoise": case.denoise,
    }
