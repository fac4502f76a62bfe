"""The networks at full size, on synthetic weights, against ComfyUI's numbers and diffusers'."""

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402

from runner import devices, pipeline, rungs_network, synthetic, verify  # noqa: E402
from runner.gate import Subject, judged  # noqa: E402
from runner.golden import golden  # noqa: E402
from runner.pixels import crop, gradient  # noqa: E402
from runner.recipe import Recipe  # noqa: E402
from runner.schedules import walk  # noqa: E402
from runner.tokenizer import chunks  # noqa: E402
from runner.trace import Trace, gap  # noqa: E402

GOLDEN = load_file("tests/golden/sd15.safetensors")
STORY = golden().story
PLACEMENT = devices.choose("cpu", "float32")


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def sd15():
    """Full-size models, 4.3 GB, for this file alone."""
    threads = devices.threads()
    torch.set_num_threads(2)  # as the golden numbers were made
    yield pipeline.load(synthetic.checkpoint("sd15"), PLACEMENT, 2, quiet)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", STORY["prompts"])
@torch.inference_mode()
def test_text(sd15, name):
    cond, pooled = sd15.text(chunks(STORY["prompts"][name]))
    theirs = GOLDEN[f"cond/{name}"]
    assert gap(cond if cond.shape == theirs.shape else cond[:, ::7, ::16], theirs) <= 1e-5
    assert gap(pooled, GOLDEN[f"pooled/{name}"]) <= 1e-5


@torch.inference_mode()
def test_encode_and_decode(sd15):
    assert gap(sd15.vae.encode(gradient(64, 64)), GOLDEN["latent/input"]) <= 1e-5
    assert gap(sd15.vae.decode(GOLDEN["latent/input"]), GOLDEN["image/roundtrip"]) <= 2e-5


@pytest.mark.parametrize("sigma", rungs_network.PROBES)
@torch.inference_mode()
def test_the_guided_denoiser(sd15, sigma):
    ours = rungs_network.probe(subject(sd15), sigma)
    assert gap(ours, GOLDEN[f"probe/denoised/sigma={sigma}"]) <= 2e-5


@pytest.mark.parametrize("place", range(3))
def test_whole_runs(sd15, place):
    told = dict(STORY["runs"][place])
    prompts, sampler_name = STORY["prompts"], told.pop("sampler")
    recipe = Recipe(prompts["plain"], prompts["negative"], sampler_name=sampler_name, **told)
    trace = Trace()
    pipeline.img2img(sd15, recipe, gradient(64, 64), trace.watch)
    assert gap(trace.tensors["latent/output"], GOLDEN[f"run/{place}/latent"]) <= 1e-4
    assert gap(trace.tensors["image/output"], GOLDEN[f"run/{place}/image"]) <= 1e-4


def test_the_whole_ladder_passes(sd15):
    verdict = verify.verify(3, PLACEMENT, {"sd15": lambda: subject(sd15)}, quiet)
    assert verdict.passed, [gate for gate in verdict.gates if gate.verdict == "failed"]
    unjudged = [gate.name for gate in verdict.gates if gate.verdict == "not judged"]
    assert set(unjudged) - {"timing"} == {"cpu against gpu"}


def subject(models):
    return Subject(models, synthetic.checkpoint("sd15"), golden())


def asked(models, *names):
    """Some gates of the second rung, by name."""
    whole = subject(models)
    asks = {rung.name: rung.ask for rung in rungs_network.second_rungs(whole)}
    return [judged(name, lambda name=name: asks[name](whole)) for name in names]


WEIGHTS = [  # part, name, and the gate that measures it
    ("text", "text_model.encoder.layers.5.mlp.fc1.weight", "text"),
    ("vae", "encoder.mid.attn_1.q.weight", "encode"),
    ("vae", "decoder.up.1.block.2.conv1.weight", "decode"),
    ("unet", "output_blocks.3.1.transformer_blocks.0.attn2.to_k.weight", "denoiser"),
]


@pytest.mark.parametrize(("part", "name", "gate"), WEIGHTS)
def test_one_corrupted_weight_fails_its_gates_and_is_named(sd15, part, name, gate):
    """A bit flip in an exponent: one number of a million becomes huge."""
    weight = dict(dict(rungs_network.parts(sd15))[part].named_parameters())[name]
    flat = weight.data.view(-1)
    before = flat[1000].clone()
    flat[1000] = 3e4
    try:
        sums, numbers = asked(sd15, "weights", gate)
    finally:
        flat[1000] = before
    assert (sums.verdict, numbers.verdict) == ("failed", "failed")
    assert name in sums.why
    assert sums.figure == 1
    assert name.removesuffix(".weight") in numbers.why


def test_the_smallest_change_of_any_weight_is_seen(sd15):
    flat = sd15.denoiser.unet.input_blocks[4][0].emb_layers[1].bias.data.view(torch.int32)
    flat[7] ^= 1
    gate = rungs_network.weights(subject(sd15))
    flat[7] ^= 1
    assert "input_blocks.4.0.emb_layers.1.bias" in gate.why
    assert rungs_network.weights(subject(sd15)).verdict == "passed"


def test_a_nan_is_named_where_it_was_born(sd15):
    bias = sd15.denoiser.unet.middle_block[0].in_layers[2].bias.data
    before = bias[3].clone()
    bias[3] = float("nan")
    try:
        numbers, finite = asked(sd15, "denoiser", "finite")
    finally:
        bias[3] = before
    assert "middle_block.0.in_layers.2" in numbers.why
    assert "the first: step/1" in finite.why


def below(network):
    return dict(network.named_parameters())


@pytest.fixture(scope="module")
def other(sd15):
    """The same weights in diffusers' and transformers' networks."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from diffusers.loaders import single_file_utils as convert

    def filled(network, weights):
        missing = network.load_state_dict(weights, strict=False, assign=True)
        assert not missing.missing_keys, missing
        return network.eval()

    widths = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768}
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(attention_head_dim=8, **widths)
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
    prefixed = {f"model.diffusion_model.{k}": v for k, v in below(sd15.denoiser.unet).items()}
    prefixed |= {f"first_stage_model.{k}": v for k, v in below(sd15.vae).items()}
    unet = filled(unet, convert.convert_ldm_unet_checkpoint(dict(prefixed), unet.config))
    vae = filled(vae, convert.convert_ldm_vae_checkpoint(dict(prefixed), vae.config))
    config = transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12
    )
    text = transformers.CLIPTextModel(config)
    ours = {key: value.float() for key, value in below(sd15.text).items()}
    if not any(key.startswith("text_model.") for key in text.state_dict()):
        ours = {key.removeprefix("text_model."): value for key, value in ours.items()}
    return diffusers, unet, vae, filled(text, ours)


def by_diffusers(other, recipe, image):
    """Components, not pipelines: ComfyUI's σ and whole timesteps put into diffusers' scheduler."""
    diffusers, unet, vae, text = other
    table = pipeline.sigma_table()
    conds = [
        text(torch.tensor([[token for token, _ in chunks(prompt)[0]]])).last_hidden_state
        for prompt in (recipe.negative, recipe.positive)
    ]
    pixels = crop(image).movedim(-1, 1) * 2 - 1
    latent = vae.encode(pixels).latent_dist.mode()
    sigmas = walk(table, recipe.scheduler, recipe.sampler_name, recipe.steps, recipe.denoise)
    euler = diffusers.EulerDiscreteScheduler()
    euler.set_timesteps(recipe.steps)
    euler.sigmas, euler.timesteps = sigmas, table.timestep(sigmas[:-1]).float()
    euler.set_begin_index(0)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(recipe.seed))
    x = latent * pipeline.SD_SCALE + noise * sigmas[0]
    for t in euler.timesteps:
        scaled = euler.scale_model_input(torch.cat([x, x]), t)
        unwanted, wanted = unet(scaled, t, torch.cat(conds)).sample.chunk(2)
        x = euler.step(unwanted + recipe.cfg * (wanted - unwanted), t, x).prev_sample
    out = vae.decode(x / pipeline.SD_SCALE).sample
    return {
        "cond/negative": conds[0],
        "cond/positive": conds[1],
        "latent/input": latent,
        "latent/output": x / pipeline.SD_SCALE,
        "image/output": (out / 2 + 0.5).clamp(0, 1).movedim(1, -1),
    }


@pytest.mark.parametrize("size", [(256, 256), (203, 141)])
@torch.inference_mode()
def test_diffusers_agrees_stage_by_stage(sd15, other, size):
    recipe = Recipe(
        "a dog with a hat", "a dog without a hat", steps=2, cfg=7.0, denoise=0.6, seed=7,
        sampler_name="euler", scheduler="normal",
    )  # fmt: skip
    trace = Trace()
    pipeline.img2img(sd15, recipe, gradient(*size), trace.watch)
    theirs = by_diffusers(other, recipe, gradient(*size))
    bounds = {"cond/negative": 1e-5, "cond/positive": 1e-5, "latent/input": 1e-5}
    for name, numbers in theirs.items():
        assert gap(trace.tensors[name], numbers) <= bounds.get(name, 1e-4), name
