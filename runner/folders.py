"""Folders: where a graph's file names point, and no further.

Names come from files that anybody may have made: none of them leads out of its folder.
"""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runner.recipe import Refused

ANNOTATED = re.compile(r"^(.*?) ?\[(input|output|temp)\]$", re.DOTALL)
NEAREST = 8  # names shown where one is not there


@dataclass(frozen=True)
class Folders:
    """ComfyUI's folders: models (below it checkpoints, loras, vae, embeddings), and pictures."""

    models: tuple[Path, ...]
    input: Path
    output: Path
    temp: Path

    @classmethod
    def of(cls, comfyui: Path) -> "Folders":
        """Those of an installation that keeps to the usual names."""
        return cls((comfyui / "models",), comfyui / "input", comfyui / "output", comfyui / "temp")

    def model(self, kind: str, name: str) -> Path:
        """A file below models/KIND. Refused: model-not-found, name-leads-outside."""
        inside = within(name, f"models/{kind}")
        for root in self.models:
            if (root / kind / inside).is_file():
                return root / kind / inside
        there = sorted(one for root in self.models for one in files(root / kind))
        listed = ", ".join(there[:NEAREST]) or "nothing"
        more = f" and {len(there) - NEAREST} more" if len(there) > NEAREST else ""
        places = ", ".join(str(root / kind) for root in self.models)
        what = f"There is no {name[:200]!r} in {places}; there: {listed}{more}."
        raise Refused("model-not-found", what)

    def picture(self, name: str) -> Path:
        """A picture by LoadImage's name: "a.png", "sub/a.png", "a.png [output]"."""
        annotated = ANNOTATED.match(name)
        bare, kind = annotated.groups() if annotated else (name, "input")
        root: Path = getattr(self, kind)
        return root / within(bare, kind)

    def embeddings(self) -> tuple[Path, ...]:
        return tuple(root / "embeddings" for root in self.models)


def files(folder: Path) -> Iterator[str]:
    """The names of the files below a folder, as a graph would name them."""
    for root, _, names in os.walk(folder):
        for name in names:
            yield (Path(root) / name).relative_to(folder).as_posix()


def within(name: str, what: str) -> PurePosixPath:
    """A relative path that stays where it starts; a backslash counts as a slash.

    Refused: name-leads-outside.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    outside = path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name)
    if outside or "\0" in name or not path.parts:
        raise Refused("name-leads-outside", f"{name[:200]!r} does not name a file below {what}.")
    return path


def next_name(folder: Path, prefix: str, width: int, height: int) -> tuple[Path, int]:
    """(path without its number, first free number) for SaveImage's prefix.

    ComfyUI 0.3.64, folder_paths.get_save_image_path: %width%, %year% ... are filled in, and
    files are PREFIX_00001_.png, counted on from the largest there.
    """
    now = time.localtime()
    told = {"width": f"{width}", "height": f"{height}"}
    for word, sign in zip("year month day hour minute second".split(), "YmdHMS", strict=True):
        told[word] = time.strftime(f"%{sign}", now)
    for word, value in told.items():
        prefix = prefix.replace(f"%{word}%", value)
    path = folder / within(prefix, "the output folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = os.listdir(path.parent)
    except OSError as error:
        raise Refused("cannot-write", f"{path.parent}: {error.strerror}.") from None
    start = f"{path.name}_"
    taken = [re.match(r"(\d+)(?:_|$)", one[len(start) :]) for one in there if one.startswith(start)]
    return path, 1 + max((int(number[1]) for number in taken if number), default=0)
