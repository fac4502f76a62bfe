from doctor.checks.comfyui import install, mismatched, missing, wanted
from doctor.facts import ComfyUI, Facts, Host, Package, Python, Target, Torch
from doctor.manifest import world

TORCH = Torch("2.14.0", "cu130")


def facts(*lines, os="linux", python="3.12.7", torch=TORCH, **packages):
    names = {name.replace("_", "-"): Package(version) for name, version in packages.items()}
    return Facts(
        target=Target(comfyui="/srv/ComfyUI", python="/srv/py", layout="venv"),
        host=Host(os=os, machine="x86_64"),
        python=Python(version=python, implementation="cpython", site="/srv/site"),
        packages=names,
        torch=torch,
        comfyui=ComfyUI("/srv/ComfyUI", requirements=lines),
        world=world(),
    )


def names(requirements):
    return [requirement.name for requirement in requirements]


def test_what_is_no_requirement_is_passed_over():
    lines = (
        "# a comment",
        "",
        "--extra-index-url https://download.pytorch.org/whl/cu130",
        "-r more.txt",
        "git+https://github.com/a/b",
        "what is this",
        "einops  # why",
        "spandrel @ https://github.com/a/spandrel.whl",
        "transformers[torch]>=4.50.3",
    )
    assert names(wanted(facts(*lines))) == ["einops", "spandrel", "transformers"]


def test_markers_are_those_of_the_patient_not_of_the_doctor():
    lines = (
        'pywin32; sys_platform == "win32"',
        'uvloop; platform_system != "Windows"',
        'tomli; python_version < "3.11"',
        'old; os_name == "nt" and platform_machine == "x86_64"',
    )
    assert names(wanted(facts(*lines))) == ["uvloop"]
    assert names(wanted(facts(*lines, os="windows", python="3.10.2"))) == [
        "pywin32",
        "tomli",
        "old",
    ]


def test_names_are_compared_as_the_packaging_rules_say():
    assert not missing(
        facts("PyYAML", "Pillow>=9", "ruamel_yaml", pyyaml="6", pillow="12", ruamel_yaml="1")
    )


def test_torch_and_numpy_are_told_elsewhere():
    lines = ("torch", "torchvision", "torchaudio", "numpy>=1.25", "einops")
    assert names(missing(facts(*lines))) == ["einops"]
    assert names(missing(facts(*lines, torch=None))) == ["numpy", "einops"]


def test_older_and_newer_than_asked():
    here = facts(
        "a>=2.0", "b==1.5", "c==1.5", "d~=2.0", "e==1.*", "f", "g>=1",
        a="1.9", b="1.4", c="1.6", d="3.0", e="1.7", f="0", g="not a version",
    )  # fmt: skip
    assert [(r.name, older) for r, _, older in mismatched(here)] == [
        ("a", True),
        ("b", True),
        ("c", False),
        ("d", False),
    ]


def test_a_pre_release_counts_as_what_it_is():
    assert not list(mismatched(facts("a>=2.0", a="2.1.dev3")))


def test_pip_by_hand_is_advised_only_where_it_cannot_bring_another_torch():
    lines = ("torch", "torchvision", "einops")
    whole = facts(*lines, torch="2.14.0")
    whole.packages["torch"] = whole.packages["torchvision"] = Package("1")
    assert install(whole, "x") == ("/srv/py -m pip install -r /srv/ComfyUI/requirements.txt",)
    assert install(facts(*lines), "x")[0].startswith("comfy-doctor fix x")


def test_without_comfyui_nothing_is_asked_for():
    nothing = facts()
    assert not list(wanted(nothing))
