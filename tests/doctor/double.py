"""A double of ComfyUI's server that can misbehave in every way a server or a proxy does.

It speaks as much of the protocol as a prompt takes: HTTP, and the websocket by RFC 6455. It
computes nothing: a picture follows from the prompt's numbers by a checksum. That a real ComfyUI
is understood is shown elsewhere (tests/lab/test_real_server.py).
"""

import base64
import hashlib
import json
import socket
import struct
import threading
import time
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

from PIL import Image

CHOICES = {"sampler_name": ["euler", "dpmpp_2m"], "scheduler": ["normal", "karras"]}
NODES = "CheckpointLoaderSimple CLIPTextEncode LoadImage VAEEncode KSampler VAEDecode PreviewImage"


def object_info():
    info = {kind: {"input": {"required": {}}} for kind in NODES.split()}
    info["KSampler"]["input"]["required"] = {name: [rows] for name, rows in CHOICES.items()}
    models = ["COMBO", {"options": ["model.safetensors"]}]  # the newer form
    info["CheckpointLoaderSimple"]["input"]["required"] = {"ckpt_name": models}
    return info


def picture(text):
    """64×64 pixels that follow from a text."""
    first = zlib.crc32(text.encode())
    pixels = bytes((first * (i + 1) >> 7) & 255 for i in range(64 * 64 * 3))
    out = BytesIO()
    Image.frombytes("RGB", (64, 64), pixels).save(out, format="PNG")
    return out.getvalue()


def flat(text):
    out = BytesIO()
    Image.new("RGB", (64, 64)).save(out, format="PNG")
    return out.getvalue()


class Double:
    """What one server did, and how it is to behave: words of `ways`."""

    def __init__(self, *ways):
        self.ways = frozenset(ways)
        self.uploaded, self.history, self.deleted, self.interrupted = {}, {}, [], []
        self.sockets, self.asked, self.count = [], [], 0
        self.stopping = threading.Event()

    def does(self, way):
        return way in self.ways

    def queue(self, prompt, client):
        self.count += 1
        id = f"prompt-{self.count}"
        threading.Thread(target=self.work, args=(id, prompt, client), daemon=True).start()
        return id

    def work(self, id, prompt, client):
        if self.does("never ends"):
            return
        time.sleep(0.05)
        for node in prompt:
            self.send("executing", {"node": node, "prompt_id": id})
            if node == "sample":
                self.send("progress", {"value": 1, "max": 4, "prompt_id": id, "node": node})
                self.send_bytes(b"\0\0\0\1preview")
                if self.does("websocket lost"):
                    self.drop()
                if self.does("node raises") or self.does("interrupted"):
                    self.fail(id, node)
                    return
            time.sleep(0.01)
        seed = "" if self.does("seed ignored") else prompt["sample"]["inputs"]["seed"]
        text = "" if self.does("prompt ignored") else prompt["positive"]["inputs"]["text"]
        dice = self.count if self.does("not deterministic") else ""
        self.history[id] = {
            "outputs": {
                "picture": {
                    "images": [
                        {"filename": f"{seed}|{text}|{dice}", "subfolder": "", "type": "temp"}
                    ]
                }
            },
            "status": {"status_str": "success", "completed": True, "messages": []},
        }
        if self.does("no outputs"):
            self.history[id]["outputs"] = {}
        self.send("executing", {"node": None, "prompt_id": id})

    def fail(self, id, node):
        said = {"prompt_id": id, "node_id": node, "node_type": "KSampler"}
        kind = "execution_interrupted" if self.does("interrupted") else "execution_error"
        said |= {
            "exception_type": "torch.OutOfMemoryError",
            "exception_message": "Allocation on device 0 would exceed memory. (out of memory)",
            "traceback": ['  File "/comfyui/comfy/samplers.py", line 1, in sample\n'],
        }
        status = {"status_str": "error", "completed": False, "messages": [[kind, said]]}
        self.history[id] = {"outputs": {}, "status": status}
        self.send(kind, said)

    def send(self, kind, data):
        text = json.dumps({"type": kind, "data": data}).encode()
        self.frame(1, b"\xff\xfe not json" if self.does("websocket babbles") else text)

    def send_bytes(self, data):
        self.frame(2, data)

    def frame(self, code, data):
        size = (
            struct.pack("!BH", 126, len(data)) if len(data) > 125 else struct.pack("!B", len(data))
        )
        for one in list(self.sockets):
            try:
                one.sendall(bytes([0x80 | code]) + size + data)
            except OSError:
                self.sockets.remove(one)

    def drop(self):
        for one in self.sockets:
            one.shutdown(socket.SHUT_RDWR)
        self.sockets.clear()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    @property
    def double(self):
        return self.server.double

    def do_GET(self):
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        self.double.asked.append(path)
        self.double.headers = self.headers
        if path == "/ws":
            self.websocket()
        elif not self.misbehaves(path):
            self.answer(path, query)

    def answer(self, path, query):
        if path in ("/system_stats", "/elsewhere"):
            self.json({"system": {"comfyui_version": "double"}, "devices": [{"type": "cpu"}]})
        elif path == "/object_info":
            info = object_info()
            if self.double.does("node missing"):
                del info["VAEEncode"]
            self.json(info)
        elif path.startswith("/history/"):
            id = path.rpartition("/")[2]
            self.json({id: self.double.history[id]} if id in self.double.history else {})
        elif path == "/queue":
            self.json({"queue_running": [[0, "prompt-1", {}, {}, []]], "queue_pending": []})
        elif path == "/view":
            self.view(query["filename"][0])
        else:
            self.json({}, 404)

    def view(self, name):
        data = flat(name) if self.double.does("black picture") else picture(name)
        if self.double.does("picture is a page"):
            data = b"<!DOCTYPE html><html>log in</html>"
        cut = len(data) // 2
        if self.double.does("half a picture"):
            data = data[:cut]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.double.does("picture breaks off"):
            self.wfile.write(data[:cut])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(data)

    def do_POST(self):
        path = urlsplit(self.path).path
        self.double.asked.append(path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.misbehaves(path):
            return
        if path == "/upload/image":
            self.double.uploaded["picture"] = len(body)
            self.json({"name": "picture.png", "subfolder": "comfy-doctor", "type": "temp"})
        elif path == "/prompt":
            self.prompt(json.loads(body))
        elif path in ("/queue", "/history"):
            self.double.deleted += json.loads(body).get("delete", [])
            self.json({})
        elif path == "/interrupt":
            self.double.interrupted.append(json.loads(body or b"{}").get("prompt_id"))
            self.json({})

    def prompt(self, said):
        if self.double.does("prompt refused"):
            wrong = {
                "type": "value_not_in_list",
                "message": "Value not in list",
                "details": "ckpt_name: 'x' not in []",
            }
            nodes = {"checkpoint": {"class_type": "CheckpointLoaderSimple", "errors": [wrong]}}
            self.json(
                {"error": {"message": "Prompt outputs failed validation"}, "node_errors": nodes},
                400,
            )
        elif self.double.does("no prompt_id"):
            self.json({"number": 1})
        else:
            self.json({"prompt_id": self.double.queue(said["prompt"], said["client_id"])})

    def misbehaves(self, path):
        """What is wrong with every answer, or with that of one path ("500 at /prompt")."""
        for way in self.double.ways:
            what, _, where = way.partition(" at ")
            if where == path and hasattr(self, f"be_{what}"):
                getattr(self, f"be_{what}")()
                return True
        return False

    def be_500(self):
        self.json({"oh": "no"}, 500)

    def be_full(self):
        self.json({"error": "queue full"}, 503)

    def be_hang(self):
        self.double.stopping.wait(60)

    def be_reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def be_html(self):
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    def be_list(self):
        self.json([1, 2, 3])

    def be_redirect(self):
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def be_endless(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while not self.double.stopping.is_set():
                self.wfile.write(b"4\r\n    \r\n")
                self.wfile.flush()
                time.sleep(0.01)
        except OSError:
            self.close_connection = True

    def be_deep(self):
        data = b"[" * 100_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def json(self, data, status=200):
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def websocket(self):
        if self.double.does("no websocket"):
            self.json({}, 404)
            return
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        self.double.sockets.append(self.connection)
        if self.double.does("websocket floods"):
            self.flood()
        self.double.stopping.wait(60)
        self.close_connection = True

    def flood(self):
        """A frame that promises 2^40 bytes, and begins to keep the promise."""
        try:
            self.connection.sendall(bytes([0x81, 127]) + struct.pack("!Q", 1 << 40))
            while not self.double.stopping.is_set():
                self.connection.sendall(b"x" * (1 << 20))
        except OSError:
            return


@contextmanager
def serving(*ways):
    """(Double, address) of a server that misbehaves in these ways."""
    double = Double(*ways)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.double = True, double
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield double, f"http://127.0.0.1:{server.server_port}"
    finally:
        double.stopping.set()
        server.shutdown()
        server.server_close()
