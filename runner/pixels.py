"""Pixels: pictures in and out, as ComfyUI's LoadImage, ImageScale and SaveImage treat them.

Shapes: B pictures, H and W pixels, C = 3 colours; float32 in 0..1 unless said otherwise.
"""

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

from runner.recipe import LARGEST_SIDE, Refused

MOST_PIXELS = 256 * 2**20  # a picture of more is refused before it is unpacked


def load(path: Path) -> Tensor:
    """The first frame of a picture file, (1, H, W, 3); alpha is dropped (nodes.py, LoadImage).

    Refused: no-such-image, image-unreadable, image-too-small, image-too-large.
    """
    with opened(path) as picture:
        return from_picture(picture)


def load_frames(path: Path) -> Tensor:
    """All frames that are as large as the first, (B, H, W, 3), as LoadImage gives them.

    Refused: as load() does; image-too-large for more than MOST_PIXELS in all.
    """
    with opened(path) as picture:
        if picture.format == "MPO":  # two views of a camera: ComfyUI takes the first
            return from_picture(picture)
        frames = [from_picture(picture)]
        for number in range(1, getattr(picture, "n_frames", 1)):
            picture.seek(number)
            frame = from_picture(picture)
            if frame.shape == frames[0].shape:
                frames.append(frame)
            if len(frames) * picture.width * picture.height > MOST_PIXELS:
                raise Refused("image-too-large", f"{path} has too many frames.")
        return torch.cat(frames)


def texts(path: Path) -> dict[str, str]:
    """The text chunks of a PNG. Refused: as load() does."""
    with opened(path) as picture:
        picture.load()  # chunks may stand behind the pixels
        return dict(getattr(picture, "text", {}))


class Bounded(BufferedReader):
    """A file that is never asked for more than it holds: read(n) sets n bytes aside first, and a
    damaged picture of 500 bytes may claim a chunk of 2 GB."""

    def read(self, size: int | None = -1) -> bytes:
        rest = max(0, os.fstat(self.fileno()).st_size - self.tell())
        return super().read(rest if size is None or size < 0 else min(size, rest))


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture file whose size is within reason, and every way of being broken in a sentence."""
    if not path.is_file():
        raise Refused("no-such-image", f"There is no picture at {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Bounded(FileIO(path)) as file, Image.open(file) as picture:
                within_reason(path, *picture.size)
                yield picture
    except Image.DecompressionBombError:
        raise Refused("image-too-large", f"{path} claims to hold too many pixels.") from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, OverflowError) as error:
        raise Refused(
            "image-unreadable", f"{path} is not a picture that can be read ({brief(error)})."
        ) from None


def within_reason(path: Path, width: int, height: int) -> None:
    if width < 8 or height < 8:
        raise Refused(
            "image-too-small",
            f"{path} is {width} x {height} pixels; a latent needs at least 8 x 8.",
        )
    if max(width, height) > LARGEST_SIDE or width * height > MOST_PIXELS:
        raise Refused(
            "image-too-large",
            f"{path} is {width} x {height} pixels; {LARGEST_SIDE} a side is the most.",
        )


def from_picture(picture: Image.Image) -> Tensor:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "I":  # ComfyUI's own rule: 32-bit grey is divided by 255, clipped by Pillow
        upright = upright.point(lambda value: value * (1 / 255))
    array = np.array(upright.convert("RGB")).astype(np.float32) / 255.0
    return torch.from_numpy(array)[None]


def gradient(width: int, height: int) -> Tensor:
    """The picture the golden numbers were made from: two ramps and a stripe, (1, H, W, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    stripe = (3 * x + 5 * y) % 256
    colours = np.stack([x * 255 // (width - 1), y * 255 // (height - 1), stripe], axis=-1)
    return torch.from_numpy(colours.astype(np.uint8).astype(np.float32) / 255.0)[None]


def scale(image: Tensor, width: int | None, height: int | None) -> Tensor:
    """ComfyUI's ImageScale, lanczos, no crop. A missing side keeps the proportions."""
    if width is None and height is None:
        return image
    high, wide = image.shape[1:3]
    width = width or max(8, round(wide * (height or high) / high))
    height = height or max(8, round(high * width / wide))
    resized = [
        Image.fromarray(to_bytes(one)).resize((width, height), Image.Resampling.LANCZOS)
        for one in image
    ]
    return torch.stack(
        [torch.from_numpy(np.array(one).astype(np.float32) / 255.0) for one in resized]
    )


def scale_as(image: Tensor, method: str, width: int, height: int, crop: str) -> Tensor:
    """ComfyUI's ImageScale in full (comfy/utils.py, common_upscale); a side of 0 follows the other.

    image (B, H, W, 3); method "lanczos" or one of torch's interpolate; crop "center" cuts the
    picture to the new proportions first.
    """
    high, wide = image.shape[1:3]
    if not width and not height:
        return image
    width = width or max(1, round(wide * height / high))
    height = height or max(1, round(high * width / wide))
    if crop == "center":
        old, new = wide / high, width / height
        left = round((wide - wide * (new / old)) / 2) if old > new else 0
        top = round((high - high * (old / new)) / 2) if old < new else 0
        image = image[:, top : high - top, left : wide - left]
    if method == "lanczos":
        return scale(image, width, height)
    planes = image.movedim(-1, 1)
    return F.interpolate(planes, size=(height, width), mode=method).movedim(1, -1)


def crop(image: Tensor) -> Tensor:
    """The middle of a picture, sides cut to multiples of 8 as ComfyUI's VAE does (comfy/sd.py)."""
    high, wide = image.shape[1:3]
    top, left = high % 8 // 2, wide % 8 // 2
    return image[:, top : top + high // 8 * 8, left : left + wide // 8 * 8]


def to_bytes(image: Tensor) -> np.ndarray:
    """(H, W, 3) floats as uint8: times 255, clipped, truncated and not rounded (SaveImage)."""
    scaled = 255.0 * image.cpu().numpy()
    with np.errstate(invalid="ignore"):
        return np.clip(scaled, 0, 255).astype(np.uint8)


def to_png(image: Tensor, text: Mapping[str, str]) -> bytes:
    """A PNG of one (H, W, 3) picture; text goes into its text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        if value.isascii():  # the chunk that ComfyUI writes, and reads most reliably
            info.add_text(key, value)
        else:
            info.add_itxt(key, value)
    packed = BytesIO()
    Image.fromarray(to_bytes(image)).save(packed, "PNG", pnginfo=info, compress_level=4)
    return packed.getvalue()


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is complete, or not at all.

    A device or a pipe is written to and never replaced; of a link, what it points to is.
    Refused: cannot-write (no such folder, not allowed, disk full), with the system's reason.
    """
    unfinished, path = None, path.resolve()
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(unfinished, 0o666 & ~umask())
        os.replace(unfinished, path)
    except OSError as error:
        raise Refused("cannot-write", f"{path} cannot be written: {brief(error)}.") from error
    finally:
        if unfinished:
            with suppress(OSError):
                os.unlink(unfinished)


def can_write(path: Path) -> None:
    """Refused if nothing can be written beside path: asked before the long work, not after."""
    if path.is_dir():
        raise Refused("cannot-write", f"{path} is a folder; a file name is needed.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise Refused("cannot-write", f"{path} cannot be written: {brief(error)}.") from error


def umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def brief(error: BaseException) -> str:
    """The reason in an exception, on one line; for a file error the system's own words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__
