"""The shape of the code, as a test: imports point one way, and side effects have an address."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = {  # a module may import only what stands before it, in its own package
    "doctor": """
        manifest speeds facts finding words advise verdict check choice accelerators flags
        startscript checks diagnose logfile signatures traceback hints symptoms startup listen cures
        probe probe_packs probe_allocator locate machine cards modelfiles keeping contents examine
        mirrors tree entry archive source git download reach remember errand race lfs proof naming
        fetch network packs registry intact
        child allocators receipts snapshot wishes suspicion uv installer room step fix fixes plan
        journal sync lock trial treat nodes
        api events img2img prompt tensors pictures preview terminal graphics smoke launch launched
        handoff redact report page fleet monitor unit options easel screen spoken
        verbs cli start __main__
    """.split(),
    "runner": """
        report recipe pixels nodes graph canvas folders tables pickled weights early memory products
        embeddings tokenizer clip contrast openclip mapped vae unet families aliases checkpoint lora
        sources synthetic embedded devices
        levers heap winograd darkroom passes kernels graphs engine
        schedules noise sampler
        samplers_karras samplers_adams samplers_exponential samplers_stochastic samplers_guided
        samplers guidance pipeline workflow measures glimpse trace layers births golden gate
        experiments rungs_formula rungs_network again allocators rungs_whole verify ceiling nvml
        causes slowness bench history plots
        listening drawing page_stages page
        announcer arguments many rendered cli __main__
    """.split(),
    "manifests": [],
}
LATER = {"manifest": {"facts"}, "facts": {"manifest"}}  # for the eyes of a type checker only
EFFECTS = {  # module of the standard library or another's -> where it may be used
    "subprocess": {
        "child",
        "examine",
        "keeping",
        "machine",
        "git",
        "network",
        "uv",
        "launch",
        "fleet",
        "verbs",
    },
    "requests": {"download", "reach", "api"},
    "socket": {"machine", "download"},
    "psutil": {"locate", "machine", "git", "launched"},
    "rich": {"screen"},
    "websocket": {"events"},
    "ray": {"fleet"},
}
MODULES = [path for package in ORDER for path in sorted((ROOT / package).rglob("*.py"))]


def imported(tree):
    """Every imported name, split at its dots: `from doctor import step` is doctor, step."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}".split(".") for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_shape(path):
    package, *rest = (part.removesuffix(".py") for part in path.relative_to(ROOT).parts)
    here = rest[0]
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is for"
    assert len(text.splitlines()) <= 450, "a file one can read in a sitting"
    if here == "__init__":
        return
    order = ORDER[package]
    assert here in order, f"{here} has no place in the order of {package}"
    for top, *names in imported(tree):
        assert {top, package} != {"doctor", "runner"}, "the two packages never import each other"
        assert top not in EFFECTS or package != "doctor" or here in EFFECTS[top], (
            f"{here} must not use {top}"
        )
        if top == package and names and names[0] in order and names[0] not in LATER.get(here, ()):
            assert order.index(names[0]) <= order.index(here), f"{here} must not know {names[0]}"
        assert not here.startswith("probe") or top not in ORDER, (
            "the probe runs where our code is not"
        )


@pytest.mark.parametrize("module", ["doctor.cli", "doctor.verbs.check", "runner.cli"])
def test_importing_is_cheap_and_does_nothing(module):
    """Neither torch for the doctor, nor the network for looking, nor a byte on the screen."""
    heavy = "torch numpy requests PIL"
    code = f"import sys, {module}; print(sorted(set({heavy.split()!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (run.stdout, run.stderr) == ("[]\n", "")


def test_every_module_has_its_place_once():
    for package, order in ORDER.items():
        there = {
            path.name.removesuffix(".py")
            for path in (ROOT / package).iterdir()
            if path.suffix == ".py" or (path / "__init__.py").exists()
        }
        assert there - {"__init__"} == set(order) if order else True
        assert len(order) == len(set(order))


def test_no_module_is_a_drawer():
    for path in MODULES:
        assert path.stem not in {"utils", "util", "common", "helpers", "base", "misc"}, path
