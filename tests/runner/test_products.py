"""Products by oneDNN: the same numbers, and torch's own product wherever it is not to be had."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from runner import products  # noqa: E402
from runner.trace import gap  # noqa: E402

needs_it = pytest.mark.skipif(not products.there(), reason="this torch has no such operator")


def case(rows=300, dtype=torch.float32):
    torch.manual_seed(1)
    return [torch.randn(*size).to(dtype) for size in ((2, rows, 130), (170, 130), (170,))]


@pytest.fixture
def asked(monkeypatch):
    """The calls of oneDNN's operator."""
    calls = []
    if products.there():
        real = torch.ops.mkldnn._linear_pointwise

        def counted(*words):
            calls.append(words)
            return real(*words)

        operators(monkeypatch, counted)
    return calls


def operators(monkeypatch, one):
    monkeypatch.setattr(
        torch, "ops", SimpleNamespace(mkldnn=SimpleNamespace(_linear_pointwise=one))
    )


@needs_it
def test_the_operator_gives_the_product(asked):
    x, weight, bias = case()
    assert gap(products.product(x, weight, bias), x @ weight.T + bias) < 1e-6
    assert gap(products.product(x, weight), x @ weight.T) < 1e-6
    assert len(asked) == 2


@pytest.mark.parametrize("kept", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("part", [1, 1 << 21])  # rows in parts, the last one smaller; or at once
def test_a_weight_of_fewer_bits_is_widened_in_parts(kept, part, monkeypatch):
    monkeypatch.setattr(products, "ROWS", 64)
    monkeypatch.setattr(products, "PART", part)
    x, weight, bias = case()
    narrow = weight.to(kept)
    assert gap(products.product(x, narrow, bias), x @ narrow.float().T + bias) < 1e-6
    assert gap(products.product(x, narrow), x @ narrow.float().T) < 1e-6


def test_parts_are_of_256_rows_or_a_multiple(monkeypatch):
    """So that each core multiplies with what it has widened itself (measured)."""
    seen, real = [], torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda x, *w: seen.append(len(w[0])) or real(x, *w)
    )
    with products.without():
        for wide in (16, 2048, 1 << 14):
            products.product(torch.zeros(1, wide), torch.zeros(1280, wide).half())
    assert seen == [1280, 1024, 256, *[256] * 5]


@pytest.mark.parametrize(
    "options",
    [{}, {"padding": 1}, {"padding": 1, "stride": 2}, {"padding": (0, 2), "stride": (2, 1)}],
    ids=str,
)
@pytest.mark.parametrize("kept", [torch.float32, torch.float16])
def test_a_convolution_by_columns(options, kept):
    torch.manual_seed(1)
    conv = torch.nn.Conv2d(20, 30, 3, **options).requires_grad_(False)
    conv.weight = torch.nn.Parameter(conv.weight.to(kept), requires_grad=False)
    x = torch.randn(2, 20, 9, 7).contiguous(memory_format=torch.channels_last)
    right = torch.nn.functional.conv2d(x, conv.weight.float(), conv.bias, **options)
    made = products.by_columns(x, conv)
    assert gap(made, right) < 1e-6
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_many_at_once():
    torch.manual_seed(1)
    x, weight = torch.randn(3, 400, 130), torch.randn(3, 170, 130)
    made = products.products(x, weight)
    with products.without():
        other = products.products(x, weight)
    for one, plain, right in zip(made, other, x @ weight.transpose(1, 2), strict=True):
        assert gap(one, right) < 1e-6
        assert gap(plain, right) < 1e-6


@pytest.mark.parametrize(
    ("rows", "dtype"), [(2, torch.float32), (300, torch.float64), (300, torch.bfloat16)], ids=str
)
def test_few_rows_and_other_dtypes_are_left_to_torch(rows, dtype, asked):
    x, weight, bias = case(rows, dtype)
    plain = torch.nn.functional.linear(x, weight, bias)
    assert torch.equal(products.product(x, weight, bias), plain)
    assert not asked


@pytest.mark.parametrize("place", range(3))
def test_gradients_are_not_lost(place, asked):
    given = case()
    learned = given[place].requires_grad_()
    products.product(*given).sum().backward()
    assert float(learned.grad.abs().sum()) > 0
    assert not asked


def test_banned_it_is_not_asked(asked):
    x, weight, bias = case()
    with products.without():
        products.product(x, weight, bias)
        with products.without():
            pass
        products.product(x, weight, bias)
    assert not asked


def raising(*_):
    raise RuntimeError("weight must be packed")


def gone(*_):
    raise AttributeError("no such operator")


def wrong(x, weight, *_):
    return x @ weight.T + 1


@pytest.mark.parametrize("operator", [raising, gone, wrong], ids=lambda one: one.__name__)
def test_an_operator_that_cannot_be_used_is_left_alone(operator, monkeypatch):
    operators(monkeypatch, operator)
    products.there.cache_clear()
    try:
        assert not products.there()
        x, weight, bias = case()
        assert gap(products.product(x, weight, bias), x @ weight.T + bias) < 1e-6
    finally:
        products.there.cache_clear()


def test_on_another_machine_nothing_is_tried(monkeypatch, asked):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    products.there.cache_clear()
    try:
        assert not products.there()
        assert not asked
    finally:
        products.there.cache_clear()
