import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402

from runner import pixels  # noqa: E402
from runner.recipe import Refused  # noqa: E402


def refused(path):
    with pytest.raises(Refused) as caught:
        pixels.load(path)
    assert str(path) in str(caught.value)
    return caught.value.id


def test_the_golden_picture_is_made_again_bit_for_bit():
    theirs = load_file("tests/golden/sd15.safetensors")["image/input"]
    assert torch.equal(pixels.gradient(64, 64), theirs)


def test_alpha_is_dropped_and_not_blended(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGBA", (8, 8), (200, 100, 50, 0)).save(path)
    assert (pixels.load(path)[0, 0, 0] * 255).round().tolist() == [200, 100, 50]


def test_the_camera_held_upright_turns_the_picture(tmp_path):
    picture, path = Image.new("RGB", (16, 8)), tmp_path / "a.jpg"
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(path, exif=exif)
    assert pixels.load(path).shape == (1, 16, 8, 3)


def test_deep_grey_is_divided_by_255_and_clipped(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((8, 8), 25_500, dtype=np.int32), mode="I").save(path)
    assert pixels.load(path)[0, 0, 0, 0].item() == pytest.approx(100 / 255)


def test_the_first_frame_of_a_moving_picture_is_taken(tmp_path):
    path = tmp_path / "a.gif"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert pixels.load(path).mean().item() == 1.0


def test_cropping_keeps_the_middle():
    image = torch.arange(11 * 21).view(1, 11, 21, 1).float()
    assert torch.equal(pixels.crop(image), image[:, 1:9, 2:18])
    assert torch.equal(pixels.crop(image[:, :8, :16]), image[:, :8, :16])


def test_scaling_truncates_before_and_keeps_proportions():
    image = pixels.gradient(64, 32)
    assert pixels.scale(image, None, None) is image
    assert pixels.scale(image, 16, 24).shape == (1, 24, 16, 3)
    assert pixels.scale(image, 32, None).shape == (1, 16, 32, 3)
    assert pixels.scale(image, None, 16).shape == (1, 16, 32, 3)
    flat = torch.full((1, 16, 16, 3), 100.9 / 255)
    assert torch.equal(pixels.scale(flat, 8, 8), torch.full((1, 8, 8, 3), 100.0) / 255)


def test_bytes_are_truncated_not_rounded():
    image = torch.tensor([[[0.999, 0.0, -1.0], [1.5, float("nan"), 0.5]]])
    assert pixels.to_bytes(image).tolist() == [[[254, 0, 0], [255, 0, 127]]]


def test_the_recipe_is_in_the_png(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(pixels.to_png(pixels.gradient(8, 16)[0], {"recipe": '{"positive": "犬"}'}))
    with Image.open(path) as picture:
        assert picture.text["recipe"] == '{"positive": "犬"}'
        assert picture.size == (8, 16)


def hostile(folder):
    whole = pixels.to_png(pixels.gradient(64, 64)[0], {})
    yield "image-unreadable", b""
    yield "image-unreadable", b"<html>not found</html>"
    yield "image-unreadable", whole[: len(whole) // 2]
    yield "image-unreadable", whole[:20]
    yield "image-unreadable", b"GIF89a\xff\xff\xff\xff\x00\x00\x00"
    yield "image-too-small", pixels.to_png(pixels.gradient(7, 9)[0], {})
    wide = bytearray(whole)
    wide[16:24] = (2**30).to_bytes(4, "big") * 2
    yield "image-too-large", bytes(wide)
    wide[16:24] = (16_385).to_bytes(4, "big") + (64).to_bytes(4, "big")
    yield "image-too-large", bytes(wide)


def test_hostile_pictures_get_one_sentence(tmp_path):
    for place, (id, data) in enumerate(hostile(tmp_path)):
        path = tmp_path / f"{place}.png"
        path.write_bytes(data)
        found = refused(path)
        assert found in (id, "image-unreadable"), (place, found)
    assert refused(tmp_path / "none.png") == "no-such-image"
    assert refused(tmp_path) == "no-such-image"


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with suppress(ZeroDivisionError), pixels.whole_file(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]
    with pixels.whole_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_device_is_written_to_and_not_replaced():
    with suppress(Refused), pixels.whole_file(Path("/dev/null")) as file:
        file.write(b"x")
    with pytest.raises(Refused, match="No space left on device"):
        fill(Path("/dev/full"))
    assert Path("/dev/full").is_char_device()
    assert Path("/dev/null").is_char_device()


def fill(path):
    with pixels.whole_file(path) as file:
        file.write(b"x" * 100_000)


def test_of_a_link_the_file_is_replaced(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    fill(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len((tmp_path / "a").read_bytes()) == 100_000
