import time

import pytest

torch = pytest.importorskip("torch")

from runner import bench, causes, ceiling, checkpoint, devices, pipeline, slowness  # noqa: E402
from runner.recipe import Refused  # noqa: E402


def test_timing_doubts_itself():
    assert not list(bench.Timing((1.0, 1.01, 0.99, 1.0, 1.0)).doubts())
    assert len(list(bench.Timing((3.0, 1.0, 1.4, 0.7)).doubts())) == 3


def test_the_spread_is_not_moved_by_one_bad_step():
    timing = bench.Timing((1.0, 1.1, 0.9, 1.0, 50.0))
    assert (timing.typical, round(timing.spread, 6)) == (1.0, 0.1)


def test_steps_are_timed_with_what_the_device_still_has_to_do():
    waits = []
    steps = (time.sleep(0.01) for _ in range(3))
    taken = list(bench.timed(steps, lambda: waits.append(1)))
    assert len(taken) == 3
    assert min(taken) >= 0.01
    assert len(waits) == 4


@pytest.fixture(scope="module")
def result(small):
    models = pipeline.load(checkpoint.read(small), devices.choose("cpu"), 2, lambda *_: None)
    settings = bench.settings_for("small", models.placement, steps=3, runs=2, batch=2)
    return bench.measure(models, settings, lambda *_: None).to_json()


def test_every_raw_number_is_kept(result):
    assert len(result["seconds"]) == 6
    assert result["steps_per_second"] == pytest.approx(1 / result["median"])
    assert result["settings"]["dtype"] == "float32"
    assert result["machine"]["threads"] == torch.get_num_threads()


def test_no_two_runs_get_the_same_input(small, monkeypatch):
    seen = []
    models = pipeline.load(checkpoint.read(small), devices.choose("cpu"), 2, lambda *_: None)
    draw = bench.first_noise
    monkeypatch.setattr(
        bench, "first_noise", lambda seed, like: seen.append(seed) or draw(seed, like)
    )
    settings = bench.settings_for("small", models.placement, steps=1, runs=3)
    bench.measure(models, settings, lambda *_: None)
    assert len(seen) == len(set(seen)) == 4


@pytest.mark.parametrize("wrong", [{"size": 60}, {"size": 65}, {"steps": 0}, {"batch": 0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(Refused, match="is a"):
        bench.Settings("x", **wrong).checked()


def test_it_is_told_what_a_step_asks_of_the_device(result):
    assert result["flops"] > 1e6
    rate = result["flops"] / result["median"]
    assert result["share"] == pytest.approx(rate / result["ceiling"]["flops"])
    assert set(result["stages"]) == {"text", "first step", "encode", "decode"}
    assert result["ceiling"]["bytes"] > 0


def test_operations_are_counted_and_not_done(small):
    models = pipeline.load(checkpoint.read(small), devices.choose("cpu"), 2, lambda *_: None)
    unet = models.denoiser.unet
    before = {name: weight.data_ptr() for name, weight in unet.named_parameters()}
    x, t = torch.zeros(1, 4, 8, 8), torch.zeros(1)
    text = torch.zeros(1, 77, unet.middle_block[1].transformer_blocks[0].attn2.to_k.in_features)
    one = ceiling.flops(unet, x, t, text, None)
    assert ceiling.flops(unet, x.repeat(2, 1, 1, 1), t.repeat(2), text.repeat(2, 1, 1)) == 2 * one
    assert before == {name: weight.data_ptr() for name, weight in unet.named_parameters()}


def test_a_busy_machine_is_said(result):
    timing = bench.Timing((1.0,) * 5)
    settings = bench.Settings("x")
    rate = ceiling.Ceiling(1e9, 1e9)
    quiet, busy = (bench.Bench({}, settings, timing, {}, rate, None, None, n) for n in (0.1, 3.2))
    assert not list(quiet.doubts())
    assert list(busy.doubts()) == ["3.2 other processes wanted this machine's cores."]


def test_a_device_that_changed_meanwhile_is_said(small, monkeypatch):
    rates = iter((1e12, 0.8e12))
    monkeypatch.setattr(bench, "ceiling", lambda *_: ceiling.Ceiling(next(rates), 1e12))
    models = pipeline.load(checkpoint.read(small), devices.choose("cpu"), 2, lambda *_: None)
    settings = bench.settings_for("small", models.placement, steps=1, runs=1)
    told = bench.measure(models, settings, lambda *_: None).to_json()
    assert told["drift"] == pytest.approx(-0.2)
    assert "The device's own rate of products changed by -20% meanwhile." in told["doubts"]
    assert told["ceiling"]["flops"] == 1e12


def test_a_card_below_its_clock_and_company_on_it_are_said():
    timing, rate = bench.Timing((1.0,) * 5), ceiling.Ceiling(1e9, 1e9)
    card = {"slowed": ["power cap"], "others": 2}
    one = bench.Bench({}, bench.Settings("x"), timing, {}, rate, None, None, 0.0, None, card)
    told = list(one.doubts())
    assert told == [
        "The card ran below its clock: power cap.",
        "2 other processes computed on the card.",
    ]


def test_what_is_far_below_its_ceiling_is_looked_into(small, monkeypatch):
    """A card that could do a thousand times as much: the experiments are made, and told of."""
    models = pipeline.load(checkpoint.read(small), devices.choose("cpu"), 2, lambda *_: None)
    monkeypatch.setattr(bench, "machine", lambda _: {"device": "cuda"})
    monkeypatch.setattr(bench, "ceiling", lambda *_: ceiling.Ceiling(1e15, 1e12))
    monkeypatch.setattr(causes, "SMALL", 0.0)
    monkeypatch.setattr(bench, "others", lambda: 4.0)
    monkeypatch.setattr(slowness, "SECONDS", 0.001)
    settings = bench.settings_for("small", models.placement, steps=1, runs=1, warmup=0)
    told = bench.measure(models, settings, lambda *_: None).to_json()
    assert set(told["slowness"]) == {"attention", "elsewhere", "asking", "step"}
    assert told["slowness"]["elsewhere"] == 0
    assert 0 < told["slowness"]["asking"] <= told["slowness"]["step"]
    company = {"id": "slow-company", "because": "4.0 other processes wanted the processor"}
    assert company in told["causes"]
