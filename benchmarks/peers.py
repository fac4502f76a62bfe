"""Guided sampler steps: ours, diffusers' and ComfyUI's own code path, in one run.

python benchmarks/peers.py --checkpoint SD15.safetensors [--sizes 256 512] [--steps 3] [--rounds 3]
    [--comfyui DIR --comfyui-python PY] [--compiled] [--out benchmarks/results/peers.json]

Each contestant is a process of its own that loads the same file once and then waits; they take
turns, in an order that rotates, so that a machine that slows down slows all of them. The first
steps of a whole run (--of 20) are walked; the first of them is not counted: some do work there for
those that follow. Same prompt, same seed, same dtype, the same number of threads. No time is
believed before the outputs agree.
The checkpoint: `python -m runner synthetic sd15 --out SD15.safetensors`.

ComfyUI needs torchvision and torchaudio to be imported; where they are absent an empty stand-in
is put in their place, and said. Nothing of them is used in a step.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from record import record

POSITIVE, NEGATIVE = "a dog with a hat", "a dog without a hat"
CFG, SAMPLER, SCHEDULER = 7.0, "euler", "normal"
AGREE = 1e-4  # relative rms of the last latent
ANSWER = "@answer "

# seconds of each step, and the last latent (scaled), from a size, how many steps are walked, of how
# many, and a seed
Turn = Callable[[int, int, int, int], tuple[list[float], Any]]


def ours(file: Path, levers: str) -> Turn:
    import torch

    from runner import checkpoint, devices, heap, pipeline
    from runner.guidance import guide
    from runner.noise import Dice, first_noise
    from runner.samplers import SAMPLERS
    from runner.schedules import walk

    placement = devices.choose(dtype=None)
    models = pipeline.load(checkpoint.read(file), placement, torch.get_num_threads(), quiet)
    denoiser = models.denoiser.without(levers.split(",") if levers else ())
    if "heap" in denoiser.levers:
        heap.keep()

    @torch.inference_mode()
    def turn(size: int, steps: int, of: int, seed: int) -> tuple[list[float], Any]:
        latent = torch.zeros(1, 4, size // 8, size // 8)
        read = [models.text.encode(text) for text in (POSITIVE, NEGATIVE)]
        wanted, unwanted = (pipeline.prompt(models, *one, latent) for one in read)
        sigmas = walk(denoiser.table, SCHEDULER, SAMPLER, of, 1.0)
        x = pipeline.noised(latent, first_noise(seed, latent), sigmas[0], denoiser.table)
        x = x.to(placement.device)
        with devices.small_convolutions(placement.device, latent):
            guided = guide(denoiser.quick(sigmas), wanted, unwanted, CFG)
            walked = SAMPLERS[SAMPLER](guided, x, sigmas[: steps + 1], Dice(seed, x))
            return timed(walked, lambda: devices.settle(placement.device))

    return turn


def diffusers(file: Path, compiled: bool) -> Turn:
    import torch
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    from safetensors import safe_open

    from runner import checkpoint, devices, pipeline
    from runner.guidance import Denoiser, Prompt, guide
    from runner.noise import Dice, first_noise
    from runner.samplers import SAMPLERS
    from runner.schedules import walk

    placement = devices.choose(dtype=None)
    models = pipeline.load(checkpoint.read(file), placement, torch.get_num_threads(), quiet)
    with torch.inference_mode():
        wanted, unwanted = (Prompt(models.text.encode(text)[0]) for text in (POSITIVE, NEGATIVE))
    table = models.denoiser.table
    del models  # its weights are not needed twice
    with torch.device("meta"):
        widths = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768}
        unet = UNet2DConditionModel(attention_head_dim=8, **widths)
    with safe_open(file, "pt") as whole:
        prefix = "model.diffusion_model."
        weights = {k: whole.get_tensor(k) for k in whole.keys() if k.startswith(prefix)}  # noqa: SIM118
    weights = {k: v.to(placement.unet) for k, v in weights.items()}
    renamed = convert_ldm_unet_checkpoint(weights, unet.config)
    unet.load_state_dict(renamed, strict=True, assign=True)
    unet = unet.eval().to(placement.device)
    if compiled:
        unet = torch.compile(unet)

    def plain(x: Any, t: Any, text: Any, label: Any) -> Any:
        return unet(x, t, text, return_dict=False)[0]

    @torch.inference_mode()
    def turn(size: int, steps: int, of: int, seed: int) -> tuple[list[float], Any]:
        """Its UNet in our sampler, whose arithmetic is a millionth of a step."""
        latent = torch.zeros(1, 4, size // 8, size // 8)
        sigmas = walk(table, SCHEDULER, SAMPLER, of, 1.0)[: steps + 1]
        x = pipeline.noised(latent, first_noise(seed, latent), sigmas[0], table)
        x = x.to(placement.device)
        theirs = Denoiser(plain, table, placement.unet)
        walked = SAMPLERS[SAMPLER](guide(theirs, wanted, unwanted, CFG), x, sigmas, Dice(seed, x))
        return timed(walked, lambda: devices.settle(placement.device))

    return turn


def comfyui(file: Path, folder: Path) -> Turn:
    """Its own loader, text encoder, sampling and model management, as `main.py` has them."""
    import torch

    sys.path.insert(0, str(folder))
    cuda = torch.cuda.is_available()
    sys.argv = ["main.py"] if cuda else ["main.py", "--cpu"]
    import transformers  # noqa: F401 - it asks what is installed before anything stands in

    for name in ("torchvision", "torchaudio"):
        if importlib.util.find_spec(name) is None:
            stand_in(name)
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.sample
    import comfy.sd

    model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(str(file), output_vae=False)
    said = [clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in (POSITIVE, NEGATIVE)]

    def turn(size: int, steps: int, of: int, seed: int) -> tuple[list[float], Any]:
        latent = torch.zeros(1, 4, size // 8, size // 8)
        noise = comfy.sample.prepare_noise(latent, seed)
        marks: list[float] = []

        def callback(step: int, x0: Any, x: Any, total: int) -> None:
            if cuda:
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

        with torch.inference_mode():
            out = comfy.sample.sample(
                model, noise, of, CFG, SAMPLER, SCHEDULER, said[0], said[1], latent,
                last_step=steps, callback=callback, disable_pbar=True, seed=seed,
            )  # fmt: skip
        # the callback comes after each model call: from one to the next is a whole step
        return [b - a for a, b in itertools.pairwise(marks)], out * 0.18215

    return turn


def stand_in(name: str) -> None:
    """A module in which every name is there and none does anything."""

    class Nothing(types.ModuleType):
        def __getattr__(self, inner: str) -> Any:
            if inner.startswith("__") and inner != "__path__":
                raise AttributeError(inner)
            if inner == "__path__":  # a package, whatever is asked of it
                return []
            return Nothing(f"{self.__name__}.{inner}")

        def __call__(self, *_: object, **__: object) -> "Nothing":
            return self

    for inner in (name, f"{name}.transforms", f"{name}.functional"):
        sys.modules[inner] = Nothing(inner)
    print(f"{name} is not installed: an empty stand-in takes its place", file=sys.stderr)


def timed(walked: Any, settle: Callable[[], None]) -> tuple[list[float], Any]:
    seconds, latents = [], []
    settle()
    start = time.perf_counter()
    for latent in walked:
        settle()
        seconds.append(time.perf_counter() - start)
        latents.append(latent)
        start = time.perf_counter()
    return seconds[1:], latents[-1]


def quiet(*_: object) -> None:
    """Progress that nobody looks at."""


def sgemm(seconds: float = 1.0) -> float:
    """GFLOP/s of a large float32 product on this machine, now: the best of many, by torch's BLAS
    and by oneDNN, whichever is faster.
    """
    import torch

    from runner.products import product

    side, best = 2048, float("inf")
    a, b = torch.randn(side, side), torch.randn(side, side)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for by in (torch.mm, product):
            start = time.perf_counter()
            by(a, b)
            best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e9


def works(options: argparse.Namespace) -> int:
    """A contestant: loads, then answers one line of JSON for each it is given."""
    import torch

    torch.set_num_threads(options.threads)
    with contextlib.redirect_stdout(sys.stderr):
        if options.worker.startswith("ours"):
            turn = ours(options.checkpoint, options.worker.partition(":")[2])
        elif options.worker == "comfyui":
            turn = comfyui(options.checkpoint, options.comfyui)
        else:
            turn = diffusers(options.checkpoint, options.worker == "diffusers compiled")
    print(ANSWER + "{}", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        with contextlib.redirect_stdout(sys.stderr):
            seconds, latent = turn(asked["size"], asked["steps"], asked["of"], asked["seed"])
        told = {"seconds": seconds, "gflops": sgemm() if options.worker == "ours" else None}
        torch.save(latent.float().cpu(), asked["out"])
        print(ANSWER + json.dumps(told), flush=True)
    return 0


class Contestant:
    def __init__(self, name: str, words: list[str]):
        self.name = name
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        self.run = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.run.stdout
        for line in self.run.stdout:
            if line.startswith(ANSWER):
                told: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
                return told
        raise SystemExit(f"{self.name} ended with {self.run.wait()}")

    def asked(self, **words: object) -> dict[str, Any]:
        assert self.run.stdin
        print(json.dumps(words), file=self.run.stdin, flush=True)
        return self.answer()


FLOPS = {256: 0.3434e12, 512: 1.6065e12}  # of a guided step of SD 1.5: torch.utils.flop_counter


def rounds(options: argparse.Namespace, names: list[str], size: int) -> dict[str, Any]:
    """Every raw number for one size. Loaded anew, so that none profits from another size."""
    here = Path(__file__).resolve()
    base = ["--checkpoint", options.checkpoint, "--threads", options.threads]
    there = []
    for name in names:
        python = options.comfyui_python if name == "comfyui" else sys.executable
        more = ["--comfyui", options.comfyui] if name == "comfyui" else []
        words = [python, here, "--worker", name, *base, *more]
        there.append(Contestant(name, [str(word) for word in words]))
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    ceilings, gaps = [], {}
    try:
        for number in range(options.rounds + 1):  # the first warms up
            turn = number % len(there)
            for one in there[turn:] + there[:turn]:
                out = options.folder / f"{one.name.replace(':', ' ')}.pt"
                walk = {"steps": options.steps + 1, "of": options.of, "seed": number}
                told = one.asked(size=size, out=str(out), **walk)
                if number:
                    seconds[one.name].append(told["seconds"])
                ceilings += [told["gflops"]] if told["gflops"] else []
                print(f"{size} round {number} {one.name}: {median(told['seconds']):.3f} s")
            gaps = agreement(options.folder, names)
    finally:
        for one in there:
            one.run.terminate()
    return {"seconds": seconds, "gflops": ceilings, "gaps": gaps}


def agreement(folder: Path, names: list[str]) -> dict[str, float]:
    import torch

    first, *others = (torch.load(folder / f"{n.replace(':', ' ')}.pt") for n in names)
    found = {
        name: float((other - first).norm() / first.norm())
        for name, other in zip(names[1:], others, strict=True)
    }
    for name, gap in found.items():
        if not gap <= AGREE:
            raise SystemExit(f"{name} paints another picture: relative rms {gap:.1e}")
    return found


def told(size: int, found: dict[str, Any]) -> dict[str, Any]:
    """Medians, and ratios taken round by round."""
    rows = {name: [median(one) for one in runs] for name, runs in found["seconds"].items()}
    base = rows["ours"]
    ceiling = median(found["gflops"])
    answer = {
        "size": size,
        "seconds_a_step": {name: median(row) for name, row in rows.items()},
        "times_ours": {
            name: [theirs / mine for theirs, mine in zip(row, base, strict=True)]
            for name, row in rows.items()
            if name != "ours"
        },
        "sgemm_gflops": ceiling,
        "relative_rms": found["gaps"],
        "raw": found["seconds"],
    }
    if size in FLOPS:
        answer["share_of_sgemm"] = FLOPS[size] / median(base) / 1e9 / ceiling
    for name, ratios in answer["times_ours"].items():
        print(f"{size}: {name} takes {median(ratios):.2f} × ours ({min(ratios):.2f} to "
              f"{max(ratios):.2f}), outputs {found['gaps'][name]:.1e} apart")  # fmt: skip
    if "share_of_sgemm" in answer:
        print(f"{size}: ours {median(base):.3f} s, {answer['share_of_sgemm']:.0%} of sgemm's rate")
    return answer


def versions(names: list[str], folder: Path) -> dict[str, str]:
    import diffusers
    import torch

    told = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    return told | (
        {"comfyui": "0.3.64, its own sampling on --cpu or the GPU"} if "comfyui" in names else {}
    )


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--checkpoint", type=Path, required=True)
    words.add_argument("--comfyui", type=Path)
    words.add_argument("--comfyui-python", default=sys.executable)
    words.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    words.add_argument("--steps", type=int, default=3)
    words.add_argument("--of", type=int, default=20, help="steps of the whole run")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--threads", type=int, default=os.cpu_count())
    words.add_argument("--compiled", action="store_true", help="diffusers under torch.compile too")
    words.add_argument("--without", nargs="*", default=[], help="ours again without these levers")
    words.add_argument("--folder", type=Path, default=Path("build"), help="for the latents")
    words.add_argument("--out", type=Path)
    words.add_argument("--worker", help=argparse.SUPPRESS)
    options = words.parse_args()
    if options.steps >= options.of:
        words.error(f"--steps {options.steps} and the first one are more than --of {options.of}.")
    if options.worker:
        return works(options)
    options.folder.mkdir(exist_ok=True)
    names = ["ours", "diffusers", *(["diffusers compiled"] if options.compiled else [])]
    names += ["comfyui"] if options.comfyui else []
    names += [f"ours:{lever}" for lever in options.without]
    results = [told(size, rounds(options, names, size)) for size in options.sizes]
    if options.out:
        sizes = " ".join(map(str, options.sizes))
        command = f"python benchmarks/peers.py --sizes {sizes} --steps {options.steps}"
        command += f" --of {options.of} --threads {options.threads} --rounds {options.rounds}"
        command += " --compiled" * options.compiled
        record(
            options.out, command, {"peers": versions(names, options.comfyui), "results": results}
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
