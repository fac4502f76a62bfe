"""report: the page of the last run, or of one that is named; and how `run` writes it."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from doctor import pictures, preview, tensors
from doctor.facts import NotKnown
from doctor.options import BadUsage
from doctor.page.proof import Pictures
from doctor.page.whole import html
from doctor.screen import Screen
from doctor.step import Write
from doctor.verbs.patient import Args, home, target

SCHEMA = "comfy-doctor.run/1"
REPORT, PAGE, TRACE, BEFORE, AFTER, STEPS = (
    "report.json",
    "report.html",
    "trace.safetensors",
    "input.png",
    "render.png",
    "step-*.png",
)
LARGEST = 32 << 20  # bytes; a longer report is not read
SHOWN = 10  # earlier runs
GAP = ("", "")  # a place of a terminal that is left as it is
WIDEST = 1024  # pixels of a picture on the page


def report(args: Args, screen: Screen) -> int:
    """Write the page of a run that lies on the disk, and say where."""
    file = named(Path(args.file).expanduser()) if args.file else newest(args)
    page = Path(args.html).expanduser() if args.html else file.parent / PAGE
    write(page, read(file), screen.lang, file)
    screen.say("page-written", path=page)
    screen.object({"schema": "comfy-doctor.report/1", "files": [str(page)]})
    return 0


def named(path: Path) -> Path:
    """The report.json that a person means by it or by its folder."""
    file = path / REPORT if path.is_dir() else path
    if not file.is_file():
        raise BadUsage(f"There is no {file}; `comfy-doctor run` writes one")
    return file


def newest(args: Args) -> Path:
    runs = home(target(args)) / "runs"
    found = sorted(runs.glob(f"*/{REPORT}"))
    if not found:
        raise BadUsage(
            f"No run lies in {runs}; make one with `comfy-doctor run`, or name its folder"
        )
    return found[-1]


def write(page: Path, run: dict[str, Any], lang: str, file: Path | None = None) -> None:
    """The page of a run, and of the pictures beside its `file`. BadUsage where it is none."""
    shown = beside(file.parent) if file else Pictures()
    before = list(earlier(file, run)) if file else []
    try:
        text = html(run, shown, before, lang)
    except (KeyError, TypeError, ValueError, AttributeError, NotKnown) as error:
        raise BadUsage(f"{file} is no report that `run` wrote: {error!r:.200}") from error
    Write(str(page), text).do(lambda what: None)


def read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError("it is too long")
        run = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(run, dict) or run.get("schema") != SCHEMA or "facts" not in run:
            raise ValueError(f"it is no {SCHEMA} with facts")
    except (ValueError, RecursionError) as error:
        raise BadUsage(f"{file} is no report that `run` wrote: {str(error)[:200]}") from error
    return run


def beside(folder: Path) -> Pictures:
    """The pictures of a run, those that are there and are pictures."""
    return Pictures(
        picture(folder / BEFORE),
        picture(folder / AFTER),
        tuple(filter(None, map(picture, sorted(folder.glob(STEPS))))),
    )


def picture(path: Path) -> bytes:
    """A picture as PNG, no side over WIDEST; nothing where there is none."""
    try:
        shown = pictures.opened(path.read_bytes())
    except (OSError, pictures.NotAPicture):
        return b""
    shown.thumbnail((WIDEST, WIDEST))
    return pictures.png(shown)


def earlier(file: Path, run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The runs of the same installation that lie before it in the same folder, newest first."""
    if file.parent.parent.name != "runs":
        return
    others = sorted(file.parent.parent.glob(f"*/{REPORT}"), reverse=True)
    for other in [one for one in others if one.parent.name < file.parent.name][:SHOWN]:
        try:
            found = read(other)
        except (BadUsage, OSError):
            continue
        if found.get("target") == run.get("target"):
            yield found


def keep_pictures(folder: Path) -> None:
    """What a run began with and its steps, as pictures in place of their trace, which is large."""
    trace = folder / TRACE
    with suppress(OSError, tensors.NotTensors, ValueError, ArithmeticError):
        tensor = tensors.read(trace.read_bytes())
        if "image/input" in tensor:
            preview.photo(tensor["image/input"]).save(folder / BEFORE)
        for n, step in enumerate(preview.strip(tensor), 1):
            step.save(folder / STEPS.replace("*", f"{n:02}"))
    trace.unlink(missing_ok=True)


def shown(folder: Path, columns: int) -> Iterator[list[tuple[str, str]]]:
    """Input and output beside each other, for a terminal."""
    pair = [one for one in (folder / BEFORE, folder / AFTER) if one.exists()]
    with suppress(OSError, pictures.NotAPicture):
        drawn = [preview.halves(pictures.opened(one.read_bytes()), columns) for one in pair]
        for row in zip(*drawn, strict=False):
            yield [*row[0], *(spot for other in row[1:] for spot in (GAP, GAP, *other))]
