"""Screenshots of a run's page into docs/pictures/, by a real Chromium at three widths.

python -m docs.write_pictures RUN     RUN: the folder that `comfy-doctor run` left
"""

import sys
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


def main(run: Path) -> None:
    HERE.mkdir(exist_ok=True)
    file = page.named(run)
    with browser.browser() as tab:
        for lang, width, scheme in TAKEN:
            shown = HERE / f"report.{lang}.html"
            page.write(shown, page.read(file), lang, file)
            tab.open(shown, width, scheme)
            name = f"report.{lang}.{width}.{scheme}.png"
            keep(tab.screenshot(), HERE / name)
            if width == max(browser.WIDTHS):
                keep(tab.screenshot(), HERE / name.replace("report", "front"), FRONT)
            shown.unlink()
        if said := tab.console():
            sys.exit("\n".join(said))


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
