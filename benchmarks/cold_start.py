"""Cold start: from the start of a process to what a smoke test waits for, ours beside others'.

python benchmarks/cold_start.py --checkpoint SD15.safetensors --comfyui DIR [--rounds 3]
    [--python PY] [--only embedded full disk] [--out benchmarks/results/cold_start.json]

Two waits, each in new processes of one interpreter, in turn, in an order that rotates:

embedded   `render --embedded` to its verdict, beside a bare `import torch`
full       a full-size SD 1.5 from a file at 256 x 256 to its first finished step, beside ComfyUI
           as it is started: `main.py --cpu`, the same img2img queued as soon as it answers, until
           its websocket tells of the first step; and beside its own loader, text encoder, VAE and
           sampler called from a script, without its server and its nodes, which nobody does

disk       the same, the file read from the disk: it is dropped from the system's memory before

For `full` the file is read once before, so that all find it in the system's memory. As many threads
as torch takes by itself. The checkpoint: `python -m runner synthetic sd15 --out SD15.safetensors`.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

from peers import CFG, NEGATIVE, POSITIVE, SAMPLER, SCHEDULER, stand_in
from record import record

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # the tests' own, and nothing of it where ComfyUI runs
SIZE, DENOISE, SEED = 256, 0.6, 0
MARK = "@mark "
Stages = dict[str, float]  # name -> seconds, in order; together they are the whole wait


def bare(options: argparse.Namespace) -> Stages:
    start = time.perf_counter()
    subprocess.run([options.python, "-c", "import torch"], check=True, cwd=ROOT)
    return {"import torch": time.perf_counter() - start}


def embedded(options: argparse.Namespace) -> Stages:
    """To the end of the process, its picture written and its verdict said."""
    out = options.folder / "embedded.png"
    words = ["render", "--embedded", "--out", str(out), "--json", "--progress", "none"]
    start = time.perf_counter()
    run = subprocess.run(
        [options.python, "-m", "runner", *words], cwd=ROOT, capture_output=True, check=True
    )
    whole = time.perf_counter() - start
    told = json.loads(run.stdout)
    if not told["finite"]:
        raise SystemExit("the picture is not finite")
    inside = {name: told["seconds"][name] for name in ("weights", "text", "encode")}
    inside |= {name: told["seconds"][name] for name in ("sample", "decode")}
    return {"start, imports, picture": whole - sum(inside.values()), **inside}


def ours(options: argparse.Namespace) -> Stages:
    """A whole render, looked at until its first step; the rest of it is let run."""
    recipe = {
        "positive": POSITIVE, "negative": NEGATIVE, "steps": options.steps, "cfg": CFG,
        "sampler-name": SAMPLER, "scheduler": SCHEDULER, "denoise": DENOISE, "seed": SEED,
        "width": SIZE, "height": SIZE,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in recipe.items()]
    words += [f"--checkpoint={options.checkpoint}", f"--image={options.image}"]
    words += [f"--out={options.folder / 'ours.png'}", "--json", "--progress=json"]
    start = time.perf_counter()
    marks: Stages = {}
    with subprocess.Popen(
        [options.python, "-m", "runner", "render", *words],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        assert run.stderr
        assert run.stdout
        for line in run.stderr:
            if not line.startswith("@progress "):
                continue
            told = json.loads(line.removeprefix("@progress "))
            marks.setdefault("first " + told["stage"], time.perf_counter() - start)
            marks[told["stage"]] = time.perf_counter() - start
        seconds = json.loads(run.stdout.read())["seconds"]
    read = {"weights": marks["weights"] - seconds["weights"]}
    stages = {"start, imports, table": read["weights"], "weights": seconds["weights"]}
    stages |= {"text": seconds["text"], "encode": seconds["encode"]}
    return {**stages, "first step": marks["first step"] - sum(stages.values())}


def comfyui(options: argparse.Namespace) -> Stages:
    """ComfyUI's own server, and the graph in its queue, until it tells of the first step."""
    from doctor.api import Server
    from doctor.img2img import Case, graph
    from doctor.mirrors import Unreachable
    from doctor.prompt import execute
    from tests.lab.mains import free_port

    place, python = installed(options)
    port, marks = free_port(), {}
    case = Case(
        options.image.name, options.checkpoint.name, POSITIVE, NEGATIVE, options.steps, CFG,
        SAMPLER, SCHEDULER, DENOISE, SEED,
    )  # fmt: skip
    log = (options.folder / "server.log").open("wb")
    start = time.perf_counter()
    server = Server(f"http://127.0.0.1:{port}")
    words = [python, place / "main.py", "--cpu", "--port", port, "--disable-auto-launch"]
    run = subprocess.Popen(list(map(str, words)), cwd=place, stdout=log, stderr=log)

    def heard(node: str, done: int, of: int) -> None:
        marks.setdefault(f"first {node}" if done else node, time.perf_counter() - start)
        if done and node == "sample":
            run.kill()
            raise FirstStep

    try:
        while "start, imports, nodes" not in marks:
            with suppress(Unreachable):
                server.get("/system_stats")
                marks["start, imports, nodes"] = time.perf_counter() - start
        with suppress(FirstStep):
            execute(server, graph(case), 300.0, heard)
    finally:
        run.kill()
        run.wait()
    return dict(apart(marks))


class FirstStep(Exception):
    """What was waited for is there."""


def installed(options: argparse.Namespace) -> tuple[Path, Path]:
    """(folder, interpreter) of a copy that has the checkpoint and the picture; made once."""
    from PIL import Image

    from tests.lab.comfyui import copy, environment

    place, venv = options.folder / "ComfyUI", options.folder / "venv"
    if not place.exists():
        copy(options.comfyui, place)
        environment(Path(options.python), venv)
        checkpoints = place / "models" / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        (checkpoints / options.checkpoint.name).symlink_to(options.checkpoint.resolve())
        (place / "input").mkdir(exist_ok=True)
        with Image.open(options.image) as picture:
            picture.convert("RGB").resize((SIZE, SIZE)).save(place / "input" / options.image.name)
    return place, venv / "bin" / "python"


def script(options: argparse.Namespace) -> Stages:
    """The same work by ComfyUI's own code, until its sampler's first callback."""
    words = ["--worker", "--comfyui", options.comfyui, "--checkpoint", options.checkpoint]
    words += ["--image", options.image, "--steps", options.steps]
    start, marks = time.perf_counter(), {}
    with subprocess.Popen(
        [options.python, __file__, *map(str, words)], stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        for line in run.stdout:
            if line.startswith(MARK):
                marks[line.removeprefix(MARK).strip()] = time.perf_counter() - start
    return dict(apart(marks))


def apart(marks: Stages) -> Stages:
    """Times since the start as the time each stage took."""
    before = [0.0, *marks.values()]
    return {name: end - start for (name, end), start in zip(marks.items(), before, strict=False)}


def works(options: argparse.Namespace) -> int:
    """ComfyUI, in a process of its own: a mark on stdout at the end of each stage."""
    sys.path.insert(0, str(options.comfyui))
    sys.argv = ["main.py", "--cpu"]
    import torch
    import transformers  # noqa: F401 - it asks what is installed before anything stands in

    for name in ("torchvision", "torchaudio"):
        if importlib.util.find_spec(name) is None:
            stand_in(name)
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.sample
    import comfy.sd
    import numpy
    from PIL import Image

    mark("start, imports")
    loaded = comfy.sd.load_checkpoint_guess_config(str(options.checkpoint))
    model, clip, vae = loaded[:3]
    mark("weights")
    said = [clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in (POSITIVE, NEGATIVE)]
    mark("text")
    with torch.inference_mode():
        picture = Image.open(options.image).convert("RGB").resize((SIZE, SIZE))
        latent = vae.encode(torch.from_numpy(numpy.array(picture) / 255.0).float()[None])
        mark("encode")
        noise = comfy.sample.prepare_noise(latent, SEED)

        def callback(step: int, *_: object) -> None:
            mark("first step")
            os._exit(0)

        comfy.sample.sample(
            model, noise, options.steps, CFG, SAMPLER, SCHEDULER, said[0], said[1], latent,
            denoise=DENOISE, callback=callback, disable_pbar=True, seed=SEED,
        )  # fmt: skip
    return 1


def mark(name: str) -> None:
    print(MARK + name, flush=True)


def rounds(
    subjects: Sequence[Callable[[argparse.Namespace], Stages]], options: argparse.Namespace
) -> dict[str, list[Stages]]:
    found: dict[str, list[Stages]] = {one.__name__: [] for one in subjects}
    for number in range(options.rounds):
        turn = number % len(subjects)
        for one in (*subjects[turn:], *subjects[:turn]):
            if options.dropped:
                drop(options.checkpoint)
            stages = one(options)
            found[one.__name__].append(stages)
            shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in stages.items())
            print(f"{one.__name__}: {sum(stages.values()):.2f} s ({shown})", flush=True)
    return found


def drop(path: Path) -> None:
    """The system forgets what it keeps of a file in memory (posix_fadvise(2))."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def told(found: dict[str, list[Stages]], first: str, *others: str) -> dict[str, object]:
    """Medians, and how many times the first's time the others take, round by round."""
    whole = {name: [sum(stages.values()) for stages in runs] for name, runs in found.items()}
    times = {}
    for other in others:
        ratios = [b / a for a, b in zip(whole[first], whole[other], strict=True)]
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{other} takes {median(ratios):.2f} x {first} {spread}")
        times[f"{other}_times_{first}"] = ratios
    return {
        "seconds": {name: median(one) for name, one in whole.items()},
        "stages": {
            name: {stage: median(run[stage] for run in runs) for stage in runs[0]}
            for name, runs in found.items()
        },
        **times,
        "raw": found,
    }


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--checkpoint", type=Path)
    words.add_argument("--comfyui", type=Path)
    words.add_argument("--python", default=sys.executable, help="of both")
    words.add_argument("--image", type=Path, default=ROOT / "runner/data/embedded.png")
    words.add_argument("--steps", type=int, default=8, help="of both renders, as a smoke test's")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--only", nargs="+", choices=("embedded", "full", "disk"))
    words.add_argument("--out", type=Path)
    words.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = words.parse_args()
    if options.worker:
        return works(options)
    asked, found = options.only or ["embedded", "full", "disk"], {}
    with tempfile.TemporaryDirectory() as folder:
        options.folder, options.dropped = Path(folder), False
        if "embedded" in asked:
            found["embedded"] = told(rounds((bare, embedded), options), "bare", "embedded")
        for name in [name for name in asked if name != "embedded"]:
            options.dropped = name == "disk"
            with options.checkpoint.open("rb") as file:
                while file.read(1 << 24):
                    pass
            found[name] = told(
                rounds((ours, comfyui, script), options), "ours", "comfyui", "script"
            )
    if options.out:
        command = f"python benchmarks/cold_start.py --steps {options.steps}"
        load = {"load": os.getloadavg()[0]}
        record(options.out, f"{command} --rounds {options.rounds}", load | found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
