"""The measures of the embedded checkpoint: does it follow, keep, and leave out, and by how much?

python -m training.measure [--pairs 200] [--out benchmarks/results/embedded.json]

Pictures and prompts that no training had. Two judges, independent of each other: plain image
processing (training/judge.py), and the checkpoint's own image tower.
"""

import argparse
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from runner import embedded, measures, pixels
from runner.devices import choose, machine
from runner.pipeline import Models, img2img, load
from runner.recipe import Recipe
from training.judge import look
from training.scenes import Scene, caption, draw, forget, invent, named

UNSEEN = 7_000_000  # seeds from here on: no training came near
RECIPE = Recipe("", scheduler=embedded.SCHEDULER)  # what `render --embedded` does unasked
ALWAYS = ("shape", "colour")  # what every prompt of the test names


@dataclass(frozen=True)
class Case:
    """A picture, what it shows, and a prompt of something else."""

    picture: Tensor  # (1, S, S, 3)
    shown: Scene
    wanted: Scene  # "" where the prompt does not say
    prompt: str
    before: str  # the picture in the words of the prompt: what a prompt that changes nothing says
    seed: int


def cases(count: int) -> Iterator[Case]:
    """Pairs in which shape and colour both differ between the picture and the prompt."""
    dice, seed = random.Random(UNSEEN), UNSEEN
    while count:
        seed += 1
        scenes = invent(2, torch.Generator().manual_seed(seed))
        shown, other = named(scenes, 0), named(scenes, 1)
        if shown.shape == other.shape or shown.colour == other.colour:
            continue
        said = replace(forget(other, dice), **{name: getattr(other, name) for name in ALWAYS})
        if other.colour == shown.ground and not said.ground:
            said = replace(said, ground=other.ground)  # nothing can be seen on its own colour
        count -= 1
        same = replace(shown, **{name: "" for name, value in vars(said).items() if not value})
        yield Case(draw(scenes[:1]), shown, said, caption(said, dice), caption(same, dice), seed)


def render(models: Models, case: Case, denoise: float, prompt: str, negative: str = "") -> Tensor:
    """The output (S, S, 3) with the runner's own defaults otherwise."""
    recipe = embedded.native(replace(RECIPE, positive=prompt, negative=negative, denoise=denoise))
    recipe = replace(recipe, seed=case.seed)
    return img2img(models, recipe, case.picture, lambda *_: None)[0]


def agree(seen: Scene | None, wanted: Scene) -> dict[str, bool]:
    """For everything that is said of the wanted one: is it seen?"""
    said = {name: value for name, value in vars(wanted).items() if value}
    return {name: getattr(seen, name, None) == value for name, value in said.items()}


def score(models: Models, picture: Tensor, text: str) -> float:
    _, pooled = models.text.encode(text)
    tower = embedded.contrast()
    return float((tower.see(picture[None]) @ tower.read(pooled).T).item())


class Tally:
    """Counts of what was asked and what was so, by name."""

    def __init__(self) -> None:
        self.right: dict[str, int] = {}
        self.asked: dict[str, int] = {}

    def add(self, **answers: bool) -> None:
        for name, answer in answers.items():
            self.asked[name] = self.asked.get(name, 0) + 1
            self.right[name] = self.right.get(name, 0) + bool(answer)

    def shares(self) -> dict[str, dict[str, float]]:
        return {
            name: {"share": round(self.right[name] / of, 4), "of": of}
            for name, of in self.asked.items()
        }


def followed(models: Models, pairs: list[Case], denoise: float = 0.8) -> Tally:
    """Shape and colour of the prompt in the pixels; the tower nearer to the prompt than before."""
    tally = Tally()
    for case in pairs:
        out = render(models, case, denoise, case.prompt)
        found = agree(look(out), case.wanted)
        pixels = all(found[name] for name in ALWAYS)
        tower = score(models, out, case.prompt) > score(models, out, case.before)
        whole = all(found.values())
        tally.add(pixels=pixels, tower=tower, both=pixels and tower, whole=whole, **found)
    return tally


def kept(models: Models, pairs: list[Case], denoise: float = 0.2) -> Tally:
    """Shape and colours of the picture still there although the prompt names others."""
    tally = Tally()
    for case in pairs:
        out = render(models, case, denoise, case.prompt)
        found = agree(look(out), case.shown)
        pixels = all(found[name] for name in (*ALWAYS, "ground"))
        tower = score(models, out, case.before) > score(models, out, case.prompt)
        tally.add(pixels=pixels, tower=tower, both=pixels and tower, **found)
    return tally


def left_out(models: Models, pairs: list[Case], denoise: float = 0.8) -> Tally:
    """The thing's colour, which the prompt leaves open: there without a negative, gone with it.

    The negative prompt is that colour and nothing else, so the shape that the prompt names is to
    stay. The same with the ground's texture, where there is one.
    """
    tally = Tally()
    for case in pairs:
        prompt = f"a {case.shown.shape}"
        without = look(render(models, case, denoise, prompt))
        if without is None:
            continue
        after = look(render(models, case, denoise, prompt, without.colour))
        gone = after is None or after.colour != without.colour
        tally.add(colour_gone=gone, shape_kept=agree(after, Scene(case.shown.shape))["shape"])
        if without.weave != "plain":
            there = f"{without.weave} background"
            after = look(render(models, case, denoise, prompt, there))
            tally.add(texture_gone=after is not None and after.weave != without.weave)
    return tally


@torch.inference_mode()
def autoencoder(models: Models, count: int = 200) -> dict[str, float]:
    """Of unseen pictures: what the VAE loses, its KL, and the spread of its scaled latents."""
    pictures = draw(invent(count, torch.Generator().manual_seed(UNSEEN - 1)))
    mean, logvar = models.vae.moments(pictures)
    back = models.vae.decode(mean)
    right = [look(one) == look(other) for one, other in zip(back, pictures, strict=True)]
    error = measures.reconstruction(back, pictures)
    return {
        "rms": round(error, 4),
        "psnr": round(measures.psnr(error), 2),
        "kl": round(float(measures.divergence(mean, logvar).mean()), 1),
        "spread": round(float(mean.std() * models.latent_scale), 4),
        "seen alike": sum(right) / count,
    }


@torch.inference_mode()
def tower(models: Models, count: int = 200) -> dict[str, float]:
    """Which of `count` full captions belongs to a picture, and which picture to a caption."""
    scenes = invent(count, torch.Generator().manual_seed(UNSEEN - 2))
    dice = random.Random(1)
    texts = [caption(named(scenes, row), dice) for row in range(count)]
    read = torch.cat([models.text.encode(text)[1] for text in texts])
    logits = embedded.contrast().logits(draw(scenes), read)
    own = torch.arange(count)
    return {
        "text of picture": float((logits.argmax(1) == own).float().mean()),
        "picture of text": float((logits.argmax(0) == own).float().mean()),
        "temperature": round(1 / float(embedded.contrast().logit_scale.exp()), 4),
    }


def seconds(models: Models, pairs: list[Case]) -> dict[str, object]:
    """A whole img2img on a loaded model, of 20 steps at cfg 8: each, and their median."""
    taken = []
    for case in pairs[:21]:
        start = time.perf_counter()
        render(models, case, 0.8, case.prompt)
        taken.append(round(time.perf_counter() - start, 4))
    return {"threads": torch.get_num_threads(), "median": median(taken[1:]), "each": taken[1:]}


def sheet(models: Models, pairs: list[Case], path: Path) -> None:
    """A PNG to look at: the pictures, what became of them at denoise 0.2, and at 0.8."""
    rows = [[case.picture[0] for case in pairs]]
    rows += [[render(models, case, d, case.prompt) for case in pairs] for d in (0.2, 0.8)]
    whole = torch.cat([torch.cat(row, 1) for row in rows])
    twice = whole.repeat_interleave(2, 0).repeat_interleave(2, 1)
    path.write_bytes(pixels.to_png(twice, {"prompts": "\n".join(c.prompt for c in pairs)}))


def loaded() -> Models:
    return load(embedded.read(), choose("cpu"), 1, lambda *_: None)


def everything(count: int) -> dict[str, object]:
    models, pairs = loaded(), list(cases(count))
    return {
        "pairs": count,
        "recipe": RECIPE.to_json(),
        "followed at denoise 0.8": followed(models, pairs).shares(),
        "kept at denoise 0.2": kept(models, pairs).shares(),
        "left out at denoise 0.8": left_out(models, pairs[: count // 2]).shares(),
        "autoencoder": autoencoder(models),
        "pair of towers": tower(models),
        "seconds": seconds(models, pairs),
    }


def main() -> None:
    options = argparse.ArgumentParser(prog="training.measure", description=__doc__)
    options.add_argument("--pairs", type=int, default=200)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--out", type=Path)
    options.add_argument("--sheet", type=Path, help="a PNG of the first fourteen, to look at")
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.sheet:
        sheet(loaded(), list(cases(14)), asked.sheet)
    found = everything(asked.pairs)
    text = json.dumps(found, indent=2)
    print(text)
    if asked.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
        told = {
            "command": f"python -m training.measure --pairs {asked.pairs}",
            "date": time.strftime("%Y-%m-%d"),
            "commit": commit.stdout.strip(),
            "machine": machine(torch.device("cpu")),
            "load": round(os.getloadavg()[0], 1),  # of the machine; seconds mean little above 1
        }
        asked.out.write_text(json.dumps(told | found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
