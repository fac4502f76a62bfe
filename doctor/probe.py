"""Asks an interpreter about itself. Runs inside the patient: stdlib only, nothing of ours.

PY probe.py MARK FOLDER describe MODULE...   who are you, what is installed (imports nothing)
PY probe.py MARK FOLDER import MODULE...     import them one after the other, and use each once

Answers stand between marks, MARK{json}MARK, among whatever else gets printed. FOLDER is where
ComfyUI would be started; "" if nowhere. Must run on any Python 3: no annotations, no f-strings.
"""

import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # the doctor's own modules must not stand before those of the patient

import json
import os
import platform
import re
import time

LOCAL = re.compile(r"""^(__version__|version|cuda|hip|xpu)\b[^=\n]*=\s*['"]([^'"\n]+)['"]""", re.M)
BINARY = re.compile(r"\.(so|pyd|dll|dylib)(\.[0-9.]+)?$")
TAGGED = ("torch", "torchvision", "torchaudio", "xformers")  # their version.py names the build


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def packages():
    """Every distribution on sys.path; the first one of a name is the one that Python uses."""
    found = {}
    for folder in sys.path:
        try:
            entries = sorted(os.listdir(folder or "."))
        except OSError:
            continue
        for entry in entries:
            if entry.endswith((".dist-info", ".egg-info")):
                name, facts = package(folder, entry)
                first = found.setdefault(name, facts)
                if first is not facts and not same(first, facts):
                    first.setdefault("again", []).append(facts["version"] + " in " + folder)
    return found


def same(one, other):
    """One distribution seen by two ways: a link, or lib64 beside lib."""
    places = [os.path.realpath(facts["location"]) for facts in (one, other)]
    return places[0] == places[1] and one["version"] == other["version"]


def package(folder, entry):
    facts, path = {"location": folder}, os.path.join(folder, entry)
    name, by = metadata(path, entry, facts), installer(path)
    hollow, rows = "missing" in facts, recorded(path)
    facts["missing"] = facts.get("missing", []) + damaged(folder, rows, by)
    if entry.endswith(".dist-info") and (by in ("pip", "uv") or hollow):
        facts["record"] = bool(rows)
    facts["source"] = "" if by == "conda" else source(path)  # conda names its own build there
    if normal(name) in TAGGED:
        facts["build"] = local_version(folder, normal(name)).partition("+")[2] or None
    return normal(name), facts


def metadata(path, entry, facts):
    """The name of a distribution; version and requirements go into `facts`."""
    name, _, rest = entry.rpartition(".")[0].partition("-")
    facts["version"] = rest.partition("-")[0]
    head = os.path.join(path, "METADATA" if entry.endswith(".dist-info") else "PKG-INFO")
    try:
        lines = read(head).partition("\n\n")[0].splitlines()
    except OSError:
        lines = []
    if os.path.isdir(path) and not any(line.startswith("Name:") for line in lines):
        facts["missing"] = [entry + "/" + os.path.basename(head)]  # gone, or emptied by a crash
    for line in lines:
        key, _, value = line.partition(": ")
        if key == "Name":
            name = value.strip()
        elif key == "Version":
            facts["version"] = value.strip()
        elif key == "Requires-Dist":
            facts.setdefault("requires", []).append(value.strip())
    return name


def recorded(info):
    """The rows of RECORD; none where it is gone or emptied."""
    try:
        return [row for row in read(os.path.join(info, "RECORD")).splitlines() if "," in row]
    except OSError:
        return []


def source(info):
    """What pip was given instead of a name, as it would take it again (PEP 610); "": a name."""
    try:
        said = json.loads(read(os.path.join(info, "direct_url.json")))
        vcs = said.get("vcs_info")
        if vcs:
            return "%s+%s@%s" % (vcs["vcs"], said["url"], vcs["commit_id"])
        return ("-e " if said.get("dir_info", {}).get("editable") else "") + said["url"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return ""


def damaged(folder, rows, by):
    """Libraries and __init__.py files that RECORD names and that are absent or cut short."""
    wrong = []
    by_pip = by in ("pip", "uv")  # distributions strip libraries
    for row in rows:
        name, _, rest = row.partition(",")
        if name.startswith('"') or not (BINARY.search(name) or name.endswith("/__init__.py")):
            continue
        size = rest.rpartition(",")[2]
        try:
            have = os.stat(os.path.join(folder, name)).st_size
        except OSError:
            wrong.append(name)
            continue
        if by_pip and size.isdigit() and have < int(size):
            wrong.append("%s (%d of %s bytes)" % (name, have, size))
    return wrong


def installer(info):
    try:
        return read(os.path.join(info, "INSTALLER")).strip()
    except OSError:
        return ""


def version_file(folder, name):
    """The assignments of NAME/version.py, read and not executed."""
    try:
        text = read(os.path.join(folder, name, "version.py"))
    except OSError:
        return {}
    return dict(reversed(LOCAL.findall(text)))


def local_version(folder, name):
    return version_file(folder, name).get("__version__", "")


def torch():
    """Version and build of the torch that `import torch` would find, without importing it."""
    for folder in sys.path:
        if os.path.isdir(os.path.join(folder or ".", "torch")):
            said = version_file(folder, "torch")
            if not said:
                continue
            version = said.get("__version__", "")
            if said.get("hip"):
                build = "rocm" + ".".join(said["hip"].split(".")[:2])
            elif said.get("cuda"):
                build = "cu" + said["cuda"].replace(".", "")
            else:
                build = "xpu" if said.get("xpu") or "+xpu" in version else "cpu"
            return {"version": version, "build": build}
    return None


def modules():
    """Which of the modules asked about are there at all."""
    from importlib.util import find_spec

    found = {}
    for name in sys.argv[4:]:
        try:
            spec = find_spec(name)
        except (ImportError, ValueError, AttributeError):
            continue
        if spec is not None:
            found[name] = str(spec.origin)
    return found


def externally_managed():
    import sysconfig

    marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    return sys.prefix == sys.base_prefix and os.path.exists(marker)


def purelib():
    import sysconfig

    return sysconfig.get_path("purelib")


def has_pip():
    from importlib.util import find_spec

    return find_spec("pip") is not None


PARTS = ("_bz2", "_ctypes", "_lzma", "_sqlite3", "_ssl", "zlib")  # built where their headers were


def parts_missing():
    from importlib.util import find_spec

    return [name for name in PARTS if find_spec(name) is None]


def has_headers():
    import sysconfig

    return os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))


def foreign_paths():
    """Lines of .pth files that put the packages of another environment on sys.path."""
    own = [os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)]
    found = []
    for folder in sys.path:
        try:
            names = sorted(n for n in os.listdir(folder or ".") if n.endswith(".pth"))
        except OSError:
            continue
        for name in names:
            for line in read(os.path.join(folder, name)).splitlines():
                place = os.path.realpath(os.path.join(folder, line.strip()))
                if not re.search(r"(site|dist)-packages/?$", line.replace(os.sep, "/").strip()):
                    continue
                if not any(place.startswith(prefix + os.sep) for prefix in own):
                    found.append(name + ": " + line.strip())
    return found


QUESTIONS = {
    "version": platform.python_version,
    "executable": lambda: sys.executable,
    "prefix": lambda: sys.prefix,
    "base_prefix": lambda: sys.base_prefix,
    "implementation": lambda: sys.implementation.name,
    "bits": lambda: 64 if sys.maxsize > 2**32 else 32,
    "path": lambda: [entry for entry in sys.path if entry],
    "site": purelib,
    "externally_managed": externally_managed,
    "pip": has_pip,
    "lacks": parts_missing,
    "headers": has_headers,
    "encoding": lambda: sys.stdout.encoding or "",
    "paths": foreign_paths,
    "packages": packages,
    "torch": torch,
    "modules": modules,
}


def use_torch(module):
    facts = {
        "version": str(module.__version__),
        "cuda": str(module.version.cuda or ""),
        "hip": str(getattr(module.version, "hip", None) or ""),
        "numpy_bridge": "",
        "available": False,
        "cuda_error": "",
        "devices": [],
    }
    try:
        module.zeros(2).numpy()
    except Exception as error:
        facts["numpy_bridge"] = "%s: %s" % (type(error).__name__, error)
    flags = getattr(module._C, "_cuda_getArchFlags", None)  # answers without a driver too
    facts["arch_list"] = (flags() or "").split() if flags else []
    try:
        facts["available"] = bool(module.cuda.is_available())
        if facts["cuda"] or facts["hip"]:
            module.cuda.init()
        facts["devices"] = [cuda_device(module, i) for i in range(module.cuda.device_count())]
    except Exception as error:
        facts["cuda_error"] = "%s: %s" % (type(error).__name__, str(error).strip()[:400])
    return facts


def cuda_device(module, index):
    card = module.cuda.get_device_properties(index)
    return {
        "name": card.name,
        "capability": "%d.%d" % (card.major, card.minor),
        "memory": card.total_memory,
    }


def use_numpy(module):
    assert module.zeros(3).sum() == 0
    return {"version": module.__version__}


def use_torchvision(module):
    """Boxes that overlap: nms is compiled, and importing alone can miss that it is not there."""
    import torch

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.1], [5.0, 5.0, 6.0, 6.0]])
    kept = module.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
    return {"version": str(module.__version__), "nms": kept.tolist() == [0, 2]}


def use_any(module):
    return {"version": str(getattr(module, "__version__", ""))}


USES = {"torch": use_torch, "numpy": use_numpy, "torchvision": use_torchvision}


def try_import(name, tell):
    """Two answers: imported or not, then used or not. Whoever dies in between is known by it."""
    from importlib import import_module

    start = time.time()
    try:
        module = import_module(name)
        tell({"module": name, "imported": True, "seconds": time.time() - start})
        detail = USES.get(name, use_any)(module)
    except BaseException as error:
        import traceback

        lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        said = {"module": name, "error": last_line(error), "trace": lines.splitlines()[-12:]}
    else:
        said = {"module": name, "ok": True, "detail": detail}
    said["seconds"] = time.time() - start
    tell(said)


def last_line(error):
    text = str(error).strip() or repr(error)
    return "%s: %s" % (type(error).__name__, text[:600])


def ask(question):
    """One fact that fails must not cost us the others."""
    try:
        return question()
    except BaseException as error:
        return {"unknown": "%s: %s" % (type(error).__name__, error)}


def main():
    mark, folder, task = sys.argv[1:4]
    if folder:
        sys.path.insert(0, folder)  # as `python main.py` would have it
    out = os.fdopen(os.dup(1), "w", encoding="ascii")  # whatever gets done to sys.stdout

    def tell(answer):
        out.write("\n" + mark + json.dumps(answer) + mark + "\n")
        out.flush()

    if task == "describe":
        tell({name: ask(question) for name, question in QUESTIONS.items()})
    else:
        for name in sys.argv[4:]:
            try_import(name, tell)


if __name__ == "__main__":
    main()
