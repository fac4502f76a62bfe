import pytest

torch = pytest.importorskip("torch")

from runner.guidance import Denoiser, Prompt, guide, label  # noqa: E402
from runner.schedules import sigma_table  # noqa: E402

TABLE = sigma_table()
X = torch.full((2, 4, 3, 3), 3.0)


def linear(calls):
    """A network whose output is the mean of its text, and that keeps what it was asked."""

    def unet(x, t, text, label):
        calls.append((x, t, text))
        return text.mean(dim=(1, 2))[:, None, None, None].expand_as(x)

    return unet


def text(value, length=77):
    return Prompt(torch.full((1, length, 8), float(value)))


def test_guidance_goes_away_from_one_text_towards_another():
    calls, sigma = [], torch.tensor(2.0)
    guided = guide(Denoiser(linear(calls), TABLE, torch.float32), text(1), text(0), 7.0)
    assert torch.allclose(guided(X, sigma), X - 7.0 * 2.0)
    ((x, t, texts),) = calls
    assert (len(x), texts[:, 0, 0].tolist()) == (4, [0, 0, 1, 1])  # unwanted first, as ComfyUI
    assert torch.allclose(x, torch.full_like(x, 3.0 / 5**0.5))
    assert t.tolist() == [float(TABLE.timestep(sigma))] * 4


def test_at_cfg_one_the_negative_text_is_not_computed():
    calls = []
    guided = guide(Denoiser(linear(calls), TABLE, torch.float32), text(1), text(0), 1.0)
    assert torch.allclose(guided(X, torch.tensor(2.0)), X - 2.0)
    assert len(calls[0][0]) == 2


@pytest.mark.parametrize(
    ("lengths", "batches"), [((77, 154), 1), ((77, 77 * 5), 2), ((154, 231), 1)]
)
def test_texts_of_other_lengths_share_a_batch_where_none_repeats_too_often(lengths, batches):
    calls = []
    positive, negative = text(1, lengths[0]), text(0, lengths[1])
    guided = guide(Denoiser(linear(calls), TABLE, torch.float32), positive, negative, 3.0)
    assert torch.allclose(guided(X, torch.tensor(2.0)), X - 6.0)
    assert len(calls) == batches


def test_v_prediction_is_the_papers():
    """x₀ = x/(σ²+1) - v σ/√(σ²+1): Salimans & Ho 2022 in the variance-exploding scale."""
    denoiser = Denoiser(linear([]), TABLE, torch.float32, "v")
    guess = denoiser.guess(X, torch.tensor(2.0), Prompt(text(1).text.expand(2, -1, -1)))
    assert torch.allclose(guess, X / 5 - 2 / 5**0.5)


def test_labels_go_with_their_texts_and_tell_sizes():
    seen = []

    def unet(x, t, text, said):
        seen.append(said)
        return x

    one, other = (Prompt(text(0).text, label(torch.full((1, 5), v), 64, 96)) for v in (1.0, 2.0))
    guide(Denoiser(unet, TABLE, torch.float32), one, other, 3.0)(X, torch.tensor(2.0))
    (said,) = seen
    assert said.shape == (4, 5 + 6 * 256)
    assert said[:, 0].tolist() == [2.0, 2.0, 1.0, 1.0]
    first = torch.tensor([64.0, 96, 0, 0, 64, 96]).cos()
    assert torch.allclose(said[0, 5::256], first)  # each size's fastest wave


def test_a_sampler_that_asks_sees_the_negative_guess_at_cfg_one():
    guided = guide(Denoiser(linear([]), TABLE, torch.float32), text(1), text(0), 1.0)
    wanted, unwanted = guided.both(X, torch.tensor(2.0))
    assert torch.allclose(wanted, X - 2.0)
    assert torch.allclose(unwanted, X)
