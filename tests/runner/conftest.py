"""A small checkpoint in the layout of SD 1.x: the same names, narrow widths, made in a moment."""

import json

import pytest

torch = pytest.importorskip("torch")

from runner.checkpoint import PREFIXES  # noqa: E402
from runner.clip import TextEncoder, TextShape  # noqa: E402
from runner.synthetic import header, packed  # noqa: E402
from runner.unet import UNet, UNetShape  # noqa: E402
from runner.vae import VAE, VAEShape  # noqa: E402


def small_table():
    with torch.device("meta"):
        parts = {
            "text": TextEncoder(TextShape(width=64, inner=128, layers=2)),
            "unet": UNet(UNetShape(channels=32, widths=(1, 2), depths=(1, 0), context=64)),
            "vae": VAE(VAEShape(widths=(32, 32, 64, 64), blocks=1)),
        }
    return {
        PREFIXES[part] + name: tuple(weight.shape)
        for part, network in parts.items()
        for name, weight in network.named_parameters()
    }


def write(path, table):
    path.write_bytes(header(table) + b"".join(packed(key, shape) for key, shape in table.items()))
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The path of a whole small checkpoint."""
    return write(tmp_path_factory.mktemp("weights") / "small.safetensors", small_table())


def edit(path, out, change):
    """A copy of a safetensors file whose header went through change(rows)."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    rows = json.loads(data[8 : 8 + length])
    text = json.dumps(change(rows) or rows).encode()
    out.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return out
