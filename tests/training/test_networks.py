"""What the trainings start from: nothing random where the answer can be written down."""

import pytest

torch = pytest.importorskip("torch")

from runner.schedules import sigma_table  # noqa: E402
from training import autoencoder, denoiser, pair  # noqa: E402
from training.scenes import SIDE, Scene, draw, invent, named  # noqa: E402


@pytest.fixture(scope="module")
def pictures():
    return draw(invent(16, torch.Generator().manual_seed(31)))


@torch.inference_mode()
def test_the_autoencoder_starts_with_the_mean_colour_of_each_cell(pictures):
    back = autoencoder.started().decode(autoencoder.started().encode(pictures))
    cells = pictures.unflatten(1, (-1, 8)).unflatten(3, (-1, 8)).mean((2, 4))
    coarse = cells.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert (back - coarse).abs().mean() < 0.05
    assert (back - pictures).abs().mean() < 0.1


@torch.inference_mode()
def test_centring_changes_latents_and_no_picture(pictures):
    vae = autoencoder.started()
    before = vae.decode(vae.encode(pictures))
    centred = autoencoder.centred(vae)
    latents = centred.encode(draw(invent(100, torch.Generator().manual_seed(32))))
    assert latents.mean((0, 2, 3)) * autoencoder.SCALE == pytest.approx([0] * 4, abs=0.2)
    assert latents.std((0, 2, 3)) * autoencoder.SCALE == pytest.approx([1] * 4, abs=0.15)
    assert torch.allclose(centred.decode(centred.encode(pictures)), before, atol=2e-3)


@torch.inference_mode()
def test_the_denoiser_starts_as_right_where_noise_is_all_there_is():
    noise = torch.randn(8, 4, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(0))
    t = torch.full((8,), 999.0)
    guess = denoiser.started()(noise, t, torch.zeros(8, 77, pair.WIDTH))
    assert (guess - noise).square().mean().sqrt() < 0.2
    assert float(sigma_table().sigmas[-1]) > 14


def test_the_whole_loss_is_the_mean_over_workers_shares(monkeypatch):
    there = denoiser.Pool(torch.randn(50, 4, 6, 6), torch.randn(50, 4, 77, 64), torch.zeros(77, 64))
    unet = denoiser.started()
    with torch.inference_mode():
        whole = denoiser.loss(unet, there, 5)["loss"]
        monkeypatch.setattr(denoiser, "workers", lambda: 2)
        shares = []
        for number in range(2):
            monkeypatch.setattr(denoiser, "rank", lambda number=number: number)
            shares.append(denoiser.loss(unet, there, 5)["loss"])
    assert float(whole) == pytest.approx(float(sum(shares) / 2), rel=1e-4)


def test_captions_are_rows_of_the_small_table():
    ids = torch.tensor([pair.tokens("a red circle, zebra")])
    assert ids.shape == (1, 77)
    assert int((ids == pair.UNKNOWN).sum()) >= 1
    assert ids.max() <= len(pair.rows())
    z, pooled = pair.pooled(pair.text_encoder(), ids)
    assert (z.shape, pooled.shape) == ((1, 77, pair.WIDTH), (1, pair.WIDTH))


def test_a_training_is_taken_up_where_it_was_left(tmp_path):
    from training.loop import Plan, averaged, train

    def network():
        torch.manual_seed(0)
        return torch.nn.Linear(3, 1)

    def losses(one):
        return lambda _: {"loss": (one(torch.randn(8, 3)) - 1).square().mean()}

    whole, halves = network(), network()
    train(whole, Plan("whole", 20, 0.05), tmp_path, losses(whole))
    stop = stopped(losses(halves), 9)
    with pytest.raises(KeyboardInterrupt):
        train(halves, Plan("halves", 20, 0.05, every=0), tmp_path, stop)
    again = network()
    train(again, Plan("halves", 20, 0.05, every=0), tmp_path, losses(again))
    assert torch.equal(again.weight, whole.weight)
    assert torch.equal(averaged(tmp_path / "halves.pt", network()).weight, whole.weight)


def stopped(losses, at):
    def step(number):
        if number == at:
            raise KeyboardInterrupt
        return losses(number)

    return step


def test_fours_differ_in_one_thing_alone():
    scenes = pair.alike(torch.Generator().manual_seed(3))
    assert len(scenes) == pair.BATCH
    for row in range(0, pair.BATCH, 4):
        four = [vars(named(scenes, row + one)) for one in range(4)]
        differing = {name for name in four[0] if len({one[name] for one in four}) > 1}
        assert differing in ({"shape"}, {"size", "place"}, {"place"}), differing


def test_the_loss_of_a_batch_of_fours_reaches_both_towers():
    both = pair.Pair()
    told = pair.loss(both, 1)
    told["loss"].backward()
    assert all(0 <= float(told[name]) <= 1 for name in ("found", "sees", "reads"))
    assert both.text.text_model.embeddings.token_embedding.weight.grad.abs().sum() > 0
    assert both.contrast.vision_model.embeddings.patch_embedding.weight.grad.abs().sum() > 0
    assert both.contrast.logit_scale.grad.abs() > 0


def test_a_tower_is_asked_for_everything_that_a_caption_can_say():
    said = [Scene(shape="ring", place="top left"), Scene(colour="black", weave="plain")]
    answers = {name: one.tolist() for name, one in pair.right(said).items()}
    assert answers["shape"] == [4, 0]
    assert answers["place"] == [1, 0]
    assert answers["colour"] == [0, 7]
    assert answers["weave"] == [0, 1]
    assert answers["ground"] == answers["size"] == answers["texture"] == [0, 0]
    assert set(answers) == set(vars(Scene()))


def test_right_answers_cost_less_than_wrong_ones():
    asked = pair.Questions(1)
    right = pair.right([Scene(shape="ring")])
    for name, layer in asked.answers.items():
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        layer.bias.data[right[name]] = 9.0
    vectors = torch.zeros(1, pair.WIDTH)
    with torch.no_grad():
        loss, share = asked.loss(vectors, right)
        worse, none = asked.loss(vectors, {name: (one + 1) % 3 for name, one in right.items()})
    assert float(loss) < 0.01 < 5 < float(worse)
    assert (float(share), float(none)) == (1, 0)
