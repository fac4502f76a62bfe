import os
import platform
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from runner import schedules  # noqa: E402
from runner.golden import golden  # noqa: E402
from runner.recipe import Refused  # noqa: E402

TABLES = {
    "eps": schedules.sigma_table(),
    "v": schedules.sigma_table(),
    "v_zsnr": schedules.sigma_table(zero_snr=True),
}


def told(key):
    _, predicts, scheduler, sampler, steps, denoise = key.split("/")
    return TABLES[predicts], scheduler, sampler, int(steps[6:]), float(denoise[8:])


def different():
    keys = [key for key in golden().tensors if key.startswith("sigmas/")]
    assert len(keys) == 66 * 9 - 3  # without kl_optimal's NaN at one step
    assert {key.split("/")[2] for key in keys} == schedules.SCHEDULES.keys()
    return [key for key in keys if not torch.equal(schedules.walk(*told(key)), golden()[key])]


def test_every_golden_schedule_is_equal_to_the_last_bits():
    for key in different():
        theirs = golden()[key]
        assert torch.allclose(schedules.walk(*told(key)), theirs, rtol=2e-7, atol=0), key


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the golden bits are those of AVX2")
def test_every_golden_schedule_is_bit_equal_on_the_same_instruction_set():
    code = "from tests.runner.test_schedules import different; print(*different())"
    child = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    run = subprocess.run([sys.executable, "-c", code], env=child, capture_output=True, text=True)
    assert run.stdout == "\n", run.stdout + run.stderr


def test_the_table_has_the_known_ends():
    table = schedules.sigma_table()
    assert float(table.sigmas[0]) == pytest.approx(0.0291671585, rel=1e-7)
    assert float(table.sigmas[-1]) == pytest.approx(14.6146412, rel=1e-7)
    assert float(TABLES["v_zsnr"].sigmas[-1]) == pytest.approx(4518.76, rel=1e-5)


def test_a_timestep_is_the_nearest_whole_number():
    table = schedules.sigma_table()
    assert table.timestep(table.sigmas[[0, 500, 999]]).tolist() == [0, 500, 999]
    assert float(table.sigma(torch.tensor(500.0))) == pytest.approx(float(table.sigmas[500]))


@pytest.mark.parametrize("scheduler", schedules.SCHEDULES)
@pytest.mark.parametrize(("steps", "denoise"), [(20, 0.55), (20, 0.7), (1, 0.01), (3, 1.0)])
def test_as_many_steps_as_were_asked_for_are_taken(scheduler, steps, denoise):
    sigmas = schedules.walk(TABLES["eps"], scheduler, "euler", steps, denoise)
    assert len(sigmas) == steps + 1
    assert sigmas[-1] == 0
    assert (sigmas[:-1] > sigmas[1:]).all()


def test_denoise_zero_is_no_walk_and_nearly_one_is_a_whole_one():
    table = TABLES["eps"]
    assert len(schedules.walk(table, "normal", "euler", 5, 0.0)) == 0
    whole = schedules.walk(table, "normal", "euler", 5, 1.0)
    assert torch.equal(schedules.walk(table, "normal", "euler", 5, 0.99995), whole)


def test_ddim_uniform_takes_a_step_more_where_the_table_does_not_divide():
    for steps, taken in ((6, 7), (19, 20), (20, 20), (10, 10)):
        assert len(schedules.ddim_uniform(TABLES["eps"], steps)) == taken + 1
    assert len(schedules.ddim_uniform(TABLES["eps"], 2000)) == 1000


@pytest.mark.parametrize(("steps", "taken"), [(20, 20), (100, 100), (150, 149), (400, 387)])
def test_beta_visits_nothing_twice(steps, taken):
    sigmas = schedules.beta(TABLES["eps"], steps)
    assert len(sigmas) == taken + 1
    assert (sigmas[:-1] > sigmas[1:]).all()


def test_beta_is_scipys_for_every_number_of_steps():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    numpy = pytest.importorskip("numpy")
    for steps in [*range(1, 200), 1000, 9999]:
        quantiles = 1 - numpy.linspace(0, 1, steps, endpoint=False)
        places = numpy.rint(stats.beta.ppf(quantiles, 0.6, 0.6) * 999).astype(int)
        theirs = [p for at, p in enumerate(places) if at == 0 or p != places[at - 1]]
        expected = torch.cat([TABLES["eps"].sigmas[theirs], torch.zeros(1)])
        assert torch.equal(schedules.beta(TABLES["eps"], steps), expected), steps


def test_kl_optimal_at_one_step_is_refused_with_a_sentence():
    with pytest.raises(Refused, match="at least 2 steps"):
        schedules.walk(TABLES["eps"], "kl_optimal", "euler", 1, 1.0)
    assert len(schedules.walk(TABLES["eps"], "kl_optimal", "dpm_2", 1, 1.0)) == 2


def test_a_part_of_a_walk_is_ksampler_advanceds():
    whole = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.0])
    for start, end, leftover, left in (
        (0, 10_000, False, [5.0, 3.0, 2.0, 1.0, 0.0]),
        (2, 10_000, False, [2.0, 1.0, 0.0]),
        (0, 2, True, [5.0, 3.0, 2.0]),
        (0, 2, False, [5.0, 3.0, 0.0]),
        (1, 3, True, [3.0, 2.0, 1.0]),
        (4, 10_000, False, []),
        (3, 2, True, []),
        (0, 0, False, []),
    ):
        assert schedules.part(whole, start, end, leftover).tolist() == left
    assert whole.tolist() == [5.0, 3.0, 2.0, 1.0, 0.0]
    assert not len(schedules.part(torch.empty(0), 0, 10_000, False))
