import pytest

torch = pytest.importorskip("torch")

from runner.layers import layers, parted, rounding  # noqa: E402


def test_the_first_layer_that_parts_is_named():
    network = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(4)))
    x = torch.randn(1, 8)
    before = layers(network, lambda: network(x))
    theirs = {layer: mark.numbers for layer, mark in before.items()}
    assert parted(before, theirs, 0) is None
    with torch.no_grad():
        network[2].bias[3] += 0.1
    after = layers(network, lambda: network(x))
    assert list(after) == ["0", "1", "2", "3"]
    assert parted(after, theirs, 1e-5).startswith("2 (about ")


def test_numbers_that_were_rounded_on_the_way_are_known_by_their_bits():
    exact = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    assert rounding(exact) == ""
    assert rounding(exact.bfloat16().float()) == "bfloat16"
    assert rounding(exact.half().float()) == "float16"
    assert rounding(torch.zeros(1000)) == ""
    assert rounding(exact.half()) == ""  # nothing hidden: its dtype says so
