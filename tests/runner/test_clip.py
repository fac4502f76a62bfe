import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from runner.clip import TextEncoder, TextShape  # noqa: E402
from runner.tokenizer import chunks  # noqa: E402

PREFIX = "cond_stage_model.transformer."
KEYS = json.loads(Path("tests/golden/sd15.keys.json").read_text())
OWN = {key.removeprefix(PREFIX): shape for key, shape in KEYS.items() if key.startswith(PREFIX)}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    made = TextEncoder(TextShape(width=64, inner=128, layers=2))
    for words in (made.text_model.embeddings.token_embedding,
                  made.text_model.embeddings.position_embedding):  # fmt: skip
        torch.nn.init.normal_(words.weight)  # the runner leaves them as the memory was
    return made.half().requires_grad_(False)


def test_the_shape_is_read_off_the_weights():
    assert TextShape.of(OWN) == TextShape()


def test_sixteen_bit_weights_compute_in_float32(encoder):
    cond, pooled = encoder(chunks("a dog"))
    assert (cond.dtype, cond.shape, pooled.shape) == (torch.float32, (1, 77, 64), (1, 64))
    assert torch.equal(pooled, cond[:, 3])  # the first end mark


def test_a_weight_moves_its_tokens_away_from_the_empty_prompt(encoder):
    plain, empty = encoder(chunks("a dog"))[0], encoder(chunks(""))[0]
    heavy = encoder(chunks("a (dog:1.5)"))[0]
    assert torch.allclose(heavy[:, 2], (plain - empty)[:, 2] * 1.5 + empty[:, 2], atol=1e-5)
    others = [place for place in range(77) if place != 2]
    assert torch.allclose(heavy[:, others], plain[:, others], atol=1e-5)


def test_chunks_stand_one_after_the_other(encoder):
    cond, _ = encoder(chunks("a " * 100))
    assert cond.shape == (1, 154, 64)


def test_no_token_sees_what_comes_after_it(encoder):
    one, other = encoder(chunks("a dog"))[0], encoder(chunks("a cat"))[0]
    assert torch.allclose(one[:, :2], other[:, :2], atol=1e-6)
    assert not torch.allclose(one[:, 2], other[:, 2], atol=1e-3)
