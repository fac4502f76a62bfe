"""Are the custom nodes where they belong, and is what they need there?"""

import re
from collections.abc import Iterator
from functools import cache

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from doctor import advise
from doctor.check import check
from doctor.checks.causes import torch_fails
from doctor.checks.comfyui import (
    TORCH_FAMILY,
    missing,
    outside,
    shortened,
    surroundings,
    version,
)
from doctor.facts import Facts, Node, Unknown
from doctor.finding import Finding, Severity

ALIKE = re.compile(r"(?:-main|-master|-nightly|_\d|\s?\(\d\)|-\d+(?:\.\d+)*)$", re.IGNORECASE)
SAME = {  # any of them serves, whichever a node names
    "opencv-python": "opencv",
    "opencv-python-headless": "opencv",
    "opencv-contrib-python": "opencv",
    "opencv-contrib-python-headless": "opencv",
    "onnxruntime": "onnxruntime",
    "onnxruntime-gpu": "onnxruntime",
    "onnxruntime-directml": "onnxruntime",
}


def nodes(facts: Facts) -> tuple[Node, ...]:
    return () if facts.folder is None else facts.folder.nodes


@check("custom-node-layout")
def custom_node_layout(facts: Facts) -> Iterator[Finding]:
    """A folder of custom_nodes has no __init__.py at its top, so ComfyUI cannot load it."""
    wrong = [node for node in nodes(facts) if not node.loads]
    if wrong:
        yield Finding(
            Severity.WARNING,
            because=tuple(f"custom_nodes/{node.name}: {layout(node)}" for node in wrong[:8]),
        )


def layout(node: Node) -> str:
    if node.archive:
        return "an archive that was not unpacked"
    if node.empty:
        return "the folder is empty"
    return f"__init__.py lies one deeper, in {node.inner}" if node.inner else "no __init__.py"


@check("custom-node-twice")
def custom_node_twice(facts: Facts) -> Iterator[Finding]:
    """The same node pack lies there twice, under names that differ in case or ending."""
    seen: dict[str, list[str]] = {}
    for node in nodes(facts):
        if node.loads:
            plain = re.sub(r"[-_. ]+", "-", ALIKE.sub("", node.name)).lower()
            seen.setdefault(plain, []).append(node.name)
    twice = [names for names in seen.values() if len(names) > 1]
    if twice:
        yield Finding(
            Severity.WARNING,
            because=tuple(f"custom_nodes: {', '.join(names)}" for names in twice[:8]),
        )


@check("node-requirement-missing")
def node_requirement_missing(facts: Facts) -> Iterator[Finding]:
    """Packages that the requirements.txt of node packs name are not installed."""
    if missing(facts):
        return  # ComfyUI's own are not there: that is told, and comes first
    lacking = {node.name: lost for node in nodes(facts) if (lost := absent(facts, node))}
    if lacking:
        first = next(iter(lacking))
        yield Finding(
            Severity.WARNING,
            because=tuple(
                f"custom_nodes/{name}: {shortened(lost)}"
                for name, lost in list(lacking.items())[:8]
            ),
            commands=(advise.pip(facts, "install", "-r", f"custom_nodes/{first}/requirements.txt"),)
            if facts.packages.keys() >= TORCH_FAMILY
            else (),
        )


def absent(facts: Facts, node: Node) -> list[str]:
    """What a pack asks for and nothing brings; torch's own family is judged elsewhere."""
    there = {SAME.get(name, name) for name in facts.packages}
    return [
        wish.name
        for wish in wishes(facts, node)
        if SAME.get(canonicalize_name(wish.name), canonicalize_name(wish.name)) not in there
    ]


def wishes(facts: Facts, node: Node) -> Iterator[Requirement]:
    """What a pack asks for, here; torch's own family is judged elsewhere."""
    for line in node.requires if node.loads else ():
        wish = parsed(line)
        if wish is None or canonicalize_name(wish.name) in TORCH_FAMILY:
            continue
        if wish.marker is None or wish.marker.evaluate(surroundings(facts)):
            yield wish


@cache
def parsed(line: str) -> Requirement | None:
    """A thousand packs ask for the same few packages, and three checks read what they ask for."""
    try:
        return Requirement(line)
    except InvalidRequirement:
        return None


@check("node-requirement-version")
def node_requirement_version(facts: Facts) -> Iterator[Finding]:
    """Node packs ask for other versions of packages than those that are installed."""
    wrong = {node.name: told for node in nodes(facts) if (told := list(unlike(facts, node)))}
    if wrong:
        yield Finding(
            Severity.WARNING,
            because=tuple(f"custom_nodes/{n}: {shortened(t)}" for n, t in list(wrong.items())[:8]),
            values={"names": shortened(list(wrong))},
            commands=(advise.doctor(facts, "node", "sync"),),
        )


def unlike(facts: Facts, node: Node) -> Iterator[str]:
    for wish in wishes(facts, node):
        there = facts.packages.get(canonicalize_name(wish.name))
        if there and not wish.url and outside(wish, there.version):
            yield f"{wish.name}{wish.specifier} ({there.version})"


def read(facts: Facts) -> dict[str, tuple[str, ...]]:
    """Why packs cannot be imported; nothing where the level reads none."""
    if isinstance(facts.packs, Unknown) and facts.packs.skipped:
        return {}
    return facts.packs


NOT_HERE = "not in this ComfyUI: "


@check("core-older-than-node")
def core_older_than_node(facts: Facts) -> Iterator[Finding]:
    """A node pack asks for a newer ComfyUI, or imports a part of it that is not there."""
    told = [*asking(facts, newer=True)]
    for name, faults in read(facts).items():
        told += [f"custom_nodes/{name}/{fault}" for fault in faults if NOT_HERE in fault]
    if told:
        yield Finding(Severity.WARNING, because=tuple(told[:8]))


@check("node-incompatible-with-core")
def node_incompatible_with_core(facts: Facts) -> Iterator[Finding]:
    """A node pack says that it does not go with a ComfyUI as new as this."""
    told = [*asking(facts, newer=False)]
    if told:
        yield Finding(Severity.WARNING, because=tuple(told[:8]))


def asking(facts: Facts, newer: bool) -> Iterator[str]:
    """Packs whose pyproject.toml asks for a newer ComfyUI than this, or for an older one."""
    here = version(facts.comfyui.version) if facts.comfyui is not None else None
    for node in nodes(facts):
        try:
            wish = SpecifierSet(node.core)
        except InvalidSpecifier:
            continue
        if here is None or wish.contains(str(here), prereleases=True):
            continue
        lows = [s for s in wish if s.operator in (">", ">=", "==", "~=")]
        if any(not s.contains(str(here), prereleases=True) for s in lows) == newer:
            yield f"custom_nodes/{node.name}: requires-comfyui {node.core}, this is {here}"


@check("node-import-fails")
def node_import_fails(facts: Facts) -> Iterator[Finding]:
    """A node pack cannot be imported: by its code, read in ComfyUI's Python, or by the last log."""
    if missing(facts) or torch_fails(facts):
        return  # nothing imports then, and that is told
    lacking = {node.name for node in nodes(facts) if absent(facts, node)}
    because = []
    for name, faults in read(facts).items():
        own = [f for f in faults if NOT_HERE not in f]
        if name in lacking:
            own = [f for f in own if "No module named" not in f]
        because += [f"custom_nodes/{name}/{fault}" for fault in own[:2]]
    for node in nodes(facts):
        if node.failed and node.name not in read(facts) and node.name not in lacking:
            because.append(f"custom_nodes/{node.name}, in the last start: {node.failed}")
    if because:
        yield Finding(Severity.WARNING, because=tuple(because[:8]))
