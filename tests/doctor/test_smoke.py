"""smoke against a double of the server: every way in which one goes wrong, in bounded time."""

import json
import math
import time

import pytest
from PIL import Image

from doctor import pictures, smoke, tensors
from doctor.cli import main
from runner import rungs_network, rungs_whole
from tests.doctor.double import serving


def smoked(capsys, url, *words, limit=20):
    """Exit code and answer, in this process: a start of Python each would take most of the time."""
    code = main(["smoke", "--server", url, "--limit", str(limit), "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def gates(said):
    return {gate["name"]: gate["verdict"] for gate in said["gates"]}


def test_a_server_whose_checkpoint_is_not_at_hand_is_judged_as_far_as_can_be(capsys):
    with serving() as (double, url):
        code, said = smoked(capsys, url)
    assert (code, said["schema"], said["verdict"]) == (0, "comfy-doctor.smoke/1", "passed")
    assert {name for name, verdict in gates(said).items() if verdict == "not judged"} == {
        "finite",
        "encode",
        "sample",
        "picture",
    }
    for name in ("determinism", "seed", "prompt", "not flat", "picture whole"):
        assert gates(said)[name] == "passed", name
    assert {row["name"] for row in said["stages"]} >= {"encode", "sample", "decode"}
    assert sorted(double.deleted) == [f"prompt-{n}" for n in range(1, 5)], "out of the history"


FAULTS = {
    "hang at /system_stats": "server",
    "hang at /prompt": "server",
    "reset at /system_stats": "server",
    "reset at /upload/image": "server",
    "500 at /system_stats": "server",
    "500 at /object_info": "server",
    "500 at /view": "picture whole",
    "full at /prompt": "server",
    "html at /system_stats": "server",
    "list at /system_stats": "server",
    "list at /object_info": "nodes",
    "list at /upload/image": "executed",
    "deep at /object_info": "server",
    "redirect at /system_stats": "server",
    "endless at /object_info": "server",
    "endless at /view": "picture whole",
    "never ends": "executed",
    "no prompt_id": "executed",
    "prompt refused": "executed",
    "node missing": "nodes",
    "node raises": "executed",
    "interrupted": "executed",
    "no outputs": "picture whole",
    "half a picture": "picture whole",
    "picture breaks off": "picture whole",
    "picture is a page": "picture whole",
    "black picture": "not flat",
    "seed ignored": "seed",
    "prompt ignored": "prompt",
    "not deterministic": "determinism",
}


@pytest.mark.parametrize("way", FAULTS)
def test_what_goes_wrong_is_told_at_its_gate_and_soon(capsys, way):
    began = time.monotonic()
    waits = way.startswith(("hang", "never", "endless"))
    with serving(way) as (_, url):
        code, said = smoked(capsys, url, limit=1.5 if waits else 20)
    assert code == 1
    assert gates(said)[FAULTS[way]] == "failed", said["gates"]
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "way", ["websocket lost", "no websocket", "websocket babbles", "websocket floods"]
)
def test_a_websocket_is_a_convenience_and_history_decides(capsys, way):
    with serving(way) as (_, url):
        code, said = smoked(capsys, url)
    assert (code, said["verdict"]) == (0, "passed"), said["gates"]


def test_a_failed_node_is_told_with_its_exception_and_page(capsys):
    with serving("node raises") as (_, url):
        _, said = smoked(capsys, url)
    (gate,) = (gate for gate in said["gates"] if gate["name"] == "executed")
    assert "sample (KSampler): torch.OutOfMemoryError" in gate["why"]
    assert gate["finding"] == "gpu-out-of-memory"


def test_a_prompt_that_does_not_end_is_taken_back(capsys):
    with serving("never ends") as (double, url):
        smoked(capsys, url, limit=1.5)
    assert double.deleted == ["prompt-1"]
    assert double.interrupted == ["prompt-1"], "ours, by its id"


def test_headers_and_tokens_go_along_and_are_not_told(capsys, tmp_path):
    (tmp_path / "token").write_text("secret-one\n")
    with serving() as (double, url):
        words = ["--token", f"@{tmp_path / 'token'}", "--header", "X-One: two"]
        _, said = smoked(capsys, url, *words)
        assert double.headers["Authorization"] == "Bearer secret-one"
        assert double.headers["X-One"] == "two"
        assert "secret" not in json.dumps(said)
        _, said = smoked(capsys, url.replace("//", "//me:secret-two@"))
        assert double.headers["Authorization"] == "Basic bWU6c2VjcmV0LXR3bw=="
        assert "secret" not in json.dumps(said)


@pytest.mark.parametrize(
    "words",
    [["--server", "127.0.0.1:8188"], ["--server", "file:///etc"], ["--checkpoint", "/no/such"]],
)
def test_bad_usage_is_refused(capsys, words):
    assert main(["smoke", *words, "--json"]) == 2


def test_the_bounds_are_those_of_the_ladder():
    told = smoke.bounds()
    assert (told["encode"], told["sample"]) == (rungs_network.ENCODE, rungs_whole.RUN)
    for dtype in ("float16", "bfloat16"):
        wider = smoke.bounds(dtype)
        assert wider["encode"] > told["encode"]
        assert wider["picture"] < told["picture"]


def of(*numbers):
    return tensors.Tensor((len(numbers),), numbers)


def test_the_first_stage_that_parts_is_named():
    white = Image.new("RGB", (8, 8), (255, 255, 255))
    grey = Image.new("RGB", (8, 8), (90, 90, 90))
    right, wrong = of(1.0, 2.0), of(1.0, 2.1)
    trace = {"node/encode": right, "node/sample": right}

    def parting(encode, sample, picture):
        shot = smoke.Shot(None, picture, latents={"encode": encode, "sample": sample})
        return smoke.parting(smoke.against(shot, white, trace, ""))

    assert parting(right, right, white) == ""
    assert parting(wrong, wrong, grey) == "encode"
    assert parting(right, wrong, grey) == "sample"
    assert parting(right, right, grey) == "decode"


def test_two_devices_are_not_held_to_the_last_bit():
    shot = smoke.Shot(None, Image.new("RGB", (8, 8), 9), latents={})
    picture = Image.new("RGB", (8, 8), (200, 0, 0))
    (*_, gate) = smoke.against(shot, picture, {}, "the server computes on cuda, the runner on cpu")
    assert gate.verdict == "not judged"


def test_latents_are_read_and_held_together():
    header = json.dumps({"latent_tensor": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})
    data = len(header).to_bytes(8, "little") + header.encode() + b"\0\0\x80\x3f\0\0\0\x40"
    latent = tensors.read(data)["latent_tensor"]
    assert list(latent.numbers) == [1.0, 2.0]
    assert tensors.gap(latent, of(1.0, 2.0)) == 0
    assert tensors.gap(latent, of(1.0, math.nan)) == math.inf
    for broken in (
        b"",
        data[:-1],
        data[:20],
        b"<html>" * 100,
        (1 << 60).to_bytes(8, "little") + data,
    ):
        with pytest.raises(tensors.NotTensors):
            tensors.read(broken)


def test_pictures_are_held_together():
    one = pictures.opened(pictures.gradient())
    other = one.copy()
    other.putpixel((3, 3), tuple(value ^ 1 for value in one.getpixel((3, 3))))
    assert (pictures.psnr(one, one), pictures.different(one, one)) == (math.inf, 0)
    assert pictures.different(one, other) == 1
    assert pictures.psnr(one, other) == pytest.approx(10 * math.log10(255**2 * 64 * 64))
    assert pictures.spread(one) > 50


def test_a_dry_run_asks_nothing(capsys):
    with serving() as (double, url):
        code, said = smoked(capsys, url, "--dry-run")
    assert (code, said["verdict"], double.asked) == (0, None, [])
