"""Are the custom nodes where they belong, and is what they need there?"""

import re
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from doctor import advise
from doctor.check import check
from doctor.checks.comfyui import TORCH_FAMILY, missing, shortened, surroundings
from doctor.facts import Facts, Node
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
    lost = []
    for line in node.requires if node.loads else ():
        try:
            wish = Requirement(line)
        except InvalidRequirement:
            continue
        name = canonicalize_name(wish.name)
        if name in TORCH_FAMILY or SAME.get(name, name) in there:
            continue
        if wish.marker is None or wish.marker.evaluate(surroundings(facts)):
            lost.append(wish.name)
    return lost
