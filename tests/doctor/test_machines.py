"""Every file in tests/machines is a patient: its facts, and what must be found.

`like` names another patient whose facts hold where this one says nothing; null takes one away.
"""

import json
from dataclasses import replace
from pathlib import Path
from string import Formatter

import pytest

from doctor.check import CHECKS
from doctor.diagnose import diagnose, verdict
from doctor.facts import Facts, build, plain
from doctor.finding import Diagnosis
from doctor.manifest import world
from doctor.words import LANGUAGES, pages, told

MACHINES = Path(__file__).parents[1] / "machines"
PATIENTS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(MACHINES.glob("*.json"))
}
OPTIONAL = {
    "/torch",
    "/comfyui",
    "/folder",
    "/target/python",
    "/target/comfyui",
}  # null is an answer there: there is none


def merged(base, own, at=""):
    """`own` over `base`, objects into one another."""
    if not (isinstance(base, dict) and isinstance(own, dict)) or "unknown" in own | base:
        return own
    both = base | {k: merged(base.get(k, {}), v, f"{at}/{k}") for k, v in own.items()}
    return {k: v for k, v in both.items() if v is not None or f"{at}/{k}" in OPTIONAL}


def facts_of(name):
    patient = PATIENTS[name]
    like = patient.get("like")
    return merged(facts_of(like), patient["facts"]) if like else patient["facts"]


def read(name):
    return replace(build(Facts, facts_of(name)), world=world())


@pytest.fixture(scope="module")
def diagnoses():
    return {name: diagnose(read(name)) for name in PATIENTS}


def by_hand(diagnosis: Diagnosis):
    return [n for n in diagnosis.not_judged if not n.skipped]


@pytest.mark.parametrize("name", PATIENTS)
def test_findings_are_those_owed(name, diagnoses):
    diagnosis = diagnoses[name]
    assert [finding.id for finding in diagnosis.findings] == PATIENTS[name]["findings"]
    assert sorted(n.id for n in diagnosis.not_judged) == PATIENTS[name].get("not_judged", [])
    assert not [n for n in diagnosis.not_judged if "the check itself failed" in n.why]


@pytest.mark.parametrize("name", PATIENTS)
def test_no_two_errors_for_one_cause(name, diagnoses):
    """A sick machine has one error; those with two have two causes, and are named here."""
    two = {  # nothing installed yet, or a Python in which torch cannot be installed
        "fresh-environment": 2,
        "wrong-folder": 2,
        "pypy-instead-of-cpython": 2,
        "32-bit-python-on-windows": 2,
        "python-newer-than-any-torch": 2,
    }
    assert len(diagnoses[name].errors) <= two.get(name, 1)


@pytest.mark.parametrize("name", PATIENTS)
def test_facts_survive_json(name):
    saved = plain(build(Facts, facts_of(name)))
    assert_holds(json.loads(json.dumps(saved)), facts_of(name))
    assert plain(build(Facts, json.loads(json.dumps(saved)))) == saved


def assert_holds(whole, part):
    """Everything that was said is still there."""
    if isinstance(part, dict):
        for key, value in part.items():
            assert_holds(whole[key], value)
    elif isinstance(part, list):
        assert len(whole) == len(part)
        for one, other in zip(whole, part, strict=True):
            assert_holds(one, other)
    else:
        assert whole == part


def test_every_check_has_a_patient_both_ways(diagnoses):
    """One patient has it; of another everything is judged, and it has it not."""
    had = {f.id for diagnosis in diagnoses.values() for f in diagnosis.findings}
    assert had == CHECKS.keys()
    healthy = [d for d in diagnoses.values() if not d.findings and not d.not_judged]
    assert healthy


MILD = {  # a mild form of a problem is a lower severity; whoever is not named here has errors
    "bench-far-below-its-ceilings": "warning " * 5 + "info " * 2,
    "another-environment-is-active": "info",
    "archive-in-custom-nodes": "warning",
    "card-fell-off-the-bus": "warning",
    "card-held-by-another-program": "warning",
    "card-in-the-second-slot": "info",
    "card-too-hot": "warning",
    "certificates-that-moved": "warning",
    "clone-made-by-sudo": "warning",
    "comfyui-on-drive-c-in-wsl": "info",
    "console-of-the-nineties": "warning",
    "database-cut-short": "warning",
    "diffusers-behind-the-hub": "warning",
    "external-drive-not-mounted": "warning",
    "few-files-allowed": "warning",
    "half-of-a-package-is-absent": "warning",
    "image-without-git": "warning",
    "killed-for-memory": "info",
    "lora-among-the-checkpoints": "warning",
    "memory-errors-on-a-data-centre-card": "warning",
    "models-on-a-full-disk": "warning",
    "node-cut-in-the-download": "warning",
    "node-failed-in-the-last-start": "warning",
    "node-imports-a-newer-core": "warning",
    "node-lacks-what-it-asks-for": "warning",
    "node-of-last-year": "warning",
    "node-of-next-year": "warning",
    "node-wants-an-older-transformers": "warning",
    "numba-beside-a-newer-numpy": "warning",
    "package-of-a-newer-python": "warning",
    "path-file-of-another-environment": "warning",
    "program-on-the-card-failed": "info",
    "protobuf-moved-by-a-node": "warning",
    "proxy-of-clash": "warning",
    "pydantic-half-updated": "warning",
    "pydantic-that-does-not-import": "warning",
    "python-built-without-lzma": "warning",
    "record-of-a-package-lost": "warning",
    "sageattention-without-triton": "warning",
    "socks-without-pysocks": "warning",
    "triton-without-a-compiler": "info",
    "two-comfyuis-one-folder": "warning",
    "unfinished-merge": "warning",
    "update-that-was-rolled-back": "warning",
    "virtual-machine-without-avx": "warning",
    "windows-without-a-paging-file": "warning",
    "node-unpacked-one-folder-too-deep": "warning",
    "node-cloned-and-unpacked": "warning",
    "node-cloned-without-its-requirements": "warning",
    "models-that-are-web-pages-and-pointers": "warning",
    "model-renamed-to-ckpt": "warning",
    "output-made-by-root": "warning",
    "pythonpath-of-another-tool": "warning",
    "packages-of-the-user-in-a-venv": "warning",
    "pip-was-interrupted": "info",
    "toolkit-on-the-library-path": "info",
    "windows-user-with-an-accent": "warning",
    "deep-folder-on-windows": "warning",
    "running-for-the-whole-network": "warning info",
    "running-for-this-machine": "info",
    "a-file-of-an-unused-package-is-gone": "warning",
    "black-pictures": "warning",
    "proof-attention-off": "warning",
    "proof-bit-flipped-in-memory": "warning",
    "proof-decoder-overflows": "warning",
    "proof-denoiser-right-in-float32": "warning",
    "proof-not-repeatable": "warning",
    "proof-overclocked": "warning",
    "proof-schedules-differ": "warning",
    "black-pictures-in-spite-of-a-flag": "warning",
    "captive-network": "warning",
    "card-memory-full": "warning",
    "cpu-torch-beside-integrated-graphics": "info",
    "flags-of-another-card": "info",
    "listening-on-an-old-address": "warning",
    "port-range-of-hyper-v": "warning",
    "card-on-the-list-of-this-comfyui-only": "info",
    "card-without-driver-beside-cpu-torch": "warning",
    "clock-years-behind": "warning",
    "comfyui-is-running": "info",
    "cuda-malloc-forced-on-a-listed-card": "warning",
    "cuda-torch-in-a-container-without-card": "warning",
    "cuda-torch-in-an-environment-without-card": "warning",
    "disk-getting-full": "warning",
    "environment-made-by-uv": "info",
    "flash-attention-for-another-torch": "warning",
    "frontend-lags-behind": "warning",
    "github-counts-questions": "info",
    "github-out-of-reach": "warning warning",
    "gtx-1650-on-the-list": "info",
    "imgaug-uses-removed-names": "warning",
    "index-out-of-reach": "warning",
    "models-out-of-reach": "warning",
    "name-server-gone": "warning",
    "no-network": "warning",
    "old-card-beside-a-new-one": "warning",
    "one-expired-certificate": "warning",
    "onnxruntime-for-another-cuda": "warning",
    "port-taken-by-somebody": "warning",
    "proxy-closed": "warning",
    "python-3-10-after-its-end": "info",
    "sage-built-on-a-newer-system": "warning",
    "slow-line": "info",
    "small-cloud-machine": "warning",
    "sound-library-missing": "warning",
    "system-python-of-debian": "info",
    "system-python-without-torch": "error warning",
    "templates-left-out": "warning",
    "templates-of-another-version": "warning",
    "tls-opened-in-between": "warning",
    "torchaudio-for-an-older-torch": "warning",
    "torchaudio-never-installed": "warning",
    "two-opencvs-that-work": "warning",
    "windows-dll-of-a-node-missing": "warning",
    "xformers-for-another-torch": "warning",
    "xformers-seen-at-level-1": "warning",
    "xformers-that-fits-by-number-and-fails": "warning",
}


@pytest.mark.parametrize("name", PATIENTS)
def test_severity(name, diagnoses):
    owed = MILD.get(name, "error " * len(PATIENTS[name]["findings"])).split()
    assert [finding.severity.word for finding in diagnoses[name].findings] == owed


def test_a_machine_nobody_looked_at_is_not_healthy():
    for facts in (Facts(), Facts(world=world())):
        diagnosis = diagnose(facts)
        assert {n.id for n in diagnosis.not_judged} == CHECKS.keys()
        assert verdict(diagnosis) == 4


@pytest.mark.parametrize("fact", ["python", "packages", "torch", "imports", "gpus", "host"])
def test_a_fact_nobody_could_find_out_is_never_health(fact):
    facts = replace(read("healthy-cuda"), **{fact: build(str, {"unknown": "it does not answer"})})
    diagnosis = diagnose(facts)
    assert by_hand(diagnosis)
    assert verdict(diagnosis) in (1, 4)


def test_every_finding_has_a_page_in_every_language():
    for lang in LANGUAGES:
        assert pages(lang).keys() >= CHECKS.keys()
        for page in pages(lang).values():
            assert page.title
            assert page.advice
            assert page.meaning
    for id in pages("en"):
        said = {lang: blanks(pages(lang)[id]) for lang in LANGUAGES}
        assert len(set(said.values())) == 1, f"{id}: {said}"


def blanks(page):
    texts = Formatter().parse(page.title + page.advice)
    return frozenset(name for _, name, _, _ in texts if name)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", PATIENTS)
def test_what_is_found_can_be_told(name, lang, diagnoses):
    for finding in diagnoses[name].findings:
        page = told(finding, lang)
        assert "{" not in page.title + page.advice
        assert all(finding.because), "a reason is a text"
        used = blanks(pages(lang)[finding.id])
        assert used <= finding.values.keys()
        assert finding.because


FORBIDDEN = ("--break-system-packages", "--trusted-host", "--user", "install -U torch")


@pytest.mark.parametrize("name", PATIENTS)
def test_commands_do_no_harm(name, diagnoses):
    for finding in diagnoses[name].findings:
        for command in finding.commands:
            assert not [word for word in FORBIDDEN if word in command]
            if "pip install" in command and " torch==" in command:
                assert "--index-url https://download.pytorch.org/whl/" in command


def test_commands_are_those_of_the_layout(diagnoses):
    (finding,) = diagnoses["cpu-torch-on-rtx-4090"].findings
    assert finding.commands == (
        r"python_embeded\python.exe -s -m pip install torch==2.14.0+cu130 "
        "torchvision==0.29.0+cu130 torchaudio==2.11.0+cu130 "
        "--index-url https://download.pytorch.org/whl/cu130",
    )


def test_the_torch_that_is_there_stays_when_a_companion_is_put_right(diagnoses):
    (finding,) = diagnoses["cuda-torchvision-beside-cpu-torch"].findings
    assert finding.commands == (
        "/opt/env/bin/python -m pip install --no-deps torchvision==0.28.0+cpu "
        "--index-url https://download.pytorch.org/whl/cpu",
    )


COMMANDS = {  # patient -> what a person is told to type
    "insightface-of-a-forum-beside-numpy-2": "-m pip install 'numpy>=1.26,<2'",
    "opencv-of-2023-beside-numpy-2": "-m pip install --upgrade 'opencv-python>=4.10.0.84'",
    "module-built-for-numpy-2-beside-numpy-1": "-m pip install 'numpy>=2'",
    "numpy-moved-below-comfyui": "-m pip install 'numpy>=1.25.0'",
    "container-without-libgl": "apt-get install libgl1",
    "cuda-visible-devices-all": "unset CUDA_VISIBLE_DEVICES",
    "torch-lost-a-library": "--force-reinstall --no-deps torch==2.13.0+cpu",
    "torch-dies-of-a-signal": "--force-reinstall --no-deps torch==2.13.0+cpu",
    "gtx-1080-with-cu130": "torch==2.14.0+cu126",
    "rtx-5090-with-cu126": "torch==2.14.0+cu130",
    "driver-of-cuda-12-with-cu130": "torch==2.14.0+cu126",
    "cuda-torch-on-a-server-without-card": "torch==2.13.0+cpu",
    "cpu-torch-on-a-radeon": "torch==2.14.0+rocm7.2",
    "safetensors-lost-its-library": "comfy-doctor fix package-files-corrupt",
    "record-of-a-package-lost": "--ignore-installed --no-deps einops==",
    "updated-by-git-pull-alone": "-m pip install -r /srv/ComfyUI/requirements.txt",
    "fresh-environment": "comfy-doctor fix core-requirement-missing --comfyui /srv/ComfyUI",
    "port-taken-by-another-program": "launch --comfyui /srv/ComfyUI -- --port 8189",
    "card-off-the-list-that-fails": "launch --comfyui /srv/ComfyUI -- --disable-cuda-malloc",
}


@pytest.mark.parametrize(("name", "command"), COMMANDS.items())
def test_the_command_is_the_right_one(name, command, diagnoses):
    assert command in diagnoses[name].findings[0].commands[0]


def test_no_command_where_none_would_help(diagnoses):
    assert diagnoses["python-newer-than-any-torch"].findings[-1].commands == ()
    (driver,) = diagnoses["driver-450-51-with-cu118"].findings[-1].commands
    assert driver == "sudo ubuntu-drivers install", "no other torch, but a newer driver"
