"""The command line, as a user meets it: one sentence, the right exit code, nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch")
from PIL import Image  # noqa: E402
from safetensors import safe_open  # noqa: E402

from runner import pixels  # noqa: E402
from runner.cli import main  # noqa: E402


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "in.png"
    path.write_bytes(pixels.to_png(pixels.gradient(64, 64)[0], {}))
    return path


@pytest.fixture
def run(small, picture, tmp_path, capfd):
    """Run a command in this process: exit code, what it said on stdout, and on stderr."""

    def called(command, *more, **options):
        words = [command, *more]
        if command == "render":
            options = {
                "checkpoint": small, "image": picture, "out": tmp_path / "out.png", "steps": 2,
            } | options  # fmt: skip
        for key, value in options.items():
            words += [f"--{key.replace('_', '-')}", str(value)] if value is not None else []
        code = main([*words, "--lang", "en"])
        out, err = capfd.readouterr()
        return code, out, err

    return called


def test_render_writes_the_picture_the_trace_and_its_recipe(run, tmp_path):
    code, out, err = run("render", "--json", trace=tmp_path / "t.safetensors", seed=5)
    told = json.loads(out)
    assert (code, told["schema"], told["finite"]) == (0, "runner.render/1", True)
    assert told["files"] == [str(tmp_path / "out.png"), str(tmp_path / "t.safetensors")]
    with Image.open(tmp_path / "out.png") as image:
        assert json.loads(image.text["recipe"])["seed"] == 5
    with safe_open(tmp_path / "t.safetensors", "pt") as file:
        assert "image/output" in file.keys()  # noqa: SIM118
    assert "Traceback" not in err


def test_the_same_words_give_the_same_hash_and_others_do_not(run, tmp_path):
    def output(**options):
        return json.loads(run("render", "--json", **options)[1])["sha256"]["output"]

    other = tmp_path / "other.png"
    other.write_bytes(pixels.to_png(1 - pixels.gradient(64, 64)[0], {}))
    once = output()
    assert output() == once
    hashes = {output(seed=1), output(positive="x"), output(image=other), output(cfg=2)}
    assert len(hashes | {once}) == 5


def test_without_json_a_person_is_told(run):
    code, out, _ = run("render")
    assert code == 0
    assert out.startswith("Rendered ")


LFS = b"version https://git-lfs.github.com/spec/v1\n"
BAD = [
    ({"steps": 0}, "bad-steps"),
    ({"steps": "many"}, "bad-usage"),
    ({"cfg": "nan"}, "bad-cfg"),
    ({"denoise": 2}, "bad-denoise"),
    ({"seed": -1}, "bad-seed"),
    ({"width": 4}, "bad-width"),
    ({"sampler_name": "eulr"}, "unknown-sampler"),
    ({"scheduler": "karas"}, "unknown-scheduler"),
    ({"device": "toaster"}, "unknown-device"),
    ({"dtype": "float7"}, "unknown-dtype"),
    ({"threads": 0}, "bad-threads"),
    ({"image": "none.png"}, "no-such-image"),
    ({"image": None}, "no-image"),
    ({"image": __file__}, "image-unreadable"),
    ({"checkpoint": "none.safetensors"}, "checkpoint-not-found"),
    ({"checkpoint": "."}, "checkpoint-is-folder"),
    ({"checkpoint": __file__}, "checkpoint-damaged"),
    ({"checkpoint": None}, "no-checkpoint"),
    ({"checkpoint": None, "synthetic": "sd3"}, "unknown-model"),
    ({"synthetic": "sd15"}, "bad-usage"),
    ({"out": "/none/such/out.png"}, "cannot-write"),
    ({"out": "."}, "cannot-write"),
    ({"trace": "/none/such/t.safetensors"}, "cannot-write"),
]


@pytest.mark.parametrize(("wrong", "id"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_sentence_and_exit_2(run, tmp_path, wrong, id):
    code, out, err = run("render", "--json", **wrong)
    assert (code, json.loads(out)["error"]["id"]) == (2, id)
    assert err.count("\n") == 1, err
    assert err.strip() == json.loads(out)["error"]["message"]
    assert not (tmp_path / "out.png").exists()


def test_an_unknown_sampler_gets_the_nearest_name(run):
    assert "Did you mean euler?" in run("render", sampler_name="eulr")[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(run):
    assert run("render", device="cuda")[0] == 2


@pytest.mark.parametrize("words", [[], ["fly"], ["render"], ["verify", "--depth", "9"]])
def test_bad_usage_is_exit_2_with_json_too(words, capfd):
    assert main([*words, "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["id"] == "bad-usage"


def test_a_picture_that_is_not_finite_is_exit_1_and_says_where(run, small, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(small)
    weights["model.diffusion_model.out.2.bias"].fill_(float("inf"))
    save_file(weights, tmp_path / "inf.safetensors")
    code, out, _ = run("render", "--json", checkpoint=tmp_path / "inf.safetensors")
    assert code == 1
    assert json.loads(out)["not_finite"][0] == "step/1"


def test_a_missing_embedding_is_a_note(run):
    notes = json.loads(run("render", "--json", positive="a embedding:foo")[1])["notes"]
    assert notes == ["embedding:foo is not there and was left out of the prompt."]


def test_bench_compares_only_what_is_equal(run, small, tmp_path):
    options = {"model": small, "steps": 2, "runs": 2}
    code, out, _ = run("bench", "--json", **options)
    assert code == 0
    assert json.loads(out)["schema"] == "runner.bench/1"
    earlier = tmp_path / "earlier.json"
    earlier.write_text(out)
    code, out, _ = run("bench", "--json", compare=earlier, **options)
    assert json.loads(out)["times_as_fast"] > 0
    assert run("bench", compare=earlier, **options | {"steps": 3})[0] == 2
    earlier.write_text("[]")
    assert run("bench", compare=earlier, **options)[0] == 2


def test_verify_speaks_chinese(capfd):
    assert main(["verify", "--depth", "1", "--lang", "zh"]) == 0
    assert "已验证" in capfd.readouterr().out


def test_prove_is_verify_render_and_bench_in_one(run, small, tmp_path):
    out_path = tmp_path / "out.png"
    options = {"checkpoint": small, "out": out_path, "steps": 2, "depth": 1, "bench_runs": 1}
    code, out, err = run("prove", "--json", "--progress", "json", **options)
    told = json.loads(out)
    assert (code, told["schema"]) == (0, "runner.prove/1")
    schemas = [told[part]["schema"] for part in ("verify", "render", "bench")]
    assert schemas == ["runner.verify/1", "runner.render/1", "runner.bench/1"]
    assert out_path.exists()
    for line in err.splitlines():
        event = json.loads(line.removeprefix("@progress "))
        assert event.keys() == {"stage", "done", "of"}


def test_a_fault_of_ours_is_exit_3_and_can_be_pasted(run, monkeypatch):
    monkeypatch.setattr("runner.trace.img2img", lambda *_: 1 / 0)
    code, out, err = run("render", "--json")
    assert (code, json.loads(out)["error"]["id"]) == (3, "our-bug")
    assert "ZeroDivisionError" in err
    assert "torch" in err


def test_a_broken_torch_is_not_our_fault(run, monkeypatch):
    def broken(*_):
        raise ImportError("libtorch_cpu.so: cannot open shared object file", name="torch")

    monkeypatch.setattr("runner.trace.img2img", broken)
    code, out, _ = run("render", "--json")
    assert (code, json.loads(out)["error"]["id"]) == (2, "import-failed")


def child(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "runner", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_help_does_not_wait_for_torch():
    code = "import sys, runner.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numpy', 'PIL'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_leaves_nothing(tmp_path, sent):
    process = child("synthetic", "sd15", "--out", tmp_path / "a.safetensors")
    deadline = time.monotonic() + 60
    while not os.listdir(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Interrupted" in err
    assert os.listdir(tmp_path) == []


def test_it_runs_as_a_folder_with_nothing_else_around(tmp_path):
    import shutil

    shutil.copytree("runner", tmp_path / "bundle" / "runner")
    (tmp_path / "bundle" / "__main__.py").write_text(
        "import sys\nfrom runner.cli import main\nsys.exit(main())\n"
    )
    command = [sys.executable, "-I", str(tmp_path / "bundle"), "verify", "--depth", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_for_the_picture_leaves_nothing(small, picture, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        words = ["render", "--checkpoint", small, "--image", picture, "--steps", 1]
        process = child(*words, "--out", disk / "out.png")
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2, err
        assert "No space left on device" in err
        assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
