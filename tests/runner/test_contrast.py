"""The image tower against transformers' CLIPModel, and the contrastive loss against its sums."""

import math

import pytest

torch = pytest.importorskip("torch")

from runner.clip import Rows, TextEncoder, TextShape  # noqa: E402
from runner.contrast import Contrast, ImageShape, contrastive_loss  # noqa: E402

SHAPE = ImageShape(width=64, inner=128, layers=2, patch=8, patches=36, common=32)


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return Contrast(SHAPE, 64).eval().requires_grad_(False)


def test_sizes_are_read_off_the_weights(tower):
    shapes = {name: tuple(weight.shape) for name, weight in tower.named_parameters()}
    assert ImageShape.of(shapes) == SHAPE


def test_both_towers_score_as_transformers_does(tower):
    from transformers import CLIPConfig, CLIPModel

    text = TextEncoder(TextShape(width=64, inner=128, layers=2, words=50)).eval()
    for embedding in text.text_model.embeddings.children():
        torch.nn.init.normal_(embedding.weight)  # the loader's memory is not set before it is read
    sizes = {"intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1}
    theirs = CLIPModel(
        CLIPConfig(
            text_config=sizes | {"hidden_size": 64, "vocab_size": 50, "eos_token_id": 49},
            vision_config=sizes | {"hidden_size": 64, "image_size": 48, "patch_size": 8},
            projection_dim=32,
        )
    ).eval()
    ours = dict(tower.named_parameters()) | dict(text.named_parameters())
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            weight.copy_(ours[name])
        ids = torch.tensor([[48, 3, 4, 49, 49], [48, 7, 49, 49, 49]])
        pictures = torch.rand(3, 48, 48, 3)
        z = text.text_model.final_layer_norm(text.text_model(Rows(ids.tolist(), (), 0), -1)[0])
        logits = tower.logits(pictures, z[torch.arange(2), (ids == 49).int().argmax(1)])
        pixels = pictures.movedim(-1, 1) * 2 - 1
        expected = theirs(input_ids=ids, pixel_values=pixels).logits_per_image
    assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_picture_of_another_size_is_scaled(tower):
    assert tower.see(torch.rand(1, 96, 64, 3)).shape == (1, 32)


def test_unit_vectors(tower):
    assert tower.see(torch.rand(2, 48, 48, 3)).norm(dim=1) == pytest.approx([1, 1], abs=1e-5)
    assert tower.read(torch.randn(2, 64)).norm(dim=1) == pytest.approx([1, 1], abs=1e-5)


def test_the_loss_of_a_batch_by_hand():
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-2))]
    columns = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(-3))]
    expected = (sum(rows) / 2 + sum(columns) / 2) / 2
    assert float(contrastive_loss(logits)) == pytest.approx(expected)
    assert float(contrastive_loss(torch.zeros(8, 8))) == pytest.approx(math.log(8))
