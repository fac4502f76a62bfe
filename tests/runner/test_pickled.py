"""Pickles: opened for their tensors alone, or refused with the name that they asked for."""

import io
import os
import pickle
import sys
import types
import zipfile

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402

from runner import checkpoint, devices, pickled  # noqa: E402
from runner.recipe import Refused  # noqa: E402


class Command:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def refused(path):
    with pytest.raises(Refused) as caught:
        checkpoint.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("wrap", [True, False])
def test_a_ckpt_is_the_same_checkpoint(small, tmp_path, archive, wrap):
    stored = load_file(small)
    whole = {"state_dict": stored, "global_step": 5, "epoch": 1} if wrap else stored
    path = tmp_path / "a.ckpt"
    torch.save(whole, path, _use_new_zipfile_serialization=archive)
    places = devices.choose("cpu", "float32").places
    both = [
        checkpoint.assemble(checkpoint.read(one), places, 2, lambda *_: None)
        for one in (small, path)
    ]
    for ours, theirs in zip(both[0].unet.parameters(), both[1].unet.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_what_lightning_leaves_behind_is_no_harm(small, tmp_path, monkeypatch):
    left = pickled.left_behind()
    parts = left.__module__.split(".")
    for length in range(1, 1 + len(parts)):
        module = types.ModuleType(".".join(parts[:length]))
        module.ModelCheckpoint = left
        monkeypatch.setitem(sys.modules, module.__name__, module)
    whole = {"state_dict": load_file(small), "callbacks": {left: {"best": 1.0}}}
    torch.save(whole, tmp_path / "a.ckpt")
    monkeypatch.undo()
    assert checkpoint.read(tmp_path / "a.ckpt").family == "SD 1.x"


@pytest.mark.parametrize("archive", [True, False])
def test_a_pickle_that_wants_to_run_something_is_refused_and_runs_nothing(tmp_path, archive):
    path, sign = tmp_path / "a.ckpt", tmp_path / "it ran"
    torch.save({"state_dict": Command(sign)}, path, _use_new_zipfile_serialization=archive)
    error = refused(path)
    assert error.id == "checkpoint-unsafe"
    assert "system" in str(error)
    assert not sign.exists()


def test_a_torch_that_can_be_led_astray_is_not_used(small, tmp_path, monkeypatch):
    torch.save(load_file(small), tmp_path / "a.ckpt")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu124")
    assert refused(tmp_path / "a.ckpt").id == "torch-too-old"


def packed(tmp_path, small):
    plain = tmp_path / "plain.ckpt"
    torch.save(load_file(small), plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(tmp_path / "a.ckpt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry), zipfile.ZIP_DEFLATED)


def test_a_packed_archive_is_refused(tmp_path, small):
    packed(tmp_path, small)
    assert "compressed" in str(refused(tmp_path / "a.ckpt"))


JUNK = {
    "zip": b"PK\x03\x04" + bytes(100),
    "empty dictionary": b"\x80\x02}q\x00." * 20,
    "list": pickle.dumps([1, 2]),
    "deep": b"\x80\x02" + b"(" * 100_000,
    "cut": pickle.dumps({"a": list(range(100))})[:50],
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_is_a_sentence(tmp_path, name):
    (tmp_path / "a.ckpt").write_bytes(JUNK[name])
    assert refused(tmp_path / "a.ckpt").id == "checkpoint-damaged"


def test_a_damaged_pickle_is_always_a_sentence(small, tmp_path):
    packed = io.BytesIO()
    torch.save({"a": torch.ones(4), "b": {"c": torch.ones(2, 2)}}, packed)
    data, generator = packed.getvalue(), torch.Generator().manual_seed(1)
    for _ in range(200):
        wrong = bytearray(data)
        for at in torch.randint(len(wrong), (4,), generator=generator).tolist():
            wrong[at] = int(torch.randint(256, (1,), generator=generator))
        (tmp_path / "a.ckpt").write_bytes(wrong)
        refused(tmp_path / "a.ckpt")
