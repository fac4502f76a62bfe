"""Python tracebacks in a log: whose code stood last, ComfyUI's, a node's or a library's."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

FRAMES = {  # as Python prints a frame, and as rich does; each by what a line with it holds
    'File "': re.compile(
        r'File "(?P<path>[^"\n]{1,500})", line \d+(?:, in (?P<function>[\w<>]{1,100}))?'
    ),
    ".py:": re.compile(r"(?P<path>[\w:/\\. ~-]{1,300}\.py):\d+ in (?P<function>[\w<>]{1,100})"),
}
HEADS = ("Exception during processing", "Error occurred when executing", "Error handling request")
STARTS = ("Traceback (most recent call last", "Stack Trace")
LIBRARY = re.compile(r"/(?:site-packages|dist-packages|lib/python3[\d.]*|Lib)/|<frozen |<string>")
NODE = re.compile(r"custom_nodes/(?P<pack>[^/]+)")
CORE = re.compile(
    r"(?:^|/)(?:main|nodes|execution|server|folder_paths|latent_preview|cuda_malloc|protocol"
    r"|node_helpers)\.py$"
    r"|(?:^|/)(?:comfy|comfy_extras|comfy_api|comfy_api_nodes|comfy_execution|comfy_config|app"
    r"|api_server|middleware|alembic_db|utils|script_examples)/[\w/]+\.py$"
)
NEAR = 14  # lines between frames, or a frame and its message, that still belong together


@dataclass
class Trace:
    """One traceback while it is read."""

    start: int
    end: int
    paths: list[str] = field(default_factory=list)  # "main.py#<module>"; the first and last 100
    last: str = "none"  # core, node, lib, other: the last frame of an application, else lib
    pack: str = ""  # the node pack that frame stands in
    whole: bool = False  # it starts with its heading: the first frame seen is the first there was

    def add(self, number: int, path: str, function: str) -> None:
        self.end = number
        if len(self.paths) > 200:
            del self.paths[100]
        path = path.replace("\\\\", "\\").replace("\\", "/")
        self.paths.append(f"{path}#{function}")
        kind, pack = owner(path)
        if kind != "lib" or self.last in ("none", "lib"):
            self.last, self.pack = kind, pack or (self.pack if kind == "lib" else "")

    def covers(self, number: int) -> bool:
        """Does a line belong to it: just before, within, or its message after the last frame?"""
        return self.start - 3 <= number <= self.end + NEAR


def owner(path: str) -> tuple[str, str]:
    """("node", "ComfyUI-Impact-Pack"), ("core", ""), ("lib", "") or ("other", "")."""
    if LIBRARY.search(path):
        return "lib", ""
    node = NODE.search(path)
    if node:
        return "node", node["pack"]
    return ("core", "") if CORE.search(path) else ("other", "")


def frames(text: str) -> Iterator[tuple[str, str]]:
    """The path and the function of each frame on a line."""
    for held, pattern in FRAMES.items():
        if held not in text:
            continue
        for found in islice(pattern.finditer(text), 100):  # some logs put all frames on one line
            yield found["path"], found["function"] or ""


def starts(text: str) -> bool:
    return any(start in text for start in STARTS)


def heads(text: str) -> bool:
    """Does ComfyUI print its traceback below this line, whatever stands above it?"""
    return any(head in text for head in HEADS)
