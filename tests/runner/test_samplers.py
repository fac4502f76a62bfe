"""Samplers, judged in a world where the answer is known.

If every pixel of the data is a standard normal number, the perfect guess is x / (1 + σ²) and
the exact path is x(σ) = x(σ₀) · √((1 + σ²) / (1 + σ₀²)). Step twice as often, and a method of
order p must get 2ᵖ times closer. (The last jump, to σ = 0, is first-order by design: left out.)
"""

import math

import pytest

torch = pytest.importorskip("torch")

from runner import verify  # noqa: E402
from runner.samplers import SAMPLERS  # noqa: E402
from runner.trace import gap  # noqa: E402

ORDER = {"euler": 1, "heun": 2, "dpmpp_2m": 2}  # of accuracy, in the step size
RANDOM = {"euler_ancestral"}
CASES = [key for key in verify.golden() if key.startswith("samples/")]


def walk(name, steps, count=64):
    """Where a sampler ends, and where it should have."""
    dice = torch.Generator().manual_seed(0)
    sigmas = torch.linspace(math.log(10.0), math.log(0.05), steps, dtype=torch.float64).exp()
    spread = (1 + sigmas**2).sqrt()
    unit = torch.randn(count, generator=dice, dtype=torch.float64)

    def noise():
        return torch.randn(count, generator=dice, dtype=torch.float64)

    *_, end = SAMPLERS[name](lambda x, s: x / (1 + s**2), unit * spread[0], sigmas, noise)
    return end, unit * spread[-1]


@pytest.mark.parametrize("name", ORDER)
def test_order_of_accuracy(name):
    wrong = [(end - exact).abs().max() for end, exact in (walk(name, n) for n in (160, 320))]
    assert (wrong[0] / wrong[1]).log2().item() == pytest.approx(ORDER[name], abs=0.15)


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize(("steps", "ratio"), [(20, 0.747), (40, 0.857), (80, 0.926)])
def test_a_random_walk_has_the_spread_that_comfyuis_has(name, steps, ratio):
    """The variances that ComfyUI's function was measured to reach, on log-uniform σ."""
    sigmas = torch.linspace(math.log(14.6146), math.log(0.029167), steps + 1, dtype=torch.float64)
    sigmas, dice = sigmas.exp(), torch.Generator().manual_seed(1)

    def noise():
        return torch.randn(200_000, generator=dice, dtype=torch.float64)

    x = noise() * (1 + sigmas[0] ** 2).sqrt()
    *_, end = SAMPLERS[name](lambda x, s: x / (1 + s**2), x, sigmas, noise)
    assert (end.var() / (1 + sigmas[-1] ** 2)).item() == pytest.approx(ratio, abs=0.012)


@pytest.mark.parametrize("key", CASES)
def test_golden_cases_end_where_comfyuis_do(key):
    ours, calls = verify.in_known_world(key)
    assert gap(ours, verify.golden()[key]) <= 1e-5
    assert calls == verify.story()["model_calls"][key]


@pytest.mark.parametrize("name", SAMPLERS)
def test_nothing_given_is_changed_and_every_step_is_yielded(name):
    x, sigmas = torch.ones(1, 4, 2, 2), torch.tensor([2.0, 1.0, 0.5, 0.0])
    before = x.clone()
    ends = list(SAMPLERS[name](lambda x, s: x * 0.5, x, sigmas, lambda: torch.ones_like(x)))
    assert len(ends) == 3
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_to_zero_is_the_guess(name):
    x, sigmas = torch.ones(3), torch.tensor([2.0, 0.0])
    (end,) = SAMPLERS[name](lambda x, s: torch.full_like(x, 0.25), x, sigmas, lambda: x)
    assert torch.allclose(end, torch.full((3,), 0.25))


def test_every_sampler_is_judged():
    assert ORDER.keys() | RANDOM == SAMPLERS.keys()
    assert {key.split("/")[1] for key in CASES} == SAMPLERS.keys()
