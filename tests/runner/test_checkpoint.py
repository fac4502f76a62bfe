import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.runner.conftest import edit, small_table, write

torch = pytest.importorskip("torch")

from runner import checkpoint, devices, early, memory  # noqa: E402
from runner.recipe import Refused  # noqa: E402

UNET = "model.diffusion_model."


def refused(path):
    with pytest.raises(Refused) as caught:
        checkpoint.read(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).count("\n") == 0
    return caught.value


def assembled(path, dtype="float32"):
    places = devices.choose("cpu", dtype).places
    return checkpoint.assemble(checkpoint.read(path), places, 2, lambda *_: None)


def test_weights_arrive_as_they_are_stored(small):
    stored = load_file(small)
    networks = assembled(small)
    for part, prefix in checkpoint.PREFIXES.items():
        for name, weight in getattr(networks, part).named_parameters():
            assert torch.equal(weight.float(), stored[prefix + name].float()), name
    assert next(networks.text.parameters()).dtype == torch.float16
    assert next(networks.unet.parameters()).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_other_precisions_are_read(small, tmp_path, dtype):
    stored = {key: tensor.to(dtype) for key, tensor in load_file(small).items()}
    save_file(stored, tmp_path / "a.safetensors")
    weight = assembled(tmp_path / "a.safetensors").unet.out[2].weight
    assert torch.equal(weight, stored[f"{UNET}out.2.weight"].float())


def test_an_old_file_without_text_model_and_with_position_ids_is_the_same(small, tmp_path):
    old = {key.replace("text_model.", ""): value for key, value in load_file(small).items()}
    old["cond_stage_model.transformer.embeddings.position_ids"] = torch.arange(77)[None]
    old["model_ema.decay"] = torch.tensor(0.5)
    old["betas"] = torch.zeros(1000)
    save_file(old, tmp_path / "old.safetensors")
    ours = assembled(tmp_path / "old.safetensors").text.state_dict()
    assert all(
        torch.equal(ours[key], value) for key, value in assembled(small).text.state_dict().items()
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not early.begin(tmp_path / "pipe")
    assert "no file but a pipe" in str(refused(tmp_path / "pipe"))


def test_progress_ends_at_the_whole(small):
    seen = []
    places = devices.choose("cpu").places
    checkpoint.assemble(checkpoint.read(small), places, 2, lambda *event: seen.append(event))
    assert seen[-1][0] == "weights"
    assert seen[-1][1] == seen[-1][2]


def test_too_little_memory_is_said_before_it_is_taken(small, monkeypatch):
    def full(size):
        raise Refused("not-enough-memory", "no")

    monkeypatch.setattr(memory, "enough_memory", full)
    with pytest.raises(Refused, match="no"):
        assembled(small)
    monkeypatch.undo()
    with pytest.raises(Refused, match="need 1000000"):
        memory.enough_memory(10**15)


IMPOSTORS = {
    "checkpoint-is-web-page": b"<!DOCTYPE html><html><body>Please log in</body></html>",
    "checkpoint-is-lfs-pointer": b"version https://git-lfs.github.com/spec/v1\nsize 9\n",
    "checkpoint-truncated": b"\x10\x00",
    "checkpoint-damaged": b"\xff" * 100,
}


@pytest.mark.parametrize("id", IMPOSTORS)
def test_what_is_no_checkpoint_is_named(id, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(IMPOSTORS[id])
    assert refused(path).id == id


def test_nothing_and_a_folder_are_named(tmp_path):
    (tmp_path / "b.safetensors").write_bytes(b"")
    assert refused(tmp_path / "b.safetensors").id == "checkpoint-truncated"
    assert refused(tmp_path / "none").id == "checkpoint-not-found"
    assert refused(tmp_path).id == "checkpoint-is-folder"


def test_a_file_cut_anywhere_is_called_cut_off(small, tmp_path):
    data = small.read_bytes()
    for kept in (9, 1000, len(data) // 2, len(data) - 1):
        path = tmp_path / "a.safetensors"
        path.write_bytes(data[:kept])
        error = refused(path)
        assert error.id == "checkpoint-truncated"
        assert f"{kept:,} bytes" in str(error)


def missing(rows):
    del rows[f"{UNET}out.2.bias"]


def extra(rows):
    rows[f"{UNET}out.3.bias"] = rows[f"{UNET}out.2.bias"]


def bent(rows):
    rows[f"{UNET}time_embed.0.weight"]["shape"].reverse()


def float8(rows):
    row = rows[f"{UNET}time_embed.0.bias"]
    row |= {"dtype": "F8_E4M3", "data_offsets": [0, row["shape"][0]]}


def misfit(rows):
    rows[f"{UNET}out.2.bias"]["shape"] = [3]


def textless(rows):
    return {key: row for key, row in rows.items() if "cond_stage" not in key}


@pytest.mark.parametrize(
    ("change", "id", "words"),
    [
        (missing, "checkpoint-incomplete", f"1 tensors missing, the first {UNET}out.2.bias"),
        (extra, "checkpoint-incomplete", f"1 tensors unexpected, the first {UNET}out.3.bias"),
        (bent, "checkpoint-incomplete", f"another shape, the first {UNET}time_embed.0.weight"),
        (misfit, "checkpoint-damaged", "does not match its shape"),
        (float8, "checkpoint-dtype", "F8_E4M3"),
        (textless, "checkpoint-incomplete", "text part (cond_stage_model.transformer....)"),
        (lambda rows: {"a": 5}, "checkpoint-damaged", "malformed"),
        (lambda rows: {"__metadata__": {}}, "checkpoint-damaged", "no tensor"),
        (lambda rows: [1], "checkpoint-damaged", "header"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused_by_name(small, tmp_path, change, id, words):
    error = refused(edit(small, tmp_path / "a.safetensors", change))
    assert error.id == id
    assert words in str(error)


FAMILIES = {
    "the SDXL refiner": {f"{UNET}label_emb.0.0.weight": (8, 2560), "context": 1280},
    "a relative of SDXL": {f"{UNET}label_emb.0.0.weight": (8, 1536), "context": 1024},
    "an inpainting": {"channels": 9},
    "Flux": {"double_blocks.0.img_attn.qkv.weight": (2, 2)},
    "SD 3": {"model.diffusion_model.joint_blocks.0.x.weight": (2, 2)},
    "a LoRA": {"lora_unet_down.lora_up.weight": (2, 2)},
    "a VAE alone": {"encoder.conv_in.weight": (2, 2), "decoder.conv_in.weight": (2, 2)},
    "diffusers folder": {"down_blocks.0.resnets.0.conv1.weight": (2, 2)},
    "a denoiser alone": {"input_blocks.0.0.weight": (320, 4, 3, 3)},
    "nothing known": {"wheels": (4,)},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_architectures_are_recognised(family, tmp_path):
    table = dict(FAMILIES[family])
    channels, context = table.pop("channels", 4), table.pop("context", None)
    if context or channels != 4:
        table[f"{UNET}input_blocks.0.0.weight"] = (8, channels, 3, 3)
        table[f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] = (
            8,
            context or 768,
        )
    error = refused(write(tmp_path / "a.safetensors", table))
    assert error.id == "checkpoint-other-architecture"
    assert family in str(error)


@settings(
    max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_damaged_header_is_always_a_sentence(small, tmp_path, data):
    """Bytes of a header changed, or rows replaced by anything JSON can say: refused or read."""
    whole = small.read_bytes()[:6000]
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, 5999))
        whole = whole[:at] + data.draw(st.binary(min_size=1, max_size=8)) + whole[at:]
    else:
        keys = st.sampled_from(["a", "dtype", "shape", "data_offsets"])
        odd = st.recursive(
            st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.just("F16"),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        )
        text = json.dumps(data.draw(odd)).encode()
        whole = len(text).to_bytes(8, "little") + text
    path = tmp_path / "a.safetensors"
    path.write_bytes(whole)
    refused(path)


def test_the_small_table_has_the_names_of_the_full_one():
    full = set(json.loads(Path("tests/golden/sd15.keys.json").read_text()))
    assert set(small_table()) <= full
