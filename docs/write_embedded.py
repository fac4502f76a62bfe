"""Write the figures of docs/embedded.md from benchmarks/results/embedded.json and the file itself.

python docs/write_embedded.py        (a test says when the page is behind)
"""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CARD = ROOT / "docs/embedded.md"
RESULTS = ROOT / "benchmarks/results/embedded.json"
MODEL = ROOT / "runner/data/embedded.safetensors"
START, END = "<!-- figures -->", "<!-- end of figures -->"
ASKED = {
    "followed at denoise 0.8": "prompt followed at denoise 0.8",
    "kept at denoise 0.2": "picture kept at denoise 0.2, against the prompt",
    "left out at denoise 0.8": "negative prompt at denoise 0.8",
}
MEANING = {
    "pixels": "**by the pixels**",
    "tower": "**by the image tower**: nearer to the one text than to the other",
    "both": "**by both**",
    "whole": "everything that the prompt says, by the pixels",
    "shape": "shape",
    "colour": "colour of the thing",
    "ground": "colour of the ground",
    "size": "size",
    "place": "place, of nine",
    "texture": "texture of the thing",
    "weave": "texture of the ground",
    "colour_gone": "**the colour that it names is gone**",
    "texture_gone": "**the ground's texture that it names is gone**",
    "shape_kept": "while the shape that the prompt names is there",
}


def head() -> tuple[int, dict[str, Any]]:
    """Bytes of the checkpoint, and the header of its file."""
    with MODEL.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return MODEL.stat().st_size, json.loads(file.read(length))


def figures(told: Mapping[str, Any]) -> Iterator[str]:
    size, header = head()
    steps = json.loads(header["__metadata__"]["steps"])
    lasted = ", ".join(f"{part} {count}" for part, count in steps.items())
    yield f"File: {size:,} bytes. Steps: {lasted}."
    yield f"Measured: {told['date']}, commit `{told['commit'][:12]}`, `{told['command']}`."
    yield ""
    yield "| asked | | share | of |"
    yield "|---|---|---|---|"
    for asked, words in ASKED.items():
        for name, meaning in MEANING.items():
            if name in told[asked]:
                share = told[asked][name]
                yield f"| {words} | {meaning} | {100 * share['share']:.1f} % | {share['of']} |"
    vae, pair = told["autoencoder"], told["pair of towers"]
    yield ""
    yield "| part | figure | |"
    yield "|---|---|---|"
    yield f"| VAE, 200 unseen pictures | rms error, of 0..1 | {vae['rms']} ({vae['psnr']} dB) |"
    yield f"| | all seven properties seen alike afterwards | {100 * vae['seen alike']:.1f} % |"
    yield f"| | KL, nats a picture | {vae['kl']} |"
    yield f"| | spread of the scaled latents | {vae['spread']} |"
    text, picture = 100 * pair["text of picture"], 100 * pair["picture of text"]
    yield f"| towers, 200 unseen | the own text found for a picture | {text:.1f} % |"
    yield f"| | the own picture found for a text | {picture:.1f} % |"
    yield f"| | temperature | {pair['temperature']} |"
    took = told["seconds"]
    where = f"{took['threads']} thread of {told['machine']['cpu']}, load {told['load']:.0f}"
    yield f"| img2img, loaded, 20 steps at cfg 8 | median seconds, {where} | {took['median']:.2f} |"


def page() -> str:
    text = CARD.read_text("utf-8")
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    told = json.loads(RESULTS.read_text("utf-8"))
    return "\n".join([before + START, *figures(told), END + after])


if __name__ == "__main__":
    CARD.write_text(page(), encoding="utf-8")
