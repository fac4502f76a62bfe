"""Numbers of a real ComfyUI, kept in tests/golden/ for machines without one.

    COMFYUI_DIR=... python -m tests.runner.pack_comfyui lora|tokens|dtypes|kinds FOLDER
    COMFYUI_DIR=... python -m tests.runner.pack_comfyui steps FOLDER MODEL

`steps` leaves steps.MODEL.safetensors in FOLDER, for pack_goldens.py, which has put the rest there.
FOLDER is for what is made on the way. Made with ComfyUI 0.3.64, torch 2.13.0, on the CPU.
COMFYUI_PYTHON is its interpreter; COMFYUI_DIR/../venv/bin/python by default.
"""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from runner import rungs_network, synthetic
from runner.nodes import NODES
from tests.runner import loras, test_devices, test_lora, test_tokenizer
from tests.runner.conftest import write

GOLDEN = test_lora.GOLDEN
ODD = (1, 4, 9, 7)  # a latent that the UNet cannot halve evenly


def ask(*words):
    """Run comfyui.py by ComfyUI's interpreter."""
    home = Path(os.environ["COMFYUI_DIR"])
    python = os.environ.get("COMFYUI_PYTHON", home.parent / "venv/bin/python")
    script = Path(__file__).with_name("comfyui.py")
    subprocess.run([python, script, home, *map(str, words)], check=True)


def pack_lora(folder):
    known, kept = {}, {}
    for family, table in test_lora.TABLES.items():
        base = write(folder / "base.safetensors", table())
        ask("names", base, folder / "names.json")
        known[family] = json.loads((folder / "names.json").read_text())
        save_file(loras.tensors(known[family]), folder / "lora.safetensors")
        out = folder / "changed.safetensors"
        ask("lora", base, folder / "lora.safetensors", test_lora.STRENGTH, out)
        for key, weight in load_file(out).items():
            kept[f"{family}/{key}"] = test_lora.samples(weight).clone()
    save_file(kept, GOLDEN / "lora.safetensors")
    with gzip.GzipFile(GOLDEN / "lora.json.gz", "wb", mtime=0) as file:
        file.write(json.dumps(known).encode())


def pack_tokens(folder):
    test_tokenizer.shelf(folder / "embeddings")
    prompts = test_tokenizer.hard_prompts()
    (folder / "prompts.json").write_text(json.dumps(prompts))
    ask("tokens", folder / "prompts.json", folder / "embeddings", folder / "tokens.json")
    told = json.loads((folder / "tokens.json").read_text())
    with gzip.GzipFile(GOLDEN / "prompts.json.gz", "wb", mtime=0) as file:
        file.write(json.dumps(told).encode())


def pack_dtypes(folder):
    (folder / "cards.json").write_text(json.dumps(test_devices.CARDS))
    ask("dtypes", folder / "cards.json", folder / "dtypes.json")
    told = json.loads((folder / "dtypes.json").read_text())
    rows = [{**card, "chosen": one} for card, one in zip(test_devices.CARDS, told, strict=True)]
    (GOLDEN / "cards.json").write_text(json.dumps(rows, indent=1) + "\n")


def pack_kinds(folder):
    (folder / "asked.json").write_text(json.dumps(list(NODES)))
    ask("kinds", folder / "asked.json", folder / "kinds.json")
    (GOLDEN / "nodes.json").write_bytes((folder / "kinds.json").read_bytes())


def pack_steps(folder, model):
    """States between the steps of the golden runs, and the denoiser at an odd size."""
    told = json.loads((folder / f"{model}.json").read_text("utf-8"))
    asked = {"runs": told["runs"], "prompts": told["prompts"]}
    asked |= {"probes": rungs_network.PROBES, "odd": ODD}
    (folder / "asked.json").write_text(json.dumps(asked))
    checkpoint = folder / f"whole.{model}.safetensors"
    synthetic.write(model, checkpoint, 2, lambda *_: None)
    out = folder / f"steps.{model}.safetensors"
    ask("steps", checkpoint, folder / "asked.json", folder / f"{model}.safetensors", out)
    checkpoint.unlink()


if __name__ == "__main__":
    packs = {"lora": pack_lora, "tokens": pack_tokens, "dtypes": pack_dtypes, "kinds": pack_kinds}
    packs["steps"] = pack_steps
    command, folder, *more = sys.argv[1:]
    packs[command](Path(folder), *more)
