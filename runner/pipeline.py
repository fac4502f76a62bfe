"""img2img, from a Recipe and a picture to a picture, as ComfyUI's nodes do it one by one.

LoadImage, ImageScale, VAEEncode, CLIPTextEncode twice, KSampler, VAEDecode. Every tensor on the
way is shown to watch(name, tensor) under the names of the trace (design: interfaces).
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import isclose
from typing import Protocol

import torch
from torch import Tensor

from runner.checkpoint import Checkpoint, Networks, assemble, nothing
from runner.darkroom import quick
from runner.devices import Placement, small_convolutions
from runner.embeddings import NOTHING, Shelf
from runner.families import FAMILIES, SD1, AnyText
from runner.guidance import Denoiser, Prompt, guide, label
from runner.noise import Dice, first_noise
from runner.pixels import crop, scale
from runner.recipe import Progress, Recipe, Refused
from runner.sampler import Denoise
from runner.samplers import SAMPLERS
from runner.schedules import SCHEDULES, Table, part, sigma_table, walk
from runner.unet import UNet
from runner.vae import VAE

Watch = Callable[[str, Tensor], None]
Conditioning = tuple[Tensor, Tensor]  # cond (1, 77 k, D) and pooled (1, P), float32
SD_SCALE = SD1.latent_scale


class Sampling(Protocol):
    """What a K-sampler needs of a model."""

    @property
    def denoiser(self) -> Denoiser: ...
    @property
    def placement(self) -> Placement: ...
    @property
    def latent_scale(self) -> float: ...


@dataclass(frozen=True)
class Models:
    """A checkpoint ready to render: its networks, where they are, and how they are used."""

    name: str
    text: AnyText
    vae: VAE
    denoiser: Denoiser
    placement: Placement
    latent_scale: float = SD_SCALE
    shelf: Shelf = NOTHING
    notes: tuple[str, ...] = ()
    darkroom: VAE | None = None  # the same VAE, faster
    steady: Callable[[], None] = lambda: None  # Refused, if the file that weights are in changed

    @property
    def painter(self) -> VAE:
        """What encodes and decodes in a render: the darkroom where its lever is pulled."""
        return self.darkroom if self.darkroom and "vae" in self.denoiser.levers else self.vae


def load(
    checkpoint: Checkpoint,
    placement: Placement,
    threads: int,
    progress: Progress,
    mapped: bool = False,
) -> Models:
    """Read a checkpoint's weights onto a device. Refused: not-enough-memory.

    mapped: leave in the file what can stay there (mapped.py).
    """
    kept = rounded_for(checkpoint, placement, mapped)
    networks: Networks = assemble(kept, placement.places, threads, progress)
    model = model_of(checkpoint, networks.unet, placement)
    return Models(
        checkpoint.name, networks.text, networks.vae, model.denoiser, placement,
        model.latent_scale, notes=checkpoint.notes, darkroom=quick(networks.vae),
        steady=checkpoint.steady,
    )  # fmt: skip


def rounded_for(checkpoint: Checkpoint, placement: Placement, mapped: bool = False) -> Checkpoint:
    """The checkpoint, its denoiser's weights rounded first where ComfyUI keeps them in 16 bits, and
    lent by their file only if that is asked.
    """
    if placement.stored is None:
        return checkpoint if mapped else replace(checkpoint, lend=nothing)

    def fill(part: str, name: str, out: Tensor) -> None:
        kept = torch.empty(out.shape, dtype=placement.stored if part == "unet" else out.dtype)
        checkpoint.write(part, name, kept)
        out.copy_(kept)

    return replace(checkpoint, fill=fill, changes={}, lend=nothing)


@dataclass(frozen=True)
class Model:
    """A denoiser alone: what a checkpoint loader's output MODEL is."""

    denoiser: Denoiser
    placement: Placement
    latent_scale: float


def model_of(checkpoint: Checkpoint, unet: UNet, placement: Placement) -> Model:
    """A checkpoint's UNet with its table of σ, what it predicts, and the scale of its latents."""
    denoiser = Denoiser.of(unet, sigma_table(checkpoint.zero_snr), checkpoint.predicts)
    return Model(denoiser, placement, FAMILIES[checkpoint.family].latent_scale)


@torch.inference_mode()
def img2img(models: Models, recipe: Recipe, image: Tensor, watch: Watch) -> Tensor:
    """Run a recipe on a picture (B, H, W, 3); the new picture (B, H', W', 3), float32 on the CPU.

    H' and W' are the recipe's or the picture's, cut to multiples of 8. ComfyUI cuts from the
    middle (comfy/sd.py). Refused: unknown-sampler, unknown-scheduler, bad-* of the recipe;
    checkpoint-changed.
    """
    read = reads(models, recipe, watch)
    image = scale(image, recipe.width, recipe.height)
    watch("image/input", image)
    latent = models.painter.encode(crop(image)).cpu()
    watch("latent/input", latent)
    positive, negative = read
    latent = ksampler(models, recipe, positive, negative, latent, watch)
    watch("latent/output", latent)
    out = models.painter.decode(latent).cpu()
    models.steady()
    watch("image/output", out)
    return out


def ksampler(
    model: Sampling,
    recipe: Recipe,
    positive: Conditioning,
    negative: Conditioning,
    latent: Tensor,
    watch: Watch,
) -> Tensor:
    """ComfyUI's KSampler and KSamplerAdvanced on unscaled latents (B, C, h, w), float32.

    Of the recipe only the sampler's settings are looked at. Refused: bad-steps.
    """
    table = model.denoiser.table
    sigmas = walk(table, recipe.scheduler, recipe.sampler_name, recipe.steps, recipe.denoise)
    leftover = recipe.return_with_leftover_noise
    sigmas = part(sigmas, recipe.start_at_step, recipe.end_at_step, leftover)
    wanted, unwanted = (prompt(model, *one, latent) for one in (positive, negative))
    guided = guide(model.denoiser.quick(sigmas), wanted, unwanted, recipe.cfg)
    with small_convolutions(model.placement.device, latent):
        return sample(model, recipe, guided, latent, sigmas, watch)


def reads(models: Models, recipe: Recipe, watch: Watch) -> list[Conditioning]:
    """Both prompts, each as cond (1, 77 k, D) and pooled (1, P), float32."""
    tokens = models.text.chunks(recipe.positive, models.shelf)
    ids = [[token if isinstance(token, int) else -1 for token, _ in chunk] for chunk in tokens]
    watch("tokens/positive", torch.tensor(ids))  # -1: a vector of an embedding
    read = []
    for name, text in (("positive", recipe.positive), ("negative", recipe.negative)):
        cond, pooled = models.text.encode(text, recipe.stop_at_clip_layer, models.shelf)
        watch(f"cond/{name}", cond)
        if models.denoiser.labels:
            watch(f"pooled/{name}", pooled)
        read.append((cond, pooled))
    return read


def prompt(models: Sampling, cond: Tensor, pooled: Tensor, latent: Tensor) -> Prompt:
    """A text as this denoiser wants it, for a latent of that size."""
    if not models.denoiser.labels:
        return Prompt(cond)
    return Prompt(cond, label(pooled, latent.shape[2] * 8, latent.shape[3] * 8))


def sample(
    models: Sampling, recipe: Recipe, guided: Denoise, latent: Tensor, sigmas: Tensor, watch: Watch
) -> Tensor:
    """ComfyUI's KSampler on an unscaled latent (B, C, h, w); at denoise 0 nothing happens."""
    noise = first_noise(recipe.seed, latent) if recipe.add_noise else torch.zeros_like(latent)
    watch("noise", noise)
    watch("sigmas", sigmas)
    if not len(sigmas):
        return latent
    device = models.placement.device
    x = noised(latent * models.latent_scale, noise, sigmas[0], models.denoiser.table)
    steps = SAMPLERS[recipe.sampler_name](
        guided, x.to(device), sigmas, Dice(recipe.seed, x.to(device))
    )
    for step, x in enumerate(steps, 1):
        watch(f"step/{step}", x)
    return x.float().cpu() / models.latent_scale


def noised(latent: Tensor, noise: Tensor, sigma: Tensor, table: Table) -> Tensor:
    """A scaled latent at noise level σ; at the table's largest, variance is kept (EPS)."""
    largest = float(table.sigmas[-1])
    if isclose(largest, float(sigma), rel_tol=1e-5) or float(sigma) > largest:
        return noise * torch.sqrt(1.0 + sigma**2.0) + latent
    return noise * sigma + latent


def named(recipe: Recipe) -> Recipe:
    """The recipe itself, or Refused where its sampler or schedule is not there."""
    known("sampler", recipe.sampler_name, SAMPLERS)
    known("scheduler", recipe.scheduler, SCHEDULES)
    return recipe.checked()


def known(what: str, name: str, names: Iterable[str]) -> None:
    if name in names:
        return
    nearest = difflib.get_close_matches(name, list(names), 1, 0.4)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    there = ", ".join(names)
    raise Refused(f"unknown-{what}", f"There is no {what} {name!r}.{hint} There are: {there}.")


def not_finite(trace: Iterable[tuple[str, Tensor]]) -> Iterator[str]:
    """The names of the tensors, in order, that hold a NaN or an infinity."""
    for name, tensor in trace:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            yield name


def recast(models: Models, placement: Placement) -> Models:
    """The same models in another precision, in place: the ones given are not to be used again."""
    denoiser = models.denoiser
    if placement.unet != denoiser.dtype:
        denoiser = Denoiser.of(denoiser.unet.to(placement.unet), denoiser.table, denoiser.predicts)  # type: ignore[attr-defined]
    vae = models.vae.to(placement.vae)
    return replace(models, denoiser=denoiser, vae=vae, placement=placement, darkroom=quick(vae))
