"""The ladder against faults that were put in on purpose: each must be found, named and told apart.

On a small checkpoint whose "golden" numbers come from the healthy model itself, so that only the
fault can make a gate fail. The real numbers at full size: test_full_size.py.
"""

import dataclasses
import math
from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch.overrides import TorchFunctionMode  # noqa: E402

from runner import checkpoint, experiments, pipeline, rungs_formula, verify  # noqa: E402
from runner import rungs_network as rungs  # noqa: E402
from runner import rungs_whole as whole  # noqa: E402
from runner.devices import Placement, choose  # noqa: E402
from runner.gate import Subject  # noqa: E402
from runner.golden import Golden  # noqa: E402
from runner.layers import layers  # noqa: E402
from runner.pixels import gradient, to_bytes  # noqa: E402
from runner.trace import Trace  # noqa: E402

CPU = torch.device("cpu")
LITTLE = 8 * 2**20  # bytes of memory that the tests write and read
PROMPTS = {"plain": "a (red:1.3) hat", "negative": "a dog"}
RUNS = [{"sampler": "euler", "scheduler": "normal", "steps": 2, "cfg": 7.0, "denoise": 0.6,
         "seed": 4}]  # fmt: skip


def quiet(*_):
    pass


@pytest.fixture(autouse=True)
def little_memory(monkeypatch):
    monkeypatch.setattr(whole, "FREE_MEMORY", LITTLE)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small are not faster on two."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def fresh(small, unet=torch.float32, vae=torch.float32):
    weights = checkpoint.read(small)
    return Subject(pipeline.load(weights, Placement(CPU, unet, vae), 2, quiet), weights)


@pytest.fixture(scope="module")
@torch.inference_mode()
def numbers(small):
    """Golden numbers of the small checkpoint, from the healthy model."""
    subject, tensors, story = fresh(small), {}, {"prompts": PROMPTS, "runs": RUNS, "layers": {}}
    models = subject.models
    for name, words in PROMPTS.items():
        tensors[f"cond/{name}"] = models.text.encode(words)[0]
    tensors["latent/input"] = models.vae.encode(gradient(64, 64))
    tensors["image/roundtrip"] = models.vae.decode(tensors["latent/input"])
    tensors["probe/x"] = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(8))
    tensors["odd/x"] = torch.randn(1, 4, 9, 7, generator=torch.Generator().manual_seed(9))
    golden = Golden("small")
    golden.__dict__.update(tensors=tensors, story=story)
    subject = dataclasses.replace(subject, golden=golden)
    for sigma in rungs.PROBES:
        for which in ("probe", "odd"):
            tensors[f"{which}/denoised/sigma={sigma}"] = rungs.probe(subject, sigma, which=which)
    for stage, (network, run) in rungs.runs(subject).items():
        marks = layers(network, run)
        tensors[f"layers/{stage}"] = torch.stack([mark.numbers for mark in marks.values()])
        story["layers"][stage] = list(marks)
    trace = Trace()
    pipeline.img2img(models, whole.recipe_of(subject, 0), gradient(64, 64), trace.watch)
    tensors["run/0/step/1"] = trace.tensors["step/1"]
    tensors["run/0/latent"] = trace.tensors["latent/output"]
    tensors["run/0/picture"] = torch.from_numpy(to_bytes(trace.tensors["image/output"][0]).copy())
    allowed = {"encode": 0.01, "decode": 0.01, **{f"denoiser {s}": 0.01 for s in rungs.PROBES}}
    story["sixteen"] = {"float16": allowed, "bfloat16": allowed}
    return golden


@pytest.fixture
def subject(small, numbers):
    """A model of this test's own, to break."""
    return dataclasses.replace(fresh(small), golden=numbers)


def climbed(subject, *names):
    """The gates of a subject by name, and its suspects: gate -> what cured it."""
    ladder = verify.Climb(quiet)
    listed = [*rungs.second_rungs(subject), *whole.third_rungs(subject)]
    ladder.climb(subject, [rung for rung in listed if rung.name in names])
    assert len(ladder.gates) == len(names)
    return {g.name: g for g in ladder.gates}, {s.gate: s.cured_by for s in ladder.suspects}


NETWORK = ("weights", "precision", "text", "encode", "decode", "denoiser", "odd sizes",
           "engine", "batch", "finite", "picture", "determinism")  # fmt: skip
WHOLE = ("run 0: euler normal", "picture 0: euler normal", "memory")


def test_a_healthy_model_passes_every_gate(subject):
    gates, suspects = climbed(subject, *NETWORK, *WHOLE)
    assert {gate.verdict for gate in gates.values()} == {"passed"}, gates
    assert suspects == {}


def test_without_golden_numbers_the_rest_is_judged_all_the_same(small):
    names = [rung.name for rung in rungs.second_rungs(fresh(small))]
    assert names == ["weights", "precision", "engine", "batch", "finite", "picture", "determinism"]
    gates, _ = climbed(fresh(small), *names)
    assert {gate.verdict for gate in gates.values()} == {"passed"}, gates


class Fault(TorchFunctionMode):
    """A device that computes one thing wrongly: change(func, out) -> what it gives instead."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.change(func, func(*args, **(kwargs or {})))


def wrong_attention(func, out):
    """As a fused kernel would be that does not suit the card; torch's plain formula is right."""
    broken = func is F.scaled_dot_product_attention and torch.backends.cuda.flash_sdp_enabled()
    return out * 1.01 if broken else out


def test_a_broken_attention_kernel_is_named_and_told_apart(subject):
    with Fault(wrong_attention):
        gates, suspects = climbed(subject, "text", "denoiser", "run 0: euler normal")
    assert {gate.verdict for gate in gates.values()} == {"failed"}
    assert "layers.0.self_attn.out_proj" in gates["text"].why
    assert "attn1.to_out.0" in gates["denoiser"].why
    assert "cond/positive" in gates["run 0: euler normal"].why
    assert set(suspects.values()) == {"attention-math"}


def test_a_layer_in_the_wrong_precision_is_named(subject):
    layer = subject.models.denoiser.unet.get_submodule("middle_block.1.proj_in")
    layer.register_forward_hook(lambda _, __, out: out.bfloat16().float())
    gates, _ = climbed(subject, "precision", "denoiser")
    assert gates["precision"].figure == 1
    assert "middle_block.1.proj_in: bfloat16, not float32" in gates["precision"].why
    assert "middle_block.1.proj_in (about" in gates["denoiser"].why
    assert "in the numbers of bfloat16" in gates["denoiser"].why


def test_autocast_around_everything_is_seen(subject):
    with torch.autocast("cpu", torch.bfloat16):
        gates, _ = climbed(subject, "precision")
    assert gates["precision"].verdict == "failed"
    assert "bfloat16, not float32" in gates["precision"].why


def test_a_vae_that_overflows_in_float16_is_cured_by_float32(small):
    """SDXL's fault: the picture is black, and --fp32-vae mends it."""
    subject = fresh(small, vae=torch.float16)
    subject.models.vae.decoder.mid.block_1.conv1.weight.data.mul_(60_000)
    subject.models.vae.decoder.mid.block_1.conv1.weight.data.clamp_(-60_000, 60_000)
    gates, suspects = climbed(subject, "finite")
    assert gates["finite"].verdict == "failed"
    assert "image/output" in gates["finite"].why
    assert "decode, VAE: decoder.mid.block_1.conv1: conv2d" in gates["finite"].why
    assert "float16 ends at 65504" in gates["finite"].why
    assert suspects == {"finite": "vae-float32"}


def huge_scores(func, out):
    """Scores that float16 cannot hold, as some cards' attention has them."""
    if func is F.scaled_dot_product_attention and out.dtype == torch.float16:
        return out * math.inf
    return out


def test_attention_that_overflows_in_float16_is_cured_by_upcasting(small):
    subject = fresh(small, unet=torch.float16)
    with Fault(huge_scores):
        gates, suspects = climbed(subject, "finite")
    assert "step/1" in gates["finite"].why
    assert "step 1, denoiser: " in gates["finite"].why
    assert "attn1" in gates["finite"].why
    assert suspects == {"finite": "attention-float32"}


def test_a_denoiser_that_overflows_elsewhere_is_cured_by_float32(small):
    subject = fresh(small, unet=torch.float16)
    block = subject.models.denoiser.unet.middle_block[0]
    block.in_layers[0].weight.data.fill_(60_000)
    gates, suspects = climbed(subject, "finite")
    assert "middle_block.0.in_layers.0" in gates["finite"].why
    assert suspects == {"finite": "unet-float32"}


def test_a_nan_in_a_weight_is_named_as_one(subject):
    subject.models.denoiser.unet.get_parameter("time_embed.2.bias").data[3] = math.nan
    gates, suspects = climbed(subject, "weights", "finite")
    assert "time_embed.2.bias" in gates["weights"].why
    assert "denoiser: time_embed.2: its weights hold NaN" in gates["finite"].why
    assert suspects == {"finite": ""}


def test_one_flipped_bit_of_a_weight_is_a_fault_of_memory(subject):
    weight = subject.models.vae.decoder.conv_in.weight.data
    weight.view(-1).view(torch.int32)[77] ^= 1 << 12
    gates, suspects = climbed(subject, "weights")
    assert gates["weights"].figure == 1
    assert "first_stage_model.decoder.conv_in.weight" in gates["weights"].why
    assert "the first number 77 by one bit: a fault of memory" in gates["weights"].why
    assert suspects == {}


def now_and_then(network, layer, when, change):
    """Let one layer of a network err at some of its calls."""
    calls = []

    def err(_, __, out):
        calls.append(1)
        return change(out) if when(len(calls)) else out

    network.get_submodule(layer).register_forward_hook(err)


def flipped(out):
    out = out.clone(memory_format=torch.contiguous_format)
    out.view(-1).view(torch.int32)[5] ^= 1 << 20
    return out


def test_a_bit_flipped_once_in_a_result_is_seen_by_repeating(subject):
    now_and_then(subject.models.vae, "encoder.conv_out", lambda call: call == 2, flipped)
    gates, suspects = climbed(subject, "determinism")
    assert "time 2, the first: latent/input" in gates["determinism"].why
    assert suspects["determinism"] != ""  # it does not come again


def test_what_is_wrong_only_now_and_then_is_not_blamed_on_a_kernel(subject):
    now_and_then(subject.models.vae, "encoder.conv_out", lambda call: call == 1, flipped)
    gates, suspects = climbed(subject, "encode")
    assert gates["encode"].verdict == "failed"
    assert suspects == {"encode": "again"}


def test_a_kernel_that_adds_in_any_order_is_cured_by_deterministic_ones(subject):
    def shaken(out):
        loose = not torch.are_deterministic_algorithms_enabled()
        return out * (1 + 1e-5 * torch.rand(())) if loose else out

    now_and_then(subject.models.denoiser.unet, "out.2", lambda call: True, shaken)
    gates, suspects = climbed(subject, "determinism")
    assert "the first: step/1" in gates["determinism"].why
    assert suspects == {"determinism": "deterministic"}
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_step_at_which_a_run_parts_is_named(subject):
    now_and_then(subject.models.denoiser.unet, "out.2", lambda call: call > 1, lambda out: out * 2)
    called = "run 0: euler normal"
    gate = climbed(subject, called)[0][called]
    assert gate.verdict == "failed"
    assert gate.why.startswith("the numbers part at step 2; by step: 0.0e+00 -> ")


def test_a_black_picture_is_said_to_be_black(subject):
    subject.models.vae.decoder.conv_out.bias.data.fill_(-50)
    gates, _ = climbed(subject, "picture", "finite")
    assert gates["picture"].why == "100% of the picture is black"
    assert gates["finite"].verdict == "passed"


def test_a_place_in_the_batch_that_is_computed_otherwise(subject):
    def second(out):
        return torch.cat([out[:1], out[1:] * 1.001])

    now_and_then(subject.models.denoiser.unet, "out.2", lambda call: call == 1, second)
    gates, _ = climbed(subject, "batch")
    assert gates["batch"].verdict == "failed"
    assert "place 1 of the batch" in gates["batch"].why


def test_a_device_that_computes_otherwise_is_held_against_the_cpu(subject):
    """The CPU stands in for both: `elsewhere` is where the fault is not."""
    broken = [True]

    def bent(out):
        return out * 1.001 if broken else out

    now_and_then(subject.models.vae, "encoder.mid.attn_1.k", lambda call: True, bent)

    @contextmanager
    def elsewhere(subject):
        with experiments.on_the_cpu(subject) as moved:
            for module in moved.models.vae.modules():
                module._forward_hooks.clear()
            yield moved

    with torch.inference_mode():
        gate = whole.two_devices(subject, elsewhere)
        assert gate.verdict == "failed"
        assert "encode: the numbers part at encoder.mid.attn_1.k" in gate.why
        broken.clear()
        assert whole.two_devices(subject, elsewhere).verdict == "passed"
        assert whole.two_devices(subject).verdict == "not judged"


def test_arithmetic_finds_one_wrong_number_and_says_in_which_product():
    assert rungs_formula.arithmetic(CPU).verdict == "passed"
    hits = []

    def one_wrong(func, out):
        if func is F.conv2d:
            hits.append(1)
            if len(hits) == 3:
                out = out.clone()
                out.view(-1)[11] += 1
        return out

    with Fault(one_wrong):
        gate = rungs_formula.arithmetic(CPU)
    assert (gate.verdict, gate.figure) == ("failed", 1)
    assert "a convolution in float32, time 3, 1 of" in gate.why
    assert "number 11 is" in gate.why


def test_memory_that_forgets_is_found():
    def forgets(func, out):
        if func is torch.Tensor.cpu and out.numel() > 1_000_000:
            out = out.clone()
            out[99] ^= 4
        return out

    with Fault(forgets):
        gate = whole.memory(CPU)
    assert (gate.verdict, gate.figure) == ("failed", 2)
    assert "number 99" in gate.why


def test_a_picture_a_little_off_passes_and_another_does_not(subject, numbers):
    theirs = numbers["run/0/picture"].float()[None] / 255

    def judge(change):
        shown = Trace({"image/output": change(theirs)})
        return whole.whole_picture(subject, 0, lambda _: shown)

    assert judge(lambda p: p + 1e-4).verdict == "passed"
    assert judge(lambda p: (p + 0.02).clamp(0, 1)).verdict == "failed"
    assert judge(lambda p: p.flip(1)).verdict == "failed"


def test_16_bits_are_held_to_the_ratio_rule(small, numbers):
    subject = dataclasses.replace(fresh(small, torch.bfloat16, torch.bfloat16), golden=numbers)
    measured = float(numbers.story["sixteen"]["bfloat16"]["encode"])
    with torch.inference_mode():
        gate = rungs.encode(subject)
    assert gate.bound == pytest.approx(1.5 * measured)
    assert gate.figure > 1e-4  # it really was computed in 16 bits


def test_another_process_is_compared_bit_for_bit(subject):
    names = ["fresh process"]
    gates, _ = climbed(subject, *names)
    assert gates["fresh process"].verdict == "passed", gates
    subject.models.vae.decoder.conv_out.bias.data[0] += 0.01
    with torch.inference_mode():
        shown = rungs.short_run(subject)
        gate = whole.fresh_process(subject, shown)
    assert (gate.verdict, gate.why) == ("failed", "the first: image/output")


class Never(set):
    """A set that forgets."""

    def __contains__(self, _):
        return False


def test_work_that_was_not_done_again_is_no_timing(subject, monkeypatch):
    """A clock of our own: a new latent takes ten ticks, one that was seen before takes one."""
    clock, seen = [0.0], set()

    def compute(x, sigma):
        clock[0] += 1.0 if float(x.sum()) in seen else 10.0
        seen.add(float(x.sum()))
        return x

    monkeypatch.setattr(whole.time, "perf_counter", lambda: clock[0])
    honest = whole.timing
    monkeypatch.setattr(whole, "guide", lambda *_: compute)
    with torch.inference_mode():
        assert honest(subject).verdict == "failed"
        seen = Never()
        assert honest(subject).verdict == "passed"


def test_what_is_faster_only_most_of_the_time_was_not_kept(subject, monkeypatch):
    """Somebody else on the machine: a later step took longer, but one earlier one took longest."""
    clock = [0.0]
    ticks = iter([10.0] + 5 * [10.0, 12.0] + [14.0, 12.0])

    def compute(x, sigma):
        clock[0] += next(ticks)
        return x

    monkeypatch.setattr(whole.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(whole, "guide", lambda *_: compute)
    with torch.inference_mode():
        assert whole.timing(subject).verdict == "not judged"


def test_the_experiments_leave_everything_as_it_was(subject):
    before = torch.get_num_threads(), torch.backends.cuda.flash_sdp_enabled()
    for experiment in experiments.EXPERIMENTS:
        if experiment.name != "cpu":
            with experiment.under(subject) as changed:
                assert changed.checkpoint is subject.checkpoint
    assert (torch.get_num_threads(), torch.backends.cuda.flash_sdp_enabled()) == before


def test_a_model_that_does_not_fit_is_said_aloud_and_the_others_are_judged(subject):
    def too_large():
        raise verify.Refused("not-enough-memory", "The weights need 13.9 GB of memory.")

    loads = {"sdxl": too_large, "small": lambda: subject}
    verdict = verify.verify(2, choose("cpu"), loads, quiet)
    gates = {gate.name: gate for gate in verdict.gates}
    assert gates["sdxl"].verdict == "not judged"
    assert "13.9 GB" in gates["sdxl"].why
    assert gates["small denoiser"].verdict == "passed"
    assert verdict.passed
