"""Rendered: one render as the options ask for it, its files written, told as a JSON object."""

import argparse
import json
from dataclasses import replace
from typing import Any

from runner import canvas, embedded, measures, pixels, sources, trace
from runner.arguments import beside
from runner.devices import at_most
from runner.embeddings import Shelf
from runner.pipeline import Models
from runner.recipe import Progress, Recipe


def rendered(
    models: Models,
    recipe: Recipe,
    options: argparse.Namespace,
    tell: Progress,
    before: dict[str, float],
    lang: str,
) -> dict[str, Any]:
    """Render, write the files, and the object of schema runner.render/1."""
    shelf = Shelf(tuple(options.embeddings))
    few = embedded.threads(recipe) if options.embedded and options.threads is None else None
    with at_most(few):
        return written(replace(models, shelf=shelf), recipe, options, tell, before, lang)


def written(
    models: Models,
    recipe: Recipe,
    options: argparse.Namespace,
    tell: Progress,
    before: dict[str, float],
    lang: str,
) -> dict[str, Any]:
    picture = options.image or (embedded.PICTURE if options.embedded else None)
    image = pixels.load(picture) if picture else pixels.gradient(64, 64)
    ears: list[Any] = []
    if options.page:
        from runner import listening

        models, ears = listening.overheard(models)
    done, kept = trace.render(models, recipe, image, tell, options.glimpses)
    files = [options.out, options.trace] if options.trace else [options.out]
    told = {"recipe": json.dumps(recipe.to_json()), "checkpoint": models.name}
    called = getattr(options, "called", None) or str(picture or "example.png")
    used = sources.drawn(models.name, called, beside(options))
    told |= canvas.chunks(canvas.of_recipe(recipe, used))
    png = pixels.to_png(kept.tensors["image/output"][0], told)
    with pixels.whole_file(options.out) as file:
        file.write(png)
    if options.trace:
        trace.save(kept, options.trace, {"recipe": recipe.to_json()})
    if options.page:
        from runner import page

        files += page.write(options.page, models, recipe, done, kept, ears, tell)
    done = replace(
        done,
        files=tuple(str(path) for path in files),
        notes=(*done.notes, *measures.notes(models, recipe, lang)),
        seconds=before | dict(done.seconds),
    )
    if not options.embedded:
        return done.to_json()
    measured = measures.measured(models, recipe, kept.tensors)
    return done.to_json() | {"measures": measured.to_json()}
