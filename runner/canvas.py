"""Canvas: a graph drawn as ComfyUI's interface keeps it, so that a picture opens with its boxes.

The API format says what runs; the interface's (LiteGraph's, version 0.4) says where boxes lie,
too, and names inputs by place. Both go into a picture's text chunks, as SaveImage writes them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from runner.graph import Graph, Link, Node, parse
from runner.nodes import NODES, TURNS, Widget
from runner.recipe import Recipe

COLUMN, ROW = 380, 60  # pixels between boxes; a row for each line of a box
BEHIND = {"LoadImage": ("image",)}  # entries the interface keeps behind the widgets of a kind


def chunks(graph: Graph) -> dict[str, str]:
    """The text chunks of a picture: `prompt` in API format, `workflow` in the interface's."""
    return {"prompt": json.dumps(graph.source), "workflow": json.dumps(drawn(graph))}


def drawn(graph: Graph) -> dict[str, Any]:
    """The graph in the interface's format, laid out from left to right in order of running."""
    ids = numbered(graph)
    depths = columns(graph)
    links: list[list[Any]] = []
    boxes = {id: box(one, ids[id], place) for place, (id, one) in enumerate(graph.nodes.items())}
    for id, one in graph.nodes.items():
        for place, (name, link) in enumerate(sockets(one)):
            type = NODES[graph.nodes[link.node].kind].outputs[link.slot]
            number = len(links) + 1
            links.append([number, ids[link.node], link.slot, ids[id], place, type])
            boxes[id]["inputs"].append({"name": name, "type": type, "link": number})
            boxes[link.node]["outputs"][link.slot]["links"].append(number)
    heights = [100] * (1 + max(depths.values()))
    for id, drawing in boxes.items():
        drawing["pos"] = [100 + COLUMN * depths[id], heights[depths[id]]]
        heights[depths[id]] += drawing["size"][1] + ROW
    return {
        "last_node_id": max(ids.values()),
        "last_link_id": len(links),
        "nodes": list(boxes.values()),
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def box(one: Node, id: int, order: int) -> dict[str, Any]:
    values = list(widget_values(one))
    outputs = [
        {"name": type, "type": type, "links": [], "slot_index": slot}
        for slot, type in enumerate(NODES[one.kind].outputs)
    ]
    rows = len(values) + max(len(outputs), len(one.links))
    return {
        "id": id,
        "type": one.kind,
        "size": [320, 40 + 24 * rows + (140 if one.kind == "CLIPTextEncode" else 0)],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [],
        "outputs": outputs,
        "properties": {"Node name for S&R": one.kind},
        "widgets_values": values,
    }


def sockets(one: Node) -> Iterator[tuple[str, Link]]:
    """A node's links in the order of its inputs."""
    for name, wanted in NODES[one.kind].inputs.items():
        if not isinstance(wanted, Widget):
            yield name, one.links[name]


def widget_values(one: Node) -> Iterator[Any]:
    """What the interface keeps of a node's widgets: by place, with its own entries between."""
    for name, wanted in NODES[one.kind].inputs.items():
        if isinstance(wanted, Widget):
            yield wanted.typed(one.inputs[name])
            if wanted.rolls:
                yield "fixed"
    yield from BEHIND.get(one.kind, ())


def numbered(graph: Graph) -> dict[str, int]:
    """A number for every node: its own where it is one, as the interface gives them."""
    own = {id: int(id) for id in graph.nodes if id.isascii() and id.isdigit() and len(id) < 9}
    unique = {id: number for id, number in own.items() if str(number) == id}
    free = (number for number in count(1) if number not in set(unique.values()))
    return {id: unique[id] if id in unique else next(free) for id in graph.nodes}


def columns(graph: Graph) -> dict[str, int]:
    """How far each node is from the left: one more than what it comes from."""
    depths: dict[str, int] = {}
    for id, one in graph.nodes.items():
        depths[id] = 1 + max((depths[link.node] for link in one.links.values()), default=-1)
    return depths


@dataclass(frozen=True)
class Files:
    """What a render is made from, besides its recipe; of each path the name goes into a graph."""

    checkpoint: str
    image: str
    vae: str | None = None
    loras: tuple[tuple[str, float, float], ...] = ()  # file, strength for model and text encoder
    sampling: tuple[str, bool] | None = None  # ModelSamplingDiscrete's, if it differs


def of_recipe(recipe: Recipe, files: Files) -> Graph:
    """The graph that makes in ComfyUI what a recipe makes here."""
    rows: dict[str, Any] = {}

    def node(kind: str, **inputs: Any) -> str:
        id = str(len(rows) + 1)
        rows[id] = {"class_type": kind, "inputs": inputs}
        return id

    source = node("CheckpointLoaderSimple", ckpt_name=Path(files.checkpoint).name)
    model, clip, coder = [source, 0], [source, 1], [source, 2]
    if files.vae:
        coder = [node("VAELoader", vae_name=Path(files.vae).name), 0]
    for path, strong, strong_clip in files.loras:
        strengths = {"strength_model": strong, "strength_clip": strong_clip}
        name = Path(path).name
        changed = node("LoraLoader", model=model, clip=clip, lora_name=name, **strengths)
        model, clip = [changed, 0], [changed, 1]
    if files.sampling:
        sampling, zsnr = files.sampling
        model = [node("ModelSamplingDiscrete", model=model, sampling=sampling, zsnr=zsnr), 0]
    if recipe.stop_at_clip_layer is not None:
        layer = recipe.stop_at_clip_layer
        clip = [node("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=layer), 0]
    prompts = {
        name: [node("CLIPTextEncode", text=text, clip=clip), 0]
        for name, text in (("positive", recipe.positive), ("negative", recipe.negative))
    }
    pixels = [node("LoadImage", image=Path(files.image).name), 0]
    if recipe.width or recipe.height:
        sides = {"width": recipe.width or 0, "height": recipe.height or 0}
        more = {"upscale_method": "lanczos", "crop": "disabled"}
        pixels = [node("ImageScale", image=pixels, **more, **sides), 0]
    latent = [node("VAEEncode", pixels=pixels, vae=coder), 0]
    kind, inputs = sampler(recipe)
    sampled = node(kind, model=model, latent_image=latent, **prompts, **inputs)
    out = node("VAEDecode", samples=[sampled, 0], vae=coder)
    node("SaveImage", images=[out, 0], filename_prefix="ComfyUI")
    return parse(json.dumps(rows))


def sampler(recipe: Recipe) -> tuple[str, Mapping[str, Any]]:
    """KSampler where it says everything, else KSamplerAdvanced, and the values in it."""
    names = ("steps", "cfg", "sampler_name", "scheduler")
    same = {name: getattr(recipe, name) for name in names}
    plain = Recipe("")
    parts = ("start_at_step", "end_at_step", "add_noise", "return_with_leftover_noise")
    if all(getattr(recipe, name) == getattr(plain, name) for name in parts):
        return "KSampler", {**same, "seed": recipe.seed, "denoise": recipe.denoise}
    return "KSamplerAdvanced", {
        **same,
        "noise_seed": recipe.seed,
        "start_at_step": recipe.start_at_step,
        "end_at_step": recipe.end_at_step,
        "add_noise": TURNS[not recipe.add_noise],
        "return_with_leftover_noise": TURNS[not recipe.return_with_leftover_noise],
    }
