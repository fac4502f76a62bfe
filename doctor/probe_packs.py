"""Asks an interpreter which node packs it could import. Runs inside the patient, executes nothing.

PY probe_packs.py MARK COMFYUI packs

Each pack is read from its __init__.py along its relative imports, and only what is imported at the
top of a file counts: what stands in a `try`, an `if` or a function may fail without harm. One
answer between marks, as probe.py gives it: {pack: [why it cannot be imported, ...]}. Must run on
any Python 3: no annotations, no f-strings.
"""

import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # the doctor's own modules must not stand before those of the patient

import ast
import json
import os
from importlib.util import find_spec

MOST = 200  # files of one pack that are read
SKIPPED = (".disabled", ".example")


def read(path):
    with open(path, "rb") as file:
        return file.read(1 << 20)


class Pack:
    """One pack as it is read: what is wrong with it, and the files still to be read."""

    def __init__(self, comfyui, start):
        self.comfyui = comfyui
        self.folder = os.path.dirname(start)
        self.single = os.path.basename(start) != "__init__.py"
        self.left = [start]
        self.seen = set()
        self.faults = []
        self.own = None  # names that the pack may bring itself by changing sys.path

    def look(self):
        while self.left and len(self.seen) < MOST:
            path = self.left.pop(0)
            if path not in self.seen:
                self.seen.add(path)
                self.look_at(path)
        return self.faults

    def look_at(self, path):
        name = os.path.relpath(path, self.folder)
        try:
            tree = ast.parse(read(path), path)
        except SyntaxError as error:
            self.tell(name, error.lineno, "SyntaxError: %s" % error.msg)
            return
        except (ValueError, OSError, RecursionError) as error:
            self.tell(name, 0, "%s: %s" % (type(error).__name__, error))
            return
        for node in tree.body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.absolute(name, node.lineno, alias.name)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                self.absolute(name, node.lineno, node.module)
            elif isinstance(node, ast.ImportFrom):
                self.relative(path, name, node)

    def tell(self, name, line, why):
        self.faults.append("%s line %s: %s" % (name.replace(os.sep, "/"), line, why))

    def absolute(self, name, line, module):
        top = module.partition(".")[0]
        if os.path.exists(os.path.join(self.comfyui, top)) and "." in module:
            if not there(os.path.join(self.comfyui, *module.split("."))):
                self.tell(name, line, "not in this ComfyUI: %s" % module)
        elif not known(top) and top not in self.names():
            self.tell(name, line, "No module named '%s'" % top)

    def names(self):
        """Folders and files below the pack: it may put any folder of its own on sys.path."""
        if self.own is None:
            self.own = set()
            for _, folders, files in os.walk(self.folder):
                if self.single:
                    folders[:] = []
                self.own.update(folders)
                self.own.update(f[:-3] for f in files if f.endswith(".py"))
        return self.own

    def relative(self, path, name, node):
        place = os.path.dirname(path)
        for _ in range(node.level - 1):
            place = os.path.dirname(place)
        if not (place + os.sep).startswith(self.folder + os.sep):
            return
        if not node.module:  # from . import nodes: a module, or a name of __init__.py
            for alias in node.names:
                self.follow(os.path.join(place, alias.name))
            return
        target = os.path.join(place, *node.module.split("."))
        if there(target):
            self.follow(target)
        else:
            self.tell(name, node.lineno, "no file for .%s" % node.module)

    def follow(self, target):
        for path in (target + ".py", os.path.join(target, "__init__.py")):
            if os.path.isfile(path):
                self.left.append(path)


def there(target):
    """A module, a package, or a compiled module of this name."""
    folder, name = os.path.split(target)
    if os.path.isdir(target) or os.path.isfile(target + ".py"):
        return True
    try:
        return any(entry.startswith(name + ".") for entry in os.listdir(folder))
    except OSError:
        return False


KNOWN = {}


def known(top):
    if top not in KNOWN:
        try:
            KNOWN[top] = top in sys.builtin_module_names or find_spec(top) is not None
        except (ImportError, ValueError, AttributeError):
            KNOWN[top] = False
    return KNOWN[top]


def packs(comfyui):
    """The first file of everything in custom_nodes that ComfyUI would import."""
    place = os.path.join(comfyui, "custom_nodes")
    try:
        names = sorted(os.listdir(place))
    except OSError:
        return
    for name in names:
        path = os.path.join(place, name)
        start = os.path.join(path, "__init__.py")
        if name.startswith((".", "__")) or name.endswith(SKIPPED):
            continue
        if os.path.isfile(start):
            yield name, start
        elif name.endswith(".py") and os.path.isfile(path):
            yield name, path


def main():
    mark, comfyui = sys.argv[1:3]
    sys.path.insert(0, comfyui)  # as `python main.py` would have it
    found = {}
    for name, start in packs(comfyui):
        faults = Pack(comfyui, start).look()
        if faults:
            found[name] = faults[:5]
    sys.stdout.write("\n" + mark + json.dumps(found) + mark + "\n")


if __name__ == "__main__":
    main()
