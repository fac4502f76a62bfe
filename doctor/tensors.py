"""Tensors: float32 numbers out of small safetensors files, and how far two of them are apart.

https://huggingface.co/docs/safetensors: 8 bytes of length, a JSON header, then the numbers. The
doctor has no numpy; what is compared here is latents, some thousand numbers.
"""

import json
import math
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEADER = 1 << 24  # bytes; a longer one is not read
WIDTH = {"F32": ("f", 4), "F16": ("", 2), "BF16": ("", 2)}


class NotTensors(ValueError):
    """The bytes are no safetensors file, or hold something else; the sentence says what."""


@dataclass(frozen=True)
class Tensor:
    shape: tuple[int, ...]
    numbers: Sequence[float]

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, self.numbers))


def read(data: bytes) -> Mapping[str, Tensor]:
    """The floating point tensors of a file, by name. Raises NotTensors."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(HEADER, len(data) - 8):
        raise NotTensors(f"{len(data)} bytes that are no safetensors file")
    try:
        header = json.loads(data[8 : 8 + length])
        rows = {name: row for name, row in header.items() if name != "__metadata__"}
        return {
            name: one(row, data[8 + length :])
            for name, row in rows.items()
            if row["dtype"] in WIDTH and math.prod(row["shape"])
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NotTensors(f"its header is damaged: {error}") from error


def one(row: Mapping[str, object], body: bytes) -> Tensor:
    shape = tuple(int(side) for side in row["shape"])  # type: ignore[attr-defined]
    first, last = (int(at) for at in row["data_offsets"])  # type: ignore[attr-defined]
    width = WIDTH[str(row["dtype"])][1]
    if not 0 <= first <= last <= len(body) or last - first != math.prod(shape) * width:
        raise NotTensors("it was cut short")
    return Tensor(shape, numbers(str(row["dtype"]), body[first:last]))


def numbers(dtype: str, raw: bytes) -> Sequence[float]:
    if dtype == "F16":
        import struct

        return struct.unpack(f"<{len(raw) // 2}e", raw)
    if dtype == "BF16":  # the upper half of a float32
        raw = b"".join(b"\0\0" + raw[at : at + 2] for at in range(0, len(raw), 2))
    found = array("f", raw)
    if sys.byteorder == "big":
        found.byteswap()
    return found


def gap(ours: Tensor, theirs: Tensor) -> float:
    """Relative rms, ‖a−b‖ / ‖b‖; infinite for another shape, or where a number is not finite."""
    if ours.shape != theirs.shape or not ours.finite or not theirs.finite:
        return math.inf
    apart = math.sqrt(
        math.fsum((a - b) ** 2 for a, b in zip(ours.numbers, theirs.numbers, strict=True))
    )
    size = math.sqrt(math.fsum(b * b for b in theirs.numbers))
    return apart / size if size else apart
