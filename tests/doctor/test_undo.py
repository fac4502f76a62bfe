"""Undo of every kind of fix there is: byte for byte, with the network cut, and after its owner
edited a file of a package that the fix had nothing to do with."""

import socket
import subprocess
import sys
import venv
from dataclasses import replace

import pytest
from packaging.requirements import Requirement

from doctor import examine, installer, journal, nodes, packs, treat
from doctor.diagnose import diagnose
from doctor.fix import FIXES
from doctor.plan import Plan, Treatment, prescribe
from doctor.receipts import Journal
from doctor.step import Packages
from doctor.treat import Settings
from tests.doctor.test_journal import silent
from tests.doctor.test_machines import PATIENTS, read
from tests.doctor.test_snapshot import tree
from tests.doctor.wheels import wheel


def patient_with(fix):
    """The first patient that is offered it, with the findings that offer it."""
    everybody = (replace(read(name), maker=examine.maker()) for name in PATIENTS)
    for facts in sorted(everybody, key=lambda facts: facts.host.os != "linux"):
        found = [finding for finding in diagnose(facts).findings if finding.fix == fix]
        if found and fix in {t.fix for t in prescribe(found, facts).treatments}:
            return facts, found
    raise LookupError(f"no patient is offered {fix}")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    folder = tmp_path / "shop"
    wheel(folder, "bystander", "1.0")
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "CONFIG_FILE": "none"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def here(tmp_path, shop):
    """A ComfyUI's folder with a venv that holds one package of its owner's."""
    folder = tmp_path / "ComfyUI"
    (folder / "custom_nodes" / "a-pack").mkdir(parents=True)
    (folder / "custom_nodes" / "a-pack" / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    venv.create(folder / "mine", with_pip=False, symlinks=True)
    put(folder, "bystander==1.0")
    return folder


def put(folder, *pins):
    python = str(folder / "mine" / "bin" / "python")
    words = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", *pins]
    subprocess.run(words, check=True)


def moved_in(facts, folder):
    """The patient's facts, of a folder that is really there."""
    python = None if facts.target.python is None else str(folder / "mine" / "bin" / "python")
    target = replace(facts.target, comfyui=str(folder), python=python)
    own = facts.comfyui and replace(facts.comfyui, path=str(folder))
    return replace(facts, target=target, comfyui=own)


def stocked(shop, folder, plan):
    """On the shelf what the plan wants; in the environment an older one of each, and what goes."""
    steps = [s for t in plan.treatments for s in t.steps if isinstance(s, Packages)]
    for text in {text for step in steps for text in (*step.wants, *step.wishes)}:
        wanted = Requirement(text)
        exact = [s.version for s in wanted.specifier if s.operator in ("==", ">=")]
        wheel(shop, wanted.name.replace("-", "_"), max(exact, default="9.0"))
        wheel(shop, wanted.name.replace("-", "_"), "0.1")
        put(folder, f"{wanted.name}==0.1")
    for name in {name for step in steps for name in step.removes}:
        wheel(shop, name.replace("-", "_"), "0.2")
        put(folder, f"{name}==0.2")


def cut(monkeypatch):
    def refuse(*_):
        raise AssertionError("undo asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("PIP_FIND_LINKS", "nowhere")


def undone_exactly(plan, book, here, monkeypatch):
    before = tree(here)
    for treatment in plan.treatments:
        journal.commit(book, journal.treat(book, treatment, silent))
    assert tree(here) != before
    edited = next(here.glob("mine/lib/python*/site-packages/bystander/__init__.py"))
    edited.write_text("edited by its owner")
    expected = before | {str(edited.relative_to(here)): tree(edited.parent)["__init__.py"]}
    cut(monkeypatch)
    for _ in plan.treatments:
        journal.undo(book, None, silent)
    assert tree(here) == expected


@pytest.mark.parametrize("fix", sorted(FIXES))
def test_each_fix_is_undone_exactly(fix, here, shop, tmp_path, monkeypatch):
    facts, findings = patient_with(fix)
    facts = moved_in(facts, here)
    plan = prescribe(findings, facts)
    stocked(shop, here, plan)
    core = tmp_path / "core"
    (core / "comfy").mkdir(parents=True)
    (core / "main.py").write_text("print('ComfyUI')\n")
    book = Journal(tmp_path / "home")
    settings = Settings(offline=True, core=str(core), allow_unproven=True)
    plan = treat.settle(plan, facts, book, settings, silent)
    assert not plan.refused
    undone_exactly(plan, book, here, monkeypatch)


@pytest.mark.parametrize("act", [nodes.disable, nodes.remove])
def test_what_is_done_to_packs_is_undone_exactly(act, here, tmp_path, monkeypatch):
    (pack,) = packs.installed(str(here))
    undone_exactly(Plan((act(str(here), pack),)), Journal(tmp_path / "home"), here, monkeypatch)


def test_an_update_of_many_packages_at_once_is_undone_exactly(here, shop, tmp_path, monkeypatch):
    """As node sync does it: some come, some go, one changes; scripts, links and modes with them."""
    for release in ("1.0", "2.0"):
        for name in ("alpha", "beta"):
            wheel(shop, name, release, files={f"{name}/data-{release}.txt": release})
    wheel(shop, "gamma", "1.0")
    put(here, "alpha==1.0", "beta==1.0")
    python = str(here / "mine" / "bin" / "python")
    site = next(here.glob("mine/lib/python*/site-packages"))
    (site / "alpha" / "link").symlink_to("__init__.py")
    (site / "alpha" / "__init__.py").chmod(0o600)
    wheels = installer.resolve(python, ("alpha==2.0", "gamma"), offline=True)
    step = Packages(python, removes=("beta",), wheels=wheels)
    plan = Plan((Treatment("sync-requirements", (), (step,)),))
    undone_exactly(plan, Journal(tmp_path / "home"), here, monkeypatch)
