"""Damaged and hostile files by the thousand: always a sentence, and never much memory.

    python -m tests.runner.fuzz [ROUNDS]        10,000 of each kind by default

A share of it runs in the suite (test_fuzz.py). Memory is Python's own, by tracemalloc: more than
twice the file beside SLACK is a failure.
"""

import io
import json
import random
import struct
import sys
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import torch
from PIL import Image, PngImagePlugin

from runner import checkpoint, devices, graph, lora, pixels
from runner.clip import TextEncoder, TextShape
from runner.recipe import Refused
from runner.unet import UNet, UNetShape
from runner.vae import VAE, VAEShape
from tests.runner.conftest import write
from tests.runner.graphs import IMG2IMG

SLACK = 64 * 2**20  # bytes: a header's tables, whatever the file's size
JUNK = [None, True, -1, 0, 2**40, 2**70, 1.5, "", "F32", "F99", [], [0, 0], [-1], {}, "\0", [2**63]]


def tiny(path):
    """A whole checkpoint of 300 KB."""
    with torch.device("meta"):
        parts = {
            "text": TextEncoder(TextShape(64, 64, 1, words=200)),
            "unet": UNet(UNetShape(32, (1,), (1,), blocks=1, context=64)),
            "vae": VAE(VAEShape(widths=(32,), blocks=1)),
        }
    return write(
        path,
        {
            checkpoint.PREFIXES[part] + name: tuple(weight.shape)
            for part, network in parts.items()
            for name, weight in network.named_parameters()
        },
    )


def damaged(data, dice):
    """The file with its header, its length or its end changed, in one of many ways."""
    length = int.from_bytes(data[:8], "little")
    match dice.randrange(6):
        case 0:  # cut off
            return data[: dice.randrange(len(data))]
        case 1:  # bits of the header
            wrong = bytearray(data)
            for _ in range(dice.randint(1, 5)):
                wrong[dice.randrange(8 + length)] ^= 1 << dice.randrange(8)
            return bytes(wrong)
        case 2:  # another length
            other = dice.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1])
            return other.to_bytes(8, "little") + data[8:]
        case 3:  # a piece of it somewhere else
            a, b, c = (dice.randrange(8 + length) for _ in range(3))
            return data[:a] + data[b : b + c % 64] + data[a:]
        case 4:  # nothing but brackets
            text = dice.choice([b"[", b'{"a":', b"[[],", b"{},", b"0,"]) * dice.randrange(200_000)
            return len(text).to_bytes(8, "little") + text + data[8 + length :]
    return rewritten(data, length, dice)


def rewritten(data, length, dice):
    """The file with a few values of its header replaced by others."""
    rows = json.loads(data[8 : 8 + length])
    for _ in range(dice.randint(1, 3)):
        key = dice.choice(list(rows))
        if dice.random() < 0.3:
            rows[dice.choice([key, "", "__metadata__", "x" * 1000])] = dice.choice(JUNK)
        elif isinstance(rows[key], dict):
            rows[key][dice.choice(["dtype", "shape", "data_offsets", "x"])] = dice.choice(JUNK)
    text = json.dumps(rows).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def weights(rounds, folder, seed=0):
    """Damaged checkpoints, read as one and as a LoRA; how many were taken for whole."""
    dice, whole = random.Random(seed), tiny(folder / "whole.safetensors")
    data, base = whole.read_bytes(), checkpoint.read(whole)
    places, taken = devices.choose("cpu", "float32").places, 0
    for number in range(rounds):
        path = folder / "a.safetensors"
        path.write_bytes(damaged(data, dice))
        read = within(path, checkpoint.read, number)
        within(path, lambda path: lora.read(path, base), number)
        if read is not None:
            taken += 1
            within(path, lambda _, read=read: checkpoint.assemble(
                read, places, 1, lambda *_: None), number)  # fmt: skip
    return taken


def within(path, read, number):
    """What a reader gives, or None where it refused in one sentence; anything else is a fault."""
    size = path.stat().st_size
    tracemalloc.start()
    try:
        given = read(path)
    except Refused as refused:
        given, told = None, str(refused)
        assert told, number
        assert "\n" not in told, (number, told)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= 2 * size + SLACK, (number, peak, size)
    return given


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bombs():
    """PNGs that are small and claim to be, or unpack to, something large."""
    start = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(8 * 25))) + chunk(b"IEND", b"")
    packed = zlib.compress(b" " * 200_000_000)
    for width, height in ((2**31 - 1, 2**31 - 1), (16_384, 16_384), (0, 0), (2**31 - 1, 8)):
        large = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        yield start + chunk(b"IHDR", large) + rows
    yield start + chunk(b"IHDR", head) + chunk(b"zTXt", b"prompt\0\0" + packed) + rows
    yield start + chunk(b"IHDR", head) + chunk(b"iTXt", b"prompt\0\1\0\0\0" + packed) + rows
    yield start + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    yield start + chunk(b"IHDR", head) + chunk(b"tEXt", b"prompt\0" + b"[" * 100_000) + rows
    yield start + chunk(b"IHDR", head) + struct.pack(">I", 2**31 - 1) + b"tEXtprompt\0{}"
    pixels = struct.pack(">I", 2**31 - 1) + b"IDAT" + zlib.compress(bytes(8 * 25))
    yield start + chunk(b"IHDR", head) + pixels


def pictures(rounds, folder, seed=0):
    """Bombs, then damaged pictures with a graph in them; how many still gave the graph."""
    dice, path, taken = random.Random(seed), folder / "a.png", 0
    for number, data in enumerate(bombs()):
        path.write_bytes(data)
        assert within(path, graph.read, f"bomb {number}") is None
        assert within(path, pixels.load_frames, f"bomb {number}") is None or number in (4, 5, 7, 9)
    info, packed = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("prompt", json.dumps(IMG2IMG), zip=True)
    info.add_text("workflow", "{}")
    Image.new("RGB", (16, 16)).save(packed, "PNG", pnginfo=info)
    for number in range(rounds):
        wrong = bytearray(packed.getvalue())
        for _ in range(dice.randint(1, 6)):
            wrong[dice.randrange(8, len(wrong))] = dice.randrange(256)
        path.write_bytes(wrong[: dice.choice([len(wrong), dice.randrange(len(wrong))])])
        taken += within(path, graph.read, number) is not None
        within(path, pixels.load_frames, number)
    return taken


if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as made:
        for fuzz in (weights, pictures):
            whole = fuzz(asked, Path(made))
            sys.stdout.write(f"{fuzz.__name__}: {asked} files, {whole} taken, the rest refused\n")
