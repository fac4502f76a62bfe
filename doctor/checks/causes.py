"""One cause, one error: which finding explains that a module does not import.

Every failed import has exactly one id; the check of that id speaks of it and all others are silent.
"""

import re
from collections.abc import Iterator

from doctor.facts import Facts, Import, Package, Unknown, numbers
from doctor.manifest import NumpyBuild

# module -> distributions that bring it, where the names differ; more are in manifests/numpy.toml
BROUGHT_BY = {"PIL": ("pillow",), "flash_attn": ("flash-attn",)}
OPENCV = "opencv-"
SYSTEM_LIBRARY = re.compile(r"lib[\w.+-]+\.so[\d.]*: cannot open shared object file")
OLD_LIBRARY = re.compile(r"version [`']?(GLIBCXX|GLIBC|CXXABI)_[\d.]+'? not found")
NO_EXECUTION = re.compile(r"failed to map segment from shared object")
WINDOWS_LIBRARY = re.compile(r"WinError (126|127|1114|193)\b|DLL load failed")
OF_TORCH = re.compile(r"libtorch|libc10|libcud|libnv|libcublas|libcufft|libcusparse|torch_\w+\.dll")


def has_torch(facts: Facts) -> bool:
    """Is torch installed? Touches the fact: an Unknown is not None either, and must not pass."""
    return facts.torch is not None and bool(facts.torch.version)


def tried(facts: Facts, module: str) -> Import | None:
    """How importing went; None where it is not installed, or where the level imports nothing.

    Raises NotKnown where the imports were wanted and could not be tried.
    """
    if isinstance(facts.imports, Unknown) and facts.imports.skipped:
        return None
    return facts.imports.get(module)


def said(outcome: Import) -> str:
    """Everything a child printed about an import."""
    return "\n".join((outcome.error, *outcome.trace))


def failed(facts: Facts) -> Iterator[tuple[str, Import]]:
    yield from ((m, outcome) for m, outcome in facts.imports.items() if not outcome.ok)


def blamed(facts: Facts, id: str) -> Iterator[tuple[str, Import]]:
    """The failed imports that this finding explains."""
    yield from ((m, outcome) for m, outcome in failed(facts) if cause(facts, m, outcome) == id)


def torch_fails(facts: Facts) -> bool:
    """Is torch itself absent or unusable, so that nothing resting on it can be judged?"""
    outcome = tried(facts, "torch")
    return not has_torch(facts) or (outcome is not None and not outcome.ok)


def cause(facts: Facts, module: str, outcome: Import) -> str:
    text = said(outcome)
    if module == "torch" or NO_EXECUTION.search(text):
        return cause_in_torch(facts, outcome, text)
    if module != "numpy" and torch_fails(facts) and rests_on(facts, module, "torch", text):
        return "torch-broken"
    if module != "numpy" and "numpy" in text.lower() and numpy_fails(facts):
        return "numpy-missing" if "numpy" not in facts.packages else "numpy-broken"
    if built_for(facts, text):
        return "numpy2-abi"
    if any(re.search(row.text, text) for row in facts.world.numpy_removed):
        return "numpy-removed-alias"
    if module == "cv2" and len(opencvs(facts)) > 1:
        return "opencv-conflict"
    if any(package.missing for package in brought(facts, module).values()):
        return "package-files-corrupt"
    return cause_outside(text) or OWN.get(module) or cause_between(text) or "import-fails"


BETWEEN = {  # finding -> what a module prints that was made for another version of these
    "extension-for-another-torch": re.compile(r"undefined symbol: _ZNK?(?:2at|3c10|5torch)"),
    "hf-stack-conflict": re.compile(
        r"cannot import name .+ from '(?:transformers|tokenizers|huggingface_hub|diffusers)\b"
        r"|(?:tokenizers|huggingface[-_]hub|safetensors)\S* is required for a normal functioning"
    ),
    "protobuf-conflict": re.compile(
        r"Descriptors cannot be created directly|from 'google\.protobuf|VersionError: Detected"
    ),
    "pydantic-conflict": re.compile(
        r"pydantic[-_]core\b.*(?:incompatible|requires)|from 'pydantic_core'"
    ),
}
OWN = {  # what it means when one of these fails for no other reason
    "numpy": "numpy-broken",
    "torchvision": "torch-companion-mismatch",
    "torchaudio": "torch-companion-mismatch",
    "xformers": "xformers-mismatch",
    "onnxruntime": "onnxruntime-gpu",
}


def cause_between(text: str) -> str:
    """Two packages that are out of step; "" where the text names none."""
    return next((id for id, said in BETWEEN.items() if said.search(text)), "")


def cause_in_torch(facts: Facts, outcome: Import, text: str) -> str:
    """Why torch does not import; what keeps any library from being loaded comes first."""
    if NO_EXECUTION.search(text):
        return "mounted-noexec"
    if outcome.signal or outcome.timeout:
        return "torch-crashes"
    if facts.packages.get("torch", Package("")).missing:
        return "torch-broken"
    return cause_outside(text) or "torch-broken"


def cause_outside(text: str) -> str:
    """A library of the operating system that is not there or too old; "" if it is none."""
    if OLD_LIBRARY.search(text):
        return "glibcxx-glibc-too-old"
    if WINDOWS_LIBRARY.search(text):
        return "windows-dll-missing"
    absent = SYSTEM_LIBRARY.search(text)
    return "system-lib-missing" if absent and not OF_TORCH.search(absent[0]) else ""


def rests_on(facts: Facts, module: str, other: str, text: str) -> bool:
    """Does the error name the other module, or the metadata require it?"""
    wish = re.compile(rf"{other}\b", re.IGNORECASE)
    packages = brought(facts, module).values()
    return other in text.lower() or any(wish.match(r) for p in packages for r in p.requires)


def numpy_fails(facts: Facts) -> bool:
    outcome = tried(facts, "numpy")
    return "numpy" not in facts.packages or (outcome is not None and not outcome.ok)


def brought(facts: Facts, module: str) -> dict[str, Package]:
    """The installed distributions that bring a module."""
    row = numpy_row(facts, module)
    names = row.packages if row else BROUGHT_BY.get(module, (module.replace("_", "-"),))
    return {name: facts.packages[name] for name in names if name in facts.packages}


def versions(facts: Facts, module: str) -> str:
    """ " (opencv-python 4.9.0.80)" after the name of a module."""
    there = [f"{name} {package.version}" for name, package in brought(facts, module).items()]
    return f" ({', '.join(there)})" if there else ""


def numpy_row(facts: Facts, module: str) -> NumpyBuild | None:
    return next((row for row in facts.world.numpy_builds if row.module == module), None)


def built_for(facts: Facts, text: str) -> str:
    """The major of the numpy that a module was built for, "" where its error is another one."""
    rows = [row for row in facts.world.numpy_abi if row.text in text]
    if not rows or "numpy" not in facts.packages:
        return ""
    here = str(numbers(facts.packages["numpy"].version)[0])
    other = "1" if here != "1" else "2"
    told = next((row.built for row in rows if row.built != "other"), other)
    return told if told != here else ""


def opencvs(facts: Facts) -> dict[str, Package]:
    return {n: p for n, p in sorted(facts.packages.items()) if n.startswith(OPENCV)}
