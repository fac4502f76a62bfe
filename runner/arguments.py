"""The options of every command, by the names of ComfyUI's nodes."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from runner.recipe import Recipe, Refused

LANGUAGES = ("en", "zh")


class Parser(argparse.ArgumentParser):
    """Bad usage is refused like any other bad input, so that --json speaks of it, too."""

    def error(self, message: str) -> NoReturn:
        raise Refused("bad-usage", f"{message}. `{self.prog} --help` lists what there is.")


def about_placement(one: Parser) -> None:
    one.add_argument("--device", help="cpu, cuda, cuda:1, mps ...; the best there is by default")
    one.add_argument("--dtype", help="float32, float16, bfloat16; ComfyUI's choice by default")


def about_levers(one: Parser) -> None:
    one.add_argument(
        "--without", action="append", default=[], metavar="LEVER",
        help="compute without what makes it faster: words, times, trunk, winograd, columns, "
        "mapped, onednn, vae, heap, kernels, qkv, graph; all for the plain network",
    )  # fmt: skip


def about_model(one: Parser) -> None:
    group = one.add_mutually_exclusive_group()
    group.add_argument(
        "--checkpoint", type=Path, help="an SD 1.x, SD 2.x or SDXL file, .safetensors or .ckpt"
    )
    group.add_argument(
        "--synthetic", metavar="MODEL", help="full-size weights made here: sd15, sd21, sdxl"
    )
    group.add_argument(
        "--embedded",
        action="store_true",
        help="a small model that comes along: draws shapes in colours, 48 pixels a side",
    )

    one.add_argument("--vae", type=Path, metavar="FILE", help="a VAE of its own")
    one.add_argument(
        "--lora", action="append", default=[], metavar="FILE[:STRENGTH[:CLIP]]",
        help="in turn, as LoraLoader nodes; strength 1 for model and text encoder by default",
    )  # fmt: skip
    one.add_argument(
        "--embeddings", type=Path, action="append", default=[], metavar="DIR",
        help="where embedding:NAME in a prompt is looked up, folders below included",
    )  # fmt: skip
    one.add_argument(
        "--predicts", choices=("eps", "v"), help="ModelSamplingDiscrete; by the file by default"
    )
    switch = argparse.BooleanOptionalAction
    one.add_argument("--zero-snr", action=switch, help="the same; by the file by default")


def about_recipe(one: Parser) -> None:
    start = Recipe("")
    one.add_argument("--image", type=Path)
    one.add_argument("--positive", help="default: one that suits the model")
    one.add_argument("--negative", default=start.negative)
    one.add_argument("--steps", type=int, default=start.steps)
    one.add_argument("--cfg", type=float, default=start.cfg)
    one.add_argument("--sampler-name", default=start.sampler_name)
    one.add_argument("--scheduler", help=f"default: {start.scheduler}; karras with --embedded")
    one.add_argument("--denoise", type=float, default=start.denoise)
    one.add_argument("--seed", type=int, default=start.seed)
    one.add_argument("--width", type=int)
    one.add_argument("--height", type=int)
    one.add_argument("--start-at-step", type=int, default=start.start_at_step)
    one.add_argument("--end-at-step", type=int, default=start.end_at_step)
    switch = argparse.BooleanOptionalAction
    one.add_argument("--add-noise", action=switch, default=start.add_noise)
    one.add_argument("--return-with-leftover-noise", action=switch, default=False)
    one.add_argument("--stop-at-clip-layer", type=int, help="CLIP skip, as ComfyUI counts: -2")
    one.add_argument("--out", type=Path, required=True, metavar="PNG")
    small = "with --progress json: a small picture of each step, too"
    one.add_argument("--glimpses", action="store_true", help=small)
    one.add_argument("--trace", type=Path, metavar="F.safetensors")
    one.add_argument(
        "--page", type=Path, metavar="DIR", help="tell the render in pictures: two HTML pages"
    )


def about_many(one: Parser) -> None:
    several = "several, with the weights loaded once; --out names a folder then"
    one.add_argument("--images", type=Path, nargs="+", metavar="F", help=several)


def about_depth(one: Parser) -> None:
    one.add_argument("--depth", type=int, choices=(1, 2, 3), default=3)


def about_judged(one: Parser) -> None:
    group = one.add_mutually_exclusive_group()
    group.add_argument(
        "--model", action="append", choices=("sd15", "sd21", "sdxl", "all"),
        help="the synthetic network to judge, of depth 2 on; sd15 by default, may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--checkpoint", dest="judge", type=Path, metavar="F",
        help="judge a checkpoint of your own: all that needs no number of ComfyUI's on it",
    )  # fmt: skip


def about_synthetic(one: Parser) -> None:
    one.add_argument("model", help="sd15, sd21 or sdxl")
    one.add_argument("--out", type=Path, required=True)


def about_workflow(one: Parser) -> None:
    one.add_argument("graph", type=Path, metavar="FILE", help="API-format JSON, or a PNG with one")
    one.add_argument(
        "--comfyui", type=Path, default=Path(), metavar="DIR",
        help="where models/, input/, output/ and temp/ are; this folder by default",
    )  # fmt: skip
    one.add_argument(
        "--models", type=Path, action="append", metavar="DIR",
        help="with checkpoints/, loras/, vae/, embeddings/; several are searched in turn",
    )  # fmt: skip
    one.add_argument("--input", type=Path, metavar="DIR", help="where LoadImage looks")
    one.add_argument("--output", type=Path, metavar="DIR", help="where SaveImage writes")
    one.add_argument("--temp", type=Path, metavar="DIR", help="where PreviewImage writes")
    one.add_argument("--trace", type=Path, metavar="F.safetensors", help="what every node gave")


def about_bench(one: Parser) -> None:
    one.add_argument(
        "--model", help="sd15, sd21, sdxl (synthetic), embedded, or a file", default="sd15"
    )
    one.add_argument(
        "--size", type=int, nargs="+", default=[64], help="pixels a side; several are timed in turn"
    )
    one.add_argument("--batch", type=int, default=1)
    one.add_argument("--steps", type=int, default=5, help="per run")
    one.add_argument("--runs", type=int, default=3)
    one.add_argument("--warmup", type=int, default=1, help="runs that are not timed")
    one.add_argument(
        "--allocators", action="store_true",
        help="NVIDIA: time torch's allocator and cudaMallocAsync, each in its own process, and say "
        "whether --disable-cuda-malloc is called for",
    )  # fmt: skip
    one.add_argument(
        "--compare", type=Path, metavar="FILE",
        help="an earlier result, or a history; runs of another machine or settings are refused",
    )  # fmt: skip
    one.add_argument(
        "--history", type=Path, metavar="FILE",
        help="keep this result in FILE, one a line, beside the newest equal one that is there",
    )  # fmt: skip


def about_prove(one: Parser) -> None:
    one.add_argument("--bench-size", type=int, default=64, help="pixels a side")
    one.add_argument("--bench-steps", type=int, default=3, help="per run")
    one.add_argument("--bench-runs", type=int, default=2)


def beside(options: argparse.Namespace) -> dict[str, Any]:
    """What the options put beside a checkpoint, by the arguments of sources.changed()."""
    there = {"vae": "vae", "lora": "loras", "predicts": "predicts", "zero_snr": "zero_snr"}
    return {to: vars(options)[name] for name, to in there.items() if name in vars(options)}


def spoken(arguments: Sequence[str]) -> str | None:
    """The language asked for, found before the options are parsed: errors are told in it, too."""
    for place, word in enumerate(arguments):
        asked = word.partition("=")[2] or "".join(arguments[place + 1 : place + 2])
        if word.partition("=")[0] == "--lang" and asked in LANGUAGES:
            return asked
    return None
