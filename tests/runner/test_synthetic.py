import json
import math
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from safetensors import safe_open  # noqa: E402

from runner import synthetic  # noqa: E402
from runner.recipe import Refused  # noqa: E402


def by_the_book(key, shape):
    """The recipe as it is written down, in one piece."""
    g = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    u = torch.rand(shape, generator=g) - 0.5
    if len(shape) == 1:
        return (1 + 0.04 * u if key.endswith("weight") else 0.04 * u).half()
    return (u * math.sqrt(12 / math.prod(shape[1:]))).half()


@pytest.mark.parametrize("model", synthetic.MODELS)
def test_the_networks_have_every_key_and_shape_of_the_checkpoint(model):
    wanted = json.loads(Path(f"tests/golden/{model}.keys.json").read_text())
    ours = {
        synthetic.MODELS[model].prefixes[part] + name: list(shape)
        for part, names in synthetic.shapes(model).items()
        for name, shape in names.items()
    }
    assert ours == {key: shape for key, shape in wanted.items() if shape}


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("model.diffusion_model.middle_block.1.proj_in.weight", (1280, 1280, 1, 1)),
        ("model.diffusion_model.out.0.weight", (320,)),
        ("model.diffusion_model.out.0.bias", (320,)),
        ("odd", (3, 21_847)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_pieces_are_the_bytes_of_the_whole(key, shape, dtype):
    out = torch.empty(shape, dtype=dtype)
    synthetic.make(key, out)
    assert torch.equal(out, by_the_book(key, shape).to(dtype))


@pytest.fixture
def few(monkeypatch):
    """A model of five tensors."""
    shapes = {"unet": {f"{n}.weight": (64, n + 1, 33) for n in range(5)}}
    monkeypatch.setattr(synthetic, "shapes", lambda model: shapes)
    return {f"model.diffusion_model.{k}": s for k, s in shapes["unet"].items()}


def test_a_file_is_the_same_for_any_number_of_threads(few, tmp_path):
    for threads in (1, 5):
        size = synthetic.write("sd15", tmp_path / str(threads), threads, lambda *_: None)
        assert size == (tmp_path / str(threads)).stat().st_size
    assert (tmp_path / "1").read_bytes() == (tmp_path / "5").read_bytes()
    with safe_open(tmp_path / "1", "pt") as file:
        assert set(file.keys()) == few.keys()
        for key, shape in few.items():
            assert torch.equal(file.get_tensor(key), by_the_book(key, shape))


def test_a_full_disk_leaves_nothing(tmp_path):
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))
from runner.cli import main
sys.exit(main(["synthetic", "sd15", "--out", {str(tmp_path / "a.safetensors")!r}]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert "cannot be written: File too large." in run.stderr
    assert os.listdir(tmp_path) == []


def test_other_models_are_refused_by_name():
    for name in ("sd3", "sd99"):
        with pytest.raises(Refused, match=name):
            synthetic.checkpoint(name)
