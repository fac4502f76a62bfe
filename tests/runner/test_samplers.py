"""Samplers, judged in a world where the answer is known.

If every pixel of the data is a normal number of variance v, the perfect guess is x v / (v + σ²)
and the exact path is x(σ) = x(σ₀) · √((v + σ²) / (v + σ₀²)). Step twice as often, and a method of
order p must get 2ᵖ times closer. (The last jump, to σ = 0, is first-order by design: left out.)
"""

import math

import pytest

torch = pytest.importorskip("torch")

from runner import noise, rungs_formula, sampler  # noqa: E402
from runner.golden import golden  # noqa: E402
from runner.recipe import Refused  # noqa: E402
from runner.samplers import SAMPLERS  # noqa: E402
from runner.trace import gap  # noqa: E402

ERRORS = {  # at 20 and 80 steps, v = 1/4: relative rms measured on ComfyUI's functions; order
    "euler": (7.444e-2, 1.915e-2, 1),
    "ddim": (7.444e-2, 1.915e-2, 1),
    "euler_cfg_pp": (7.444e-2, 1.915e-2, 1),
    "gradient_estimation": (5.809e-2, 1.804e-2, 1),
    "gradient_estimation_cfg_pp": (5.809e-2, 1.804e-2, 1),
    "heunpp2": (6.697e-2, 1.719e-2, 1),
    "heun": (1.306e-2, 7.679e-4, 2),
    "dpm_2": (6.329e-3, 3.806e-4, 2),
    "dpmpp_2m": (5.596e-3, 3.664e-4, 2),
    "dpmpp_2m_cfg_pp": (5.596e-3, 3.664e-4, 2),
    "res_multistep": (1.031e-2, 6.269e-4, 2),
    "res_multistep_cfg_pp": (1.031e-2, 6.269e-4, 2),
    "ipndm": (4.183e-3, 2.477e-4, 2),
    "ipndm_v": (None, None, 2.89),
    "deis": (5.690e-3, 1.167e-4, None),
    "lms": (7.257e-3, 6.047e-5, 3.3),
}
RAGGED = {"dpm_fast", "dpm_adaptive", "uni_pc", "uni_pc_bh2"}  # have no single order: see below
SPREADS = {  # the variance ComfyUI's functions reach at 20 and 40 steps, of 1
    "euler_ancestral": (0.747, 0.857),
    "euler_ancestral_cfg_pp": (0.747, 0.857),
    "ddpm": (0.747, 0.857),
    "dpm_2_ancestral": (1.057, 1.009),
    "dpmpp_2s_ancestral": (0.961, 0.985),
    "dpmpp_2s_ancestral_cfg_pp": (None, 0.680),
    "dpmpp_sde": (0.986, 1.000),
    "dpmpp_sde_gpu": (0.986, 1.000),
    "dpmpp_2m_sde": (1.032, 1.011),
    "dpmpp_2m_sde_gpu": (1.032, 1.011),
    "dpmpp_2m_sde_heun": (None, None),
    "dpmpp_2m_sde_heun_gpu": (None, None),
    "dpmpp_3m_sde": (1.032, 1.010),
    "dpmpp_3m_sde_gpu": (1.032, 1.010),
    "res_multistep_ancestral": (None, None),
    "res_multistep_ancestral_cfg_pp": (None, None),
    "er_sde": (0.982, 0.993),
    "seeds_2": (0.955, 0.988),
    "seeds_3": (0.998, 1.002),
    "sa_solver": (1.010, 1.006),
    "sa_solver_pece": (None, None),
    "lcm": (None, None),
}
CASES = [key for key in golden().tensors if key.startswith("samples/")]


def log_uniform(steps):
    ends = math.log(14.6146), math.log(0.029167)
    return torch.linspace(*ends, steps + 1, dtype=torch.float64).exp()


def error(name, steps, dtype=torch.float64):
    """Relative rms between where a sampler ends and where the exact path does."""
    sigmas = log_uniform(steps).to(dtype)
    unit = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)
    x, exact = (unit * (0.25 + sigma**2).sqrt() for sigma in (sigmas[0], sigmas[-1]))
    dice = noise.Dice(0, x)
    *_, end = SAMPLERS[name](lambda x, s: x * 0.25 / (0.25 + s**2), x, sigmas, dice)
    return gap(end, exact)


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_those_of_comfyuis_functions(name):
    few, many, order = ERRORS[name]
    if few:
        assert error(name, 20) == pytest.approx(few, rel=0.02)
        assert error(name, 80) == pytest.approx(many, rel=0.02)
    if order:
        assert math.log2(error(name, 160) / error(name, 320)) == pytest.approx(order, abs=0.15)


def test_the_ragged_ones_are_as_accurate_as_they_were_measured():
    assert 2e-2 < error("dpm_adaptive", 30) < 3e-2
    assert math.log2(error("dpm_fast", 15) / error("dpm_fast", 120)) / 3 > 2.5
    for name in ("uni_pc", "uni_pc_bh2"):  # in float32, whose rounding is all that is left
        assert error(name, 20, torch.float32) < 2e-4
        assert error(name, 80, torch.float32) < 6e-5


class Walk(noise.Dice):
    """Brownian increments without torchsde, for a path asked first to a middle, then to the end."""

    def path(self, sigmas, on_device):
        halfway = []

        def increment(sigma, target):
            if halfway and halfway[0] == sigma:
                _, middle, walked = halfway
                rest = self() * (middle - target).sqrt()
                return (walked * (sigma - middle).sqrt() + rest) / (sigma - target).sqrt()
            halfway[:] = sigma, target, self()
            return halfway[2]

        return increment


@pytest.mark.parametrize("name", [name for name, known in SPREADS.items() if any(known)])
def test_a_random_walk_has_the_spread_that_comfyuis_has(name):
    """On log-uniform σ, data of variance 1, 200,000 numbers: to about ± 0.01."""
    for steps, ratio in zip((20, 40), SPREADS[name], strict=True):
        sigmas = log_uniform(steps).float()
        start = torch.randn(200_000, generator=torch.Generator().manual_seed(1))
        x = start * (1 + sigmas[0] ** 2).sqrt()
        *_, end = SAMPLERS[name](lambda x, s: x / (1 + s**2), x, sigmas, Walk(2, x))
        if name.startswith("sa_solver"):
            sigmas = sigmas[:-1]  # without a σ of 0 it ends one step early, as ComfyUI's
        if ratio:
            assert (end.var() / (1 + sigmas[-1] ** 2)).item() == pytest.approx(ratio, abs=0.012)


@pytest.mark.parametrize("key", CASES)
def test_golden_cases_end_where_comfyuis_do(key):
    ours, calls = rungs_formula.in_known_world(key)
    assert gap(ours, golden()[key]) <= 1e-5
    assert calls == golden().story["model_calls"][key]


@pytest.mark.parametrize("name", SAMPLERS)
def test_nothing_given_is_changed_and_every_step_is_yielded(name):
    x, sigmas = torch.ones(1, 4, 2, 2), torch.tensor([2.0, 1.0, 0.5, 0.0])
    before = x.clone(), sigmas.clone()
    ends = list(SAMPLERS[name](lambda x, s: x * 0.5, x, sigmas, noise.Dice(3, x)))
    assert len(ends) == {"dpm_fast": 2, "dpm_adaptive": len(ends)}.get(name, 3)
    assert all(end.isfinite().all() for end in ends)
    assert torch.equal(x, before[0])
    assert torch.equal(sigmas, before[1])


@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - RAGGED))
def test_one_step_to_zero_is_the_guess(name):
    x, sigmas = torch.ones(3), torch.tensor([2.0, 0.0])
    dice = noise.Dice(3, x)
    (end,) = SAMPLERS[name](lambda x, s: torch.full_like(x, 0.25), x, sigmas, dice)
    assert torch.allclose(end, torch.full((3,), 0.25))


@pytest.mark.parametrize("name", sorted(RAGGED))
def test_one_step_is_none_for_the_samplers_that_stop_before_zero(name):
    x, sigmas = torch.ones(3), torch.tensor([2.0, 0.0])
    ends = list(SAMPLERS[name](lambda x, s: x * 0.5, x, sigmas, noise.Dice(3, x)))
    if name.startswith("uni"):
        ends = [ends[0] * 5**0.5]  # back in the scaling it came in
    assert all(torch.allclose(end, x) for end in ends)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_walk_of_no_interval_is_no_step(name):
    x = torch.ones(3)
    assert not list(SAMPLERS[name](lambda x, s: x, x, torch.tensor([2.0]), noise.Dice(3, x)))


def test_an_adaptive_walk_ends_where_there_is_nothing_to_adapt_to():
    x, sigmas = torch.ones(3), torch.tensor([2.0, 1.0, 0.0])
    nothing = lambda x, s: x * float("nan")  # noqa: E731
    (end,) = SAMPLERS["dpm_adaptive"](nothing, x, sigmas, noise.Dice(3, x))
    assert end.isnan().all()


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name.endswith("cfg_pp")])
def test_cfg_pp_samplers_see_the_unconditional_guess(name):
    x, sigmas = torch.ones(3), torch.tensor([2.0, 1.0, 0.5, 0.0])

    def end(plain):
        denoise = sampler.Guided(lambda x, s: x / 2, lambda x, s: (x / 2, x * plain))
        return [*SAMPLERS[name](denoise, x, sigmas, noise.Dice(3, x))][-1]

    assert not torch.allclose(end(0.5), end(0.3))
    alone = [*SAMPLERS[name](lambda x, s: x / 2, x, sigmas, noise.Dice(3, x))][-1]
    assert torch.equal(end(0.5), alone)


def test_a_brownian_path_is_one_path():
    x = torch.zeros(1000)
    path = noise.Dice(9, x).path(torch.tensor([4.0, 1.0, 0.0]), on_device=False)
    a, b, c = torch.tensor(4.0), torch.tensor(2.5), torch.tensor(1.0)
    first, second, whole = path(a, b) * 1.5**0.5, path(b, c) * 1.5**0.5, path(a, c) * 3**0.5
    assert torch.allclose(first + second, whole, atol=1e-4)
    assert torch.allclose(path(b, a), -path(a, b))
    assert float(whole.var()) == pytest.approx(3.0, rel=0.15)


def test_without_torchsde_the_samplers_that_need_it_say_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchsde", None)
    x, sigmas = torch.ones(3), torch.tensor([2.0, 1.0, 0.0])
    for name, walk in SAMPLERS.items():
        steps = walk(lambda x, s: x * 0.5, x, sigmas, noise.Dice(3, x))
        if name.startswith("dpmpp") and "sde" in name:
            with pytest.raises(Refused, match="pip install torchsde"):
                list(steps)
        else:
            list(steps)


def test_every_sampler_is_judged():
    assert ERRORS.keys() | RAGGED | SPREADS.keys() == SAMPLERS.keys()
    assert {key.split("/")[1] for key in CASES} == SAMPLERS.keys()
    assert len(CASES) == 3 * 42
