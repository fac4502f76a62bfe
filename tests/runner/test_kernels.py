"""The GPU's kernels under Triton's interpreter: the numbers of torch's own steps, on the CPU."""

import pytest

torch = pytest.importorskip("torch")

pytest.importorskip("triton", reason="Triton is not installed: its kernels are not run here")

from torch.nn.functional import gelu, silu  # noqa: E402

from runner import kernels  # noqa: E402
from runner.trace import gap  # noqa: E402

SHAPES = [(1, 32, 4, 4), (2, 64, 5, 3), (2, 96, 17, 31), (1, 320, 8, 8)]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr(kernels, "INTERPRETED", True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_norm_and_silu_in_one(shape, dtype):
    torch.manual_seed(2)
    norm = torch.nn.GroupNorm(32, shape[1]).requires_grad_(False)
    norm.weight.normal_(), norm.bias.normal_()
    x = (torch.randn(shape) * 3 + 1).to(dtype).contiguous(memory_format=torch.channels_last)
    exact = silu(norm.double()(x.double()))
    ours = kernels.norm_silu(x, 32, norm.weight.float(), norm.bias.float(), norm.eps)
    assert ours.dtype == dtype
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert gap(ours, exact) < {torch.float32: 1e-6, torch.float16: 1e-3}[dtype]


def test_a_large_mean_costs_no_digits():
    norm = torch.nn.GroupNorm(32, 64).requires_grad_(False)
    x = (torch.randn(1, 64, 9, 9) + 1000).contiguous(memory_format=torch.channels_last)
    exact = silu(norm.double()(x.double()))
    ours = kernels.norm_silu(x, 32, norm.weight.float(), norm.bias.float(), norm.eps)
    assert gap(ours, exact) < 1e-4
    x = x.contiguous()
    squares = (x.view(1, 32, -1) ** 2).mean(-1) - x.view(1, 32, -1).mean(-1) ** 2
    naive = gap(squares, x.double().view(1, 32, -1).var(-1, unbiased=False).float())
    assert naive > 1e-3  # what E[x²] - E[x]² would have lost


@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 5, 256), (3, 7, 2 * 1300)], ids=str)
def test_gated_gelu_in_one(shape):
    torch.manual_seed(2)
    wide = torch.randn(shape)
    value, gate = wide.chunk(2, dim=-1)
    assert gap(kernels.geglu(wide), value * gelu(gate)) < 1e-6
