"""A share of `python -m tests.runner.fuzz`, with other seeds than the command's."""

import pytest

pytest.importorskip("torch")

from tests.runner import fuzz


def test_damaged_weights_are_a_sentence_and_little_memory(tmp_path):
    assert fuzz.weights(100, tmp_path, seed=1) < 100


def test_hostile_pictures_are_a_sentence_and_little_memory(tmp_path):
    assert fuzz.pictures(300, tmp_path, seed=1) < 300


def test_a_header_of_nothing_but_commas_is_damage(tmp_path):
    path = tmp_path / "a.safetensors"
    for text in (b"[" + b"0," * 4_000_000, b"[" + b"{}," * 2_000_000):
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        assert fuzz.within(path, fuzz.checkpoint.read, 0) is None
