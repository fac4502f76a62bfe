"""Our pictures dropped into ComfyUI's own frontend, in a real browser: the graph opens.

    COMFYUI_DIR=... COMFYUI_PYTHON=... python -m pytest tests/runner/test_frontend.py

Skipped aloud where there is no ComfyUI, no Chromium. FRONTEND_PICTURE=FILE keeps what it shows.
Frontend 1.27.10 builds no loader at all where one of those it knows is missing, as
UpscaleModelLoader is without spandrel: the test's ComfyUI has empty ones for those.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("torch")
from PIL import Image

from runner import embedded
from tests import browser, comfyui
from tests.lab.mains import free_port

pytestmark = [
    pytest.mark.comfyui,
    comfyui.needed,
    pytest.mark.skipif(bool(browser.missing()), reason=f"no {browser.missing()} here"),
]
KNOWN = (
    "ImageOnlyCheckpointLoader LoraLoaderModelOnly ControlNetLoader UpscaleModelLoader"
    " StyleModelLoader GLIGENLoader UNETLoader"
).split()
STAND_IN = """
class Empty:
    INPUT_TYPES = classmethod(lambda cls: {{"required": {{}}}})
    RETURN_TYPES, FUNCTION, CATEGORY = (), "run", "tests"
NODE_CLASS_MAPPINGS = dict.fromkeys({missing}, Empty)
"""
DROP = """
const [name, base64] = arguments, bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
const what = new DataTransfer();
what.items.add(new File([bytes], name, {type: "image/png"}));
document.querySelector("canvas").dispatchEvent(
  new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: what}));
"""
CLEAR = "window.app.graph.clear()"
COUNT = "return window.app?.vueAppReady ? window.app.graph._nodes.length : -1"
ESCAPE = {  # the templates that a first visit is shown
    "actions": [{"type": "key", "id": "k", "actions": [
        {"type": kind, "value": "\ue00c"} for kind in ("keyDown", "keyUp")]}]
}  # fmt: skip
ASK = """
const done = arguments[arguments.length - 1];
window.app.graphToPrompt().then(p => done(p.output), e => done(String(e)));
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    place, port = comfyui.copy(tmp_path_factory.mktemp("frontend")), free_port()
    (place / "models/checkpoints").mkdir()
    shutil.copy(embedded.PATH, place / "models/checkpoints")  # listed, never loaded
    with started(place, port) as url, urllib.request.urlopen(f"{url}/object_info") as answer:
        missing = sorted({*KNOWN} - {*json.load(answer)})
    (place / "custom_nodes/stand_in.py").write_text(STAND_IN.format(missing=missing))
    with started(place, port) as url:
        yield url


@contextmanager
def started(place, port):
    command = [place / ".venv/bin/python", "main.py", "--cpu", "--port", str(port)]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=place, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait(lambda: reached(f"{url}/system_stats"), 180)
        yield url
    finally:
        process.terminate()
        process.wait()


def reached(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def wait(asked, seconds):
    end = time.monotonic() + seconds
    while not asked():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """The picture that `render` left."""
    file = tmp_path_factory.mktemp("ours") / "ours.png"
    command = [sys.executable, "-m", "runner", "render", "--embedded", "--out", file]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return file


def test_a_picture_dropped_into_comfyui_opens_its_graph(server, picture):
    with Image.open(picture) as image:
        owed = json.loads(image.text["prompt"])
    with browser.browser() as tab:
        tab.ask("/window/rect", {"width": 1500, "height": 1000})
        tab.ask("/url", {"url": server})
        wait(lambda: tab.script(COUNT) >= 0, 300)
        tab.script(CLEAR)
        given = base64.b64encode(picture.read_bytes()).decode()
        tab.ask("/execute/sync", {"script": DROP, "args": [picture.name, given]})
        wait(lambda: tab.script(COUNT) == len(owed), 60)
        opened = tab.later(ASK)
        if "FRONTEND_PICTURE" in os.environ:
            tab.ask("/actions", ESCAPE)
            time.sleep(2)
            Path(os.environ["FRONTEND_PICTURE"]).write_bytes(tab.screenshot())
    assert {id: row["class_type"] for id, row in opened.items()} == {
        id: row["class_type"] for id, row in owed.items()
    }
    for id, row in owed.items():
        assert row["inputs"].items() <= opened[id]["inputs"].items(), (id, opened[id])
