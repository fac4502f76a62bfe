"""Screenshots of a run's page and of a fleet's into docs/pictures/, by a real Chromium at three
widths.

python -m docs.write_pictures RUN           RUN: the folder that `comfy-doctor run` left
python -m docs.write_pictures FLEET.html    the page that `fleet check --html FLEET.html` left
"""

import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

from doctor.verbs import page
from tests import browser

HERE = Path(__file__).parent / "pictures"
TAKEN = (  # language, width, scheme; together every width, scheme and language
    ("en", 1280, "light"),
    ("zh", 1280, "dark"),
    ("en", 800, "dark"),
    ("zh", 800, "light"),
    ("en", 390, "light"),
    ("zh", 390, "dark"),
)


def main(named: Path) -> None:
    HERE.mkdir(exist_ok=True)
    with browser.browser() as tab:
        taken = fleet(tab, named) if named.suffix == ".html" else report(tab, named)
        for name, png in taken:
            keep(png, HERE / name)
            if name.startswith(f"report.{name.split('.')[1]}.{max(browser.WIDTHS)}."):
                keep(png, HERE / name.replace("report", "front"), FRONT)
        if said := tab.console():
            sys.exit("\n".join(said))


def report(tab: browser.Browser, run: Path) -> Iterator[tuple[str, bytes]]:
    file = page.named(run)
    for lang, width, scheme in TAKEN:
        shown = HERE / f"report.{lang}.html"
        page.write(shown, page.read(file), lang, file)
        tab.open(shown, width, scheme)
        yield f"report.{lang}.{width}.{scheme}.png", tab.screenshot()
        shown.unlink()


def fleet(tab: browser.Browser, shown: Path) -> Iterator[tuple[str, bytes]]:
    for lang, width, scheme in TAKEN:
        tab.open(shown, width, scheme)
        tab.script(f"document.getElementById('in-{lang}').checked = true")
        yield f"fleet.{lang}.{width}.{scheme}.png", tab.screenshot()


FRONT = 1700  # pixels of height that stand for a page where it is shown to a reader


def keep(png: bytes, path: Path, height: int = 0) -> None:
    """In 256 colours, a page's rare ones among them: the repository stays light."""
    picture = Image.open(BytesIO(png)).convert("RGB")
    picture = picture.crop((0, 0, picture.width, height or picture.height))
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
