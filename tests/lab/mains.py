"""Stand-ins for ComfyUI's main.py, each labelled as one, that start, fail or fault as the real one
does. Standard library only: any Python runs them.
"""

import socket
from pathlib import Path

HEALTHY = '''
"""A stand-in for ComfyUI's main.py."""
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

def log(text):
    print(text, file=sys.stderr, flush=True)

def option(name, absent):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else absent

def faults():
    pass

log("Total VRAM 24080 MB, total RAM 64213 MB")
log("pytorch version: 2.13.0+cu130")
log("Set vram state to: NORMAL_VRAM")
native = "--disable-cuda-malloc" in sys.argv
allocator = "native" if native else "cudaMallocAsync"
log("Device: cuda:0 NVIDIA GeForce RTX 4090 : " + allocator)
log("ComfyUI version: 0.3.64 (stand-in)")
log("[Prompt Server] web root: stand-in")
#BEFORE
log("Import times for custom nodes:")
log("   0.0 seconds: /comfyui/custom_nodes/websocket_image_save.py")
log("   1.4 seconds: /comfyui/custom_nodes/slow_pack")
log("")

class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        told = {"system": {"comfyui_version": "stand-in"}, "devices": []}
        body = json.dumps(told if self.path == "/system_stats" else []).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if self.path == "/fault":
            live()

    def log_message(self, *words):
        pass

def live():
    pass

#LIVE
server = ThreadingHTTPServer(("127.0.0.1", int(option("--port", "8188"))), Answers)
log("Starting server\\n")
log("To see the GUI go to: http://127.0.0.1:" + option("--port", "8188"))
try:
    server.serve_forever()
except KeyboardInterrupt:
    log("\\nStopped server")
'''


def main_py(folder: Path, before: str = "", live: str = "") -> Path:
    """A folder of ComfyUI's shape whose main.py runs `before` where it imports custom nodes, and
    `live` when somebody asks for /fault."""
    (folder / "comfy").mkdir(parents=True, exist_ok=True)
    (folder / "custom_nodes").mkdir(exist_ok=True)
    text = HEALTHY.replace("#BEFORE", before).replace("#LIVE", live)
    (folder / "main.py").write_text(text, encoding="utf-8")
    return folder


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
