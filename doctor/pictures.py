"""Pictures: are two the same, how far are they apart, is there anything in one. 8-bit RGB."""

import math
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageChops, ImageStat, UnidentifiedImageError

LARGEST = 64_000_000  # pixels; a larger picture is not opened
FLAT = 1.0  # of 255: a picture whose values spread less shows nothing


class NotAPicture(ValueError):
    """The bytes are no picture, or only half of one; the sentence says which."""


def opened(data: bytes) -> Image.Image:
    """Decoded whole, or NotAPicture."""
    try:
        picture = Image.open(BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
        if picture.width * picture.height > LARGEST:
            raise NotAPicture(f"{picture.width}×{picture.height} pixels are more than we open")
        return picture.convert("RGB")
    except UnidentifiedImageError as error:
        raise NotAPicture(f"{len(data)} bytes that are no picture") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise NotAPicture(f"it broke off or is damaged: {error}") from error


def spread(picture: Image.Image) -> float:
    """The largest standard deviation of a channel, of 255."""
    return float(max(ImageStat.Stat(picture).stddev))


def different(one: Image.Image, other: Image.Image) -> int:
    """How many pixels differ; all of them where the sizes do."""
    if one.size != other.size:
        return one.width * one.height
    bands = ImageChops.difference(one, other).split()
    most = ImageChops.lighter(ImageChops.lighter(bands[0], bands[1]), bands[2])
    return one.width * one.height - most.histogram()[0]


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Peak signal to noise ratio in dB, of 8-bit values; infinite where they are equal."""
    if one.size != other.size:
        return -math.inf
    counts = ImageChops.difference(one, other).histogram()
    squares = sum(count * (value % 256) ** 2 for value, count in enumerate(counts))
    mean = squares / (one.width * one.height * 3)
    return 10 * math.log10(255**2 / mean) if mean else math.inf


def gradient(width: int = 64, height: int = 64) -> bytes:
    """A PNG with something everywhere: (x·255/(w−1), y·255/(h−1), (3x+5y) mod 256)."""
    picture = Image.new("RGB", (width, height))
    picture.putdata(
        [
            (x * 255 // (width - 1), y * 255 // (height - 1), (3 * x + 5 * y) % 256)
            for y in range(height)
            for x in range(width)
        ]
    )
    return png(picture)


def png(picture: Image.Image) -> bytes:
    out = BytesIO()
    picture.save(out, format="PNG")
    return out.getvalue()


def side_by_side(path: Path, *pictures: Image.Image) -> None:
    """The pictures in a row, then how the last two differ, eight times as bright."""
    row = list(pictures)
    if len(row) > 1 and row[-1].size == row[-2].size:
        row.append(ImageChops.difference(row[-1], row[-2]).point(lambda value: min(255, value * 8)))
    scale = max(1, 256 // max(one.width for one in row))
    large = [one.resize((one.width * scale, one.height * scale), 0) for one in row]
    sheet = Image.new("RGB", (sum(one.width + 8 for one in large), max(o.height for o in large)))
    at = 0
    for one in large:
        sheet.paste(one, (at, 0))
        at += one.width + 8
    sheet.save(path, format="PNG")
