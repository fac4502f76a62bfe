"""Looking into a ComfyUI folder: real files, made on the spot."""

import json
import struct
import time

import pytest

from doctor.contents import extra_paths, folder


@pytest.fixture
def comfyui(tmp_path):
    for name in ("models/checkpoints", "custom_nodes", "output"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def safetensors(size=64, promised=None):
    header = {"w": {"dtype": "F32", "shape": [16], "data_offsets": [0, promised or size]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * size


MODELS = {  # file, content -> what is odd about it, None where nothing is
    "whole.safetensors": (safetensors(), None),
    "cut.safetensors": (safetensors(64, 640), "safetensors"),
    "early.safetensors": (safetensors()[:20], "cut safetensors"),
    "page.safetensors": (b"<!DOCTYPE html><html>login</html>", "web page"),
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
    "nothing.ckpt": (b"", "empty"),
    "renamed.ckpt": (safetensors(), "safetensors"),
    "archive.ckpt": (b"PK\x03\x04" + b"\0" * 60, None),
    "old.pt": (b"\x80\x02}q\x00." + b"\0" * 60, None),
    "pickled.safetensors": (b"PK\x03\x04" + b"\0" * 60, "torch archive"),
    "flux.gguf": (b"GGUF\x03\0\0\0" + b"\0" * 60, None),
    "other.gguf": (safetensors(), "safetensors"),
    "readme.txt": (b"", None),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_by_their_first_bytes(comfyui, name):
    content, kind = MODELS[name]
    (comfyui / "models/checkpoints" / name).write_bytes(content)
    odd = folder(str(comfyui)).odd
    assert [one.kind for one in odd] == ([kind] if kind else [])
    assert [one.path for one in odd] == ([f"checkpoints/{name}"] if kind else [])


def test_nodes_are_what_comfyui_would_load(comfyui):
    nodes = comfyui / "custom_nodes"
    for path, text in {
        "good/__init__.py": "",
        "good/requirements.txt": "# a\ndiffusers>=0.25  # b\n-r c.txt\n\neinops\n",
        "deep-main/deep-main/__init__.py": "",
        "plain/readme.md": "",
        "single.py": "",
        "off.disabled/__init__.py": "",
        "__pycache__/x.pyc": "",
        "example_node.py.example": "",
        "notes.txt": "",
    }.items():
        (nodes / path).parent.mkdir(parents=True, exist_ok=True)
        (nodes / path).write_text(text)
    (nodes / "empty").mkdir()
    found = {node.name: node for node in folder(str(comfyui)).nodes}
    assert found.keys() == {"good", "deep-main", "plain", "single.py", "empty"}
    assert found["good"].requires == ("diffusers>=0.25", "einops")
    assert (found["deep-main"].loads, found["deep-main"].inner) == (False, "deep-main")
    assert found["empty"].empty
    assert not found["plain"].empty


GOOD = """comfyui:
    base_path: /data/ComfyUI
    # a comment
    is_default: true
    checkpoints: models/checkpoints/
    loras: |
         models/Lora
         models: lyco "x\\y
    vae: 'C:\\models\\vae'
"""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (GOOD, ""),
        ("", ""),
        ("#only: comments\n", ""),
        ("base_path: /data\n", "line 1: no section"),
        ("comfyui:\n\tcheckpoints: x\n", "line 2: a tab"),
        ('comfyui:\n    vae: "C:\\models"\n', "line 2: a backslash"),
        ("comfyui:\n    vae: 'x\n", "line 2: a quote"),
        ("comfyui:\n    checkpoints\n", "line 2: no `name: path`"),
    ],
)
def test_extra_model_paths(comfyui, text, fault):
    path = comfyui / "extra_model_paths.yaml"
    path.write_text(text)
    said = extra_paths(path)
    assert bool(said) == bool(fault)
    assert not fault or said[0].startswith(fault)


def test_extra_model_paths_in_another_encoding(comfyui):
    path = comfyui / "extra_model_paths.yaml"
    path.write_bytes("comfyui:\n    base_path: D:/模型\n".encode("gbk"))
    assert extra_paths(path) == ("it is not UTF-8",)
    assert extra_paths(comfyui / "none.yaml") == ()


def test_files_that_hide_modules(comfyui):
    (comfyui / "random.py").write_text("")
    (comfyui / "nodes.py").write_text("")
    (comfyui / "numpy").mkdir()
    (comfyui / "yaml").mkdir()
    (comfyui / "yaml/__init__.py").write_text("")
    assert folder(str(comfyui)).shadows == ("random.py", "yaml")


def test_an_interpreter_alone_has_no_folder(tmp_path):
    assert folder(None) is None
    assert folder(str(tmp_path)).nodes == ()


def test_thousands_of_files_cost_no_more_than_level_1_can_afford(comfyui):
    content = safetensors(1000)
    for number in range(2000):
        (comfyui / f"models/checkpoints/{number}.safetensors").write_bytes(content)
    start = time.perf_counter()
    found = folder(str(comfyui))
    assert time.perf_counter() - start < 2
    assert found.models + found.unseen == 2000
    assert found.odd == ()
