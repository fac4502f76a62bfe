"""Many: pictures one after another, with weights that are loaded once."""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runner.recipe import Refused

Json = dict[str, Any]


def outs(options: argparse.Namespace) -> list[Path]:
    """Where each picture goes. Refused: bad-images, when two of them would go to one place."""
    images = getattr(options, "images", None)
    if not images:
        return [options.out]
    twice = [name for name, count in Counter(image.name for image in images).items() if count > 1]
    if twice:
        raise Refused("bad-images", f"Two of the pictures are called {twice[0]}.")
    return [options.out / f"{image.name}.png" for image in images]


def drawn(options: argparse.Namespace, one: Callable[[argparse.Namespace], Json]) -> Json:
    """The object of schema runner.many/1: for each picture its runner.render/1, or the error.

    A picture that cannot be read, or is too large for the memory there is, is no reason to leave
    the others undone.
    """
    rows = list(each(options, one))
    done = [row for row in rows if "error" not in row]
    return {
        "schema": "runner.many/1",
        "pictures": rows,
        "finite": len(done) == len(rows) and all(row["finite"] for row in done),
        "files": [file for row in done for file in row["files"]],
    }


def each(options: argparse.Namespace, one: Callable[[argparse.Namespace], Json]) -> Iterator[Json]:
    for image, out in zip(options.images, outs(options), strict=True):
        asked = {**vars(options), "image": image, "out": out, "called": image.name}
        try:
            yield {"image": str(image)} | one(argparse.Namespace(**asked))
        except Refused as refused:
            yield {"image": str(image), "error": {"id": refused.id, "message": str(refused)}}


def lines(answer: Json, one: Callable[[Json], Iterator[str]]) -> Iterator[str]:
    """What was written, and which pictures were refused, with the reason; of one picture, too."""
    for row in answer.get("pictures", [answer]):
        if "error" in row:
            yield f"{row['image']}: {row['error']['message']}"
        else:
            yield from one(row)
