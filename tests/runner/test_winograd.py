"""Winograd's convolution against torch's, in float64 where it must be exact."""

import pytest

torch = pytest.importorskip("torch")

from runner import winograd  # noqa: E402
from runner.trace import gap  # noqa: E402

CASES = [(1, 2, 2, 1, 1), (1, 1, 1, 3, 2), (2, 8, 6, 5, 7), (3, 7, 5, 4, 4), (1, 33, 9, 8, 16)]


def case(batch, high, wide, c_in, c_out, dtype):
    torch.manual_seed(1)
    conv = torch.nn.Conv2d(c_in, c_out, 3, padding=1, dtype=dtype).requires_grad_(False)
    return conv, torch.randn(batch, c_in, high, wide, dtype=dtype)


def tiled(conv, x, way):
    weight = winograd.transformed(conv.weight, way)
    rows = x.permute(0, 2, 3, 1).contiguous()
    return winograd.convolved(rows, weight, conv.bias, way).permute(0, 3, 1, 2)


@pytest.mark.parametrize("way", [winograd.SMALL, winograd.LARGE], ids=["small", "large"])
@pytest.mark.parametrize("block", [1, 1 << 21])  # one row of tiles at a time, or all
@pytest.mark.parametrize("sizes", CASES, ids=str)
def test_it_is_the_convolution(sizes, block, way, monkeypatch):
    monkeypatch.setattr(winograd, "BLOCK", block)
    conv, x = case(*sizes, torch.float64)
    assert gap(tiled(conv, x, way), conv(x)) < 1e-14


@pytest.mark.parametrize(("way", "lost"), [(winograd.SMALL, 5e-7), (winograd.LARGE, 1.5e-6)])
def test_float32_loses_no_more_than_a_few_last_bits(way, lost):
    conv, x = case(1, 16, 16, 256, 64, torch.float32)
    exact = conv.double()(x.double())
    assert gap(tiled(conv.float(), x, way), exact) < lost


@pytest.mark.parametrize("kept", [torch.float16, torch.bfloat16])
def test_weights_of_fewer_bits_are_widened_before(kept, monkeypatch):
    monkeypatch.setattr(winograd, "PIECE", 8)
    narrow = torch.randn(5, 4, 3, 3).to(kept)
    made = winograd.transformed(narrow, dtype=torch.float32)
    assert torch.equal(made, winograd.transformed(narrow.float()))


@pytest.mark.parametrize(
    ("options", "suits"),
    [
        ({"padding": 1}, True),
        ({"padding": 1, "stride": 2}, False),
        ({"padding": 0}, False),
        ({"padding": 1, "groups": 2}, False),
        ({"padding": 1, "dilation": 2}, False),
    ],
)
def test_what_suits(options, suits):
    assert winograd.suits(torch.nn.Conv2d(4, 4, 3, **options)) is suits
    assert not winograd.suits(torch.nn.Conv2d(4, 4, 1))
