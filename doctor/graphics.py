"""Graphics: a picture as what a terminal takes for one. Pure: pictures in, text out.

Kitty's protocol (sw.kovidgoyal.net/kitty/graphics-protocol), sixel (DEC STD 070, chapter 13), and
half blocks, which every terminal of true colour shows.
"""

from base64 import b64encode
from collections.abc import Iterator
from itertools import groupby

from PIL import Image

from doctor import preview

NUMBER = 7051  # of our picture in a terminal: each one takes the place of the one before
CHUNK = 4096  # bytes of one of kitty's commands
SHADES = 64  # of a sixel picture
BAND = 6  # pixels of height that one row of sixels has


def kitty(picture: Image.Image, columns: int, rows: int) -> str:
    """Drawn over so many cells from the cursor on, which stays where it is."""
    rgb = picture.convert("RGB")
    data = b64encode(rgb.tobytes()).decode("ascii")
    parts = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    about = f"a=T,q=2,f=24,s={rgb.width},v={rgb.height},c={columns},r={rows},C=1,i={NUMBER},p=1,"
    heads = [about, *[""] * (len(parts) - 1)]
    last = len(parts) - 1
    return "".join(
        f"\x1b_G{head}m={int(n < last)};{part}\x1b\\"
        for n, (head, part) in enumerate(zip(heads, parts, strict=True))
    )


KITTY_GONE = f"\x1b_Ga=d,d=I,i={NUMBER},q=2\x1b\\"


def sixel(picture: Image.Image) -> str:
    """Drawn from the cursor on, a pixel for a pixel."""
    small = picture.convert("RGB").quantize(SHADES, dither=Image.Dither.NONE)
    wide, high = small.size
    palette = small.getpalette() or []
    used = sorted(set(small.tobytes()))
    colours = "".join(
        f"#{n};2;{';'.join(str(round(v / 2.55)) for v in palette[3 * n : 3 * n + 3])}" for n in used
    )
    bands = "-".join(
        band(small.crop((0, y, wide, min(high, y + BAND)))) for y in range(0, high, BAND)
    )
    return f'\x1bP0;1;0q"1;1;{wide};{high}{colours}{bands}\x1b\\'


def band(strip: Image.Image) -> str:
    """Six rows of pixels: for each of their colours a line of sixels, each over the last."""
    data, wide = strip.tobytes(), strip.width
    columns = [data[x::wide] for x in range(wide)]
    lines = []
    for colour in sorted(set(data)):
        bits = (sum(1 << n for n, own in enumerate(column) if own == colour) for column in columns)
        lines.append(f"#{colour}" + "".join(run(chr(63 + b), n) for b, n in counted(bits)))
    return "$".join(lines)


def counted(values: Iterator[int]) -> Iterator[tuple[int, int]]:
    for value, same in groupby(values):
        yield value, len(list(same))


def run(sign: str, count: int) -> str:
    return f"!{count}{sign}" if count > 3 else sign * count


def blocks(picture: Image.Image, columns: int) -> list[str]:
    """Lines of half blocks in true colour, two pixels in each."""
    return [
        "".join(f"\x1b[38;2;{triple(a)};48;2;{triple(b)}m▀" for a, b in row) + "\x1b[0m"
        for row in preview.halves(picture, columns)
    ]


def triple(colour: str) -> str:
    """ "#0a0b0c" as 10;11;12."""
    return ";".join(str(value) for value in bytes.fromhex(colour[1:]))
