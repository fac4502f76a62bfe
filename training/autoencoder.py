"""The VAE: trained to give pictures back, its latents held near a Gaussian (Kingma & Welling 2013).

It does not start from noise but from what can be written down: the latent is the picture's mean
colour in each 8 x 8 cell and the difference between a cell's halves; every residual block adds
nothing yet. Training finds the edges.
"""

import torch
from torch import nn

from runner.measures import divergence
from runner.vae import VAE, VAEShape
from training.loop import Losses
from training.scenes import draw, invent

SCALE = 0.18215  # what SD 1.x multiplies latents by

SHAPE = VAEShape(widths=(64, 64, 64, 64), blocks=1)
BATCH, KL = 6, 2e-4
BLUR = 0.2  # of the latents' spread, while the decoder learns alone
CARRIED = (0, 2, 4, 6)  # channels that hold red, green, blue and the halves' difference
START_LOGVAR = -2.5
GAIN = 5.0  # of the first latents, so that their spread is near 1


def started() -> VAE:
    """The network before training."""
    torch.manual_seed(1)
    vae = VAE(SHAPE)
    with torch.no_grad():
        for name, layer in vae.named_modules():
            if name.endswith(("conv2", "proj_out")):
                layer.weight.mul_(0.05)
                layer.bias.zero_()
        start_encoder(vae)
        start_decoder(vae)
        for conv, size in ((vae.quant_conv, 8), (vae.post_quant_conv, 4)):
            conv.weight.copy_(torch.eye(size)[..., None, None])
            conv.bias.zero_()
    return vae


def start_encoder(vae: VAE) -> None:
    encoder = vae.encoder
    carry(encoder.conv_in, (0, 1, 2), CARRIED[:3])
    oppose(encoder.conv_in)
    last = len(SHAPE.widths) - 2
    for number, level in enumerate(encoder.down):
        if number > last:
            continue
        conv = level.downsample.conv
        conv.weight[list(CARRIED)] = 0
        conv.bias[list(CARRIED)] = 0
        for channel in CARRIED[:3]:
            conv.weight[channel, channel, :2, :2] = 0.25
            if number == last:
                conv.weight[6, channel, 0, :2] = 0.25
                conv.weight[6, channel, 1, :2] = -0.25
        oppose(conv)
    measure_against(encoder.mid.block_2, encoder.norm_out, 12.0, 6)
    out = encoder.conv_out
    out.weight.mul_(0.05)
    out.bias.zero_()
    for number, channel in enumerate(CARRIED):
        out.weight[number, :, :, :] = 0
        out.weight[number, channel, 1, 1] = GAIN
        out.bias[number] = -GAIN * 2.858
    out.weight[4:] = 0
    out.bias[4:] = START_LOGVAR


def start_decoder(vae: VAE) -> None:
    decoder = vae.decoder
    carry(decoder.conv_in, (0, 1, 2, 3), CARRIED)
    decoder.conv_in.weight[list(CARRIED)] /= GAIN / 2.94
    oppose(decoder.conv_in)
    for level in decoder.up[1:]:
        carry(level.upsample.conv, CARRIED, CARRIED)
        oppose(level.upsample.conv)
    measure_against(decoder.up[0].block[-1], decoder.norm_out, 26.0, 48)
    out = decoder.conv_out
    out.weight.mul_(0.05)
    for number, channel in enumerate(CARRIED[:3]):
        out.weight[number] = 0
        out.weight[number, channel, 1, 1] = 2.46
        out.bias[number] = -2.46 * 2.858


def carry(conv: nn.Conv2d, origin: tuple[int, ...], target: tuple[int, ...]) -> None:
    """Let channels pass a convolution unchanged."""
    conv.weight[list(target)] = 0
    conv.bias[list(target)] = 0
    for a, b in zip(origin, target, strict=True):
        conv.weight[b, a, 1, 1] = 1


def oppose(conv: nn.Conv2d) -> None:
    """After each carried channel its opposite: the two of them have the mean 0."""
    for channel in CARRIED:
        conv.weight[channel + 1] = -conv.weight[channel]
        conv.bias[channel + 1] = -conv.bias[channel]


def measure_against(block: nn.Module, norm: nn.Module, size: float, side: int) -> None:
    """Let the last norm keep the brightness of a picture.

    A group of two channels loses its mean and its spread there. Their mean is 0 already
    (`oppose`); their spread is made nearly always the same by a large constant in the opposite
    channel, zero on average: it is missing along the left edge, where the convolution sees none.
    """
    block.norm2.weight[63], block.norm2.bias[63] = 0, 1
    for channel in CARRIED:
        block.conv2.weight[channel : channel + 2] = 0
        block.conv2.weight[channel + 1, 63, 1, 0] = size / 0.731
        block.conv2.bias[channel + 1] = -size * (1 - 1 / side)
        norm.weight[channel], norm.bias[channel] = 1, 3


def loss(vae: VAE, number: int) -> Losses:
    """E|x - x'| + KL weight, on fresh pictures; KL in nats per picture."""
    pictures = draw(invent(BATCH, torch.Generator().manual_seed(number + 1_000_000)))
    x = pictures.movedim(-1, 1) * 2 - 1
    mean, logvar = vae.quant_conv(vae.encoder(x)).chunk(2, dim=1)
    logvar = logvar.clamp(-12, 4)
    z = mean + torch.randn_like(mean) * (logvar / 2).exp()
    back = vae.decoder(vae.post_quant_conv(z))
    apart = (back - x).abs().mean()
    kl = divergence(mean, logvar).mean()
    told = {"apart": apart, "kl": kl, "spread": mean.std(), "sigma": (logvar / 2).exp().mean()}
    told = {name: value.detach() for name, value in told.items()}
    return {"loss": apart + (back - x).square().mean() + KL * kl, **told}


@torch.inference_mode()
def centred(vae: VAE) -> VAE:
    """The same pictures from latents whose channels have mean 0 and spread 1 / SCALE.

    quant_conv and post_quant_conv take each other back, so nothing else changes.
    """
    made = invent(400, torch.Generator().manual_seed(900_000))
    latents = vae.encode(draw(made))
    middle, wide = latents.mean((0, 2, 3)), latents.std((0, 2, 3)) * SCALE
    quant, back = vae.quant_conv, vae.post_quant_conv
    back.bias += back.weight[..., 0, 0] @ middle
    back.weight *= wide[None, :, None, None]
    quant.bias[:4] = (quant.bias[:4] - middle) / wide
    quant.weight[:4] /= wide[:, None, None, None]
    quant.bias[4:] -= 2 * wide.log()
    return vae


def frozen(vae: VAE) -> VAE:
    """The encoder as it is; the decoder goes on learning."""
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    return vae


def decoder_loss(vae: VAE, number: int) -> Losses:
    """E|x - x'| + E(x - x')² from latents off by BLUR of their spread, as a render leaves them."""
    scenes = invent(BATCH, torch.Generator().manual_seed(number + 4_000_000))
    pictures = draw(scenes)
    with torch.no_grad():
        z = vae.encode(pictures)
        z = vae.post_quant_conv(z + torch.randn_like(z) * BLUR / SCALE)
    x = pictures.movedim(-1, 1) * 2 - 1
    back = vae.decoder(z)
    apart = (back - x).abs().mean()
    return {"loss": apart + (back - x).square().mean(), "apart": apart.detach()}
