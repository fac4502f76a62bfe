"""What README and docs tell people to type is typed here, in places of its own."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from doctor import options
from tests.doctor.test_page import saved
from tests.lab.mains import main_py

ROOT = Path(__file__).parent.parent
FENCED = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(path, kind):
    return [text for name, text in FENCED.findall((ROOT / path).read_text("utf-8")) if name == kind]


def test_the_examples_of_the_library_run(tmp_path):
    pytest.importorskip("torch")
    code = "\n".join(blocks("docs/library.md", "python"))
    words = [sys.executable, "-W", "error::SyntaxWarning", "-c", code]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    run = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "not known: nobody asked" in run.stdout
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"


PAGES = [ROOT / name for name in ("README.md", "README.zh-CN.md")]
PAGES += sorted((ROOT / "docs" / "guides").glob("*.md"))
PAGES += [ROOT / "docs" / name for name in ("fleets.md", "fleets.zh.md")]
# Command -> why not here. tests/lab/newcomer.py types them all, in a fresh clone and an empty home.
NOT_RUN = {
    "make run": "minutes, and a torch to download; tests/lab makes the same environment",
    "make test": "this is it",
    "python3 -m venv .venv && .venv/bin/pip install .": "tests/test_pythons.py, on every Python",
    "python3 -m venv ~/doctor": "the same",
    "~/doctor/bin/pip install .": "the same",
    ".venv/bin/comfy-doctor run --comfyui ~/ComfyUI": "minutes, and a torch to download",
    "comfy-doctor setup ~/ComfyUI-new --yes": "minutes, and a torch to download",
    "comfy-doctor run --comfyui ~/ComfyUI-new": "minutes, and a torch to download",
    "comfy-doctor launch --comfyui ~/ComfyUI-new": "runs until ended: tests/lab/test_start.py",
    "comfy-doctor fix --comfyui ~/ComfyUI": "a torch to download",
    "comfy-doctor run --comfyui ~/ComfyUI": "minutes, and a torch to download",
    "comfy-doctor run --yes --json --html report.html --comfyui ~/ComfyUI": "the same",
    "comfy-doctor node bisect --comfyui ~/ComfyUI": "starts: tests/lab/test_starts.py",
    "comfy-doctor setup ~/ComfyUI-new --dry-run": "asks the default index: tests/lab",
    **dict.fromkeys(
        (
            "comfy-doctor fleet check --address HEAD:6379 --comfyui '~/ComfyUI' --html fleet.html",
            "comfy-doctor fleet run --address HEAD:6379 --comfyui '~/ComfyUI' --json",
            "comfy-doctor fleet bench --address HEAD:6379 --comfyui '~/ComfyUI' --model sd15"
            " --size 512",
            "comfy-doctor fleet render --address HEAD:6379 --comfyui '~/ComfyUI' --images photos"
            " --out painted",
        ),
        "a cluster of other machines: the lab has a head of Ray on this one",
    ),
}


def typed(path):
    """The commands of a page, without what is a comment."""
    for block in blocks(path, "sh"):
        yield from (line.split("  #")[0].strip() for line in block.splitlines() if line.strip())


COMMANDS = sorted({command for page in PAGES for command in typed(page)})


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A home with a ComfyUI that broke: an environment without torch, a log, and a run."""
    place = tmp_path_factory.mktemp("home")
    main_py(place / "ComfyUI")
    venv = [sys.executable, "-m", "venv", "--without-pip", str(place / "ComfyUI" / ".venv")]
    subprocess.run(venv, check=True)
    (place / "comfyui.log").write_text("ModuleNotFoundError: No module named 'torchsde'\n")
    saved(place / "ComfyUI-new" / ".comfy-doctor" / "runs" / "20260101-000000")
    main_py(place / "ComfyUI-new")
    doctor = place / "bin" / "comfy-doctor"
    doctor.parent.mkdir()
    doctor.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m doctor "$@"\n')
    doctor.chmod(0o755)
    return place


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in NOT_RUN])
def test_every_command_does_what_a_newcomer_expects(clean, command):
    """Exit code 0, or 1 with findings: this ComfyUI has no torch. Never bad usage, never a bug."""
    env = {"PYTHONPATH": str(ROOT), "PATH": f"{clean}/bin:/usr/bin:/bin", "HOME": str(clean)}
    line = ["sh", "-c", command]
    run = subprocess.run(line, cwd=clean, env=env, capture_output=True, text=True, timeout=120)
    codes = (0, 1) if any(verb in command for verb in (" check ", " fix ", " log ")) else (0,)
    if " undo " in command:  # nothing was done to this one
        assert (run.returncode, run.stderr) == (2, "Nothing was changed that could be undone.\n")
        return
    assert run.returncode in codes, run.stderr
    assert run.stdout
    assert "Traceback" not in run.stderr


def test_every_reason_not_to_run_a_command_is_of_one_that_is_there():
    assert set(NOT_RUN) <= set(COMMANDS)


def test_what_is_not_run_here_is_typed_by_the_lab():
    from tests.lab import newcomer

    there = {command for page in newcomer.PAGES for command in typed(page)}
    assert set(NOT_RUN) - set(newcomer.LEFT_OUT) <= there
    assert set(newcomer.LEFT_OUT) <= there


@pytest.mark.parametrize("command", [c for c in NOT_RUN if " comfy-doctor " in f" {c}"])
def test_every_command_that_is_not_run_is_one(command):
    words = shlex.split(command)
    options.parser().parse_args(words[1:])


INLINE = sorted(
    {c for p in PAGES for c in re.findall(r"`(comfy-doctor [^`]+)`", p.read_text("utf-8"))}
)


@pytest.mark.parametrize("command", INLINE)
def test_every_command_in_a_sentence_is_one(command):
    words = shlex.split(command)[1:]
    options.parser().parse_args([word.replace("DIR", "/x") for word in words])


@pytest.mark.parametrize("page", [p for p in PAGES if "zh" not in p.name])
def test_both_languages_tell_the_same_commands(page):
    other = page.with_name({"README": "README.zh-CN"}.get(page.stem, f"{page.stem}.zh") + ".md")
    alike = [command.replace(" --lang zh", "") for command in typed(other)]
    assert alike == list(typed(page))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs/architecture.md", ROOT / "docs/library.md"])
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", FENCED.sub("", page.read_text("utf-8"))):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_figures_of_the_readme_are_those_of_the_results():
    found = {}
    for name in ("check_levels", "treatment"):
        results = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text("utf-8"))
        found |= {what: f"{median(runs):.2f}" for what, runs in results["seconds"].items()}
    order = ("check level 1", "import torch, numpy", "check level 2", "import torch, numpy")
    order += ("plan for 40 packs", "uv alone, same wishes")
    for name in ("peers", "peers_512"):
        peers = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text("utf-8"))
        steps = peers["results"][0]["seconds_a_step"]
        found |= {f"{who} {name}": f"{seconds:.2f}" for who, seconds in steps.items()}
        order += tuple(f"{who} {name}" for who in ("ours", "comfyui", "ours", "diffusers"))
    cold = json.loads((ROOT / "benchmarks/results/cold_start.json").read_text("utf-8"))
    for where in ("full", "disk"):
        found |= {f"{who} {where}": f"{s:.2f}" for who, s in cold[where]["seconds"].items()}
        order += (f"ours {where}", f"comfyui {where}")
    for page in PAGES[:2]:
        rows = re.findall(r"\| (\d+\.\d\d) \|", page.read_text("utf-8").replace("| |", "|"))
        assert rows == [found[what] for what in order]


def test_every_results_file_that_is_named_is_there():
    """A figure that cites a file nobody wrote is a figure typed in by hand."""
    named = {
        (path.relative_to(ROOT), name)
        for folder in ("runner", "doctor", "training", "docs", ".")
        for path in (ROOT / folder).glob("*" if folder == "." else "**/*")
        if path.suffix in (".py", ".md")
        for name in re.findall(r"benchmarks/results/(\w+\.json)", path.read_text("utf-8"))
    }
    assert len(named) > 3
    assert not [one for one in named if not (ROOT / "benchmarks/results" / one[1]).exists()]
