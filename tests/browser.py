"""A real browser to look at our pages with: Chromium, driven by ChromeDriver over WebDriver.

python -m tests.browser PAGE.html FOLDER     screenshots at three widths, light and dark; a PDF
"""

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager
from pathlib import Path

FLAGS = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync hide-scrollbars"
).split()
WIDTHS = (390, 800, 1280)
SCHEMES = ("light", "dark")


def missing():
    """What is not on this machine, or an empty string."""
    return next((name for name in ("chromium", "chromedriver") if not shutil.which(name)), "")


class Browser:
    """One tab. (WebDriver: w3.org/TR/webdriver2; cdp() is ChromeDriver's way to DevTools.)"""

    def __init__(self, port, profile):
        self.base = f"http://127.0.0.1:{port}/session"
        options = {
            "binary": shutil.which("chromium"),
            "args": [f"--{flag}" for flag in FLAGS] + [f"--user-data-dir={profile}"],
        }
        want = {"browserName": "chrome", "goog:chromeOptions": options}
        want = {"alwaysMatch": {**want, "goog:loggingPrefs": {"browser": "ALL"}}}
        self.base += "/" + self.ask("", {"capabilities": want})["sessionId"]

    def ask(self, path, body=None, method="POST"):
        data = None if body is None else json.dumps(body).encode()
        heads = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.base + path, data, heads, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def cdp(self, command, **values):
        return self.ask("/goog/cdp/execute", {"cmd": command, "params": values})

    def open(self, path, width, scheme, height=900):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.cdp("Emulation.setDeviceMetricsOverride", **metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.cdp("Emulation.setEmulatedMedia", media="screen", features=[feature])
        self.ask("/url", {"url": Path(path).resolve().as_uri()})

    def script(self, code):
        return self.ask("/execute/sync", {"script": code, "args": []})

    def later(self, code):
        """What a script gives to the function that stands last among its arguments."""
        return self.ask("/execute/async", {"script": code, "args": []})

    def console(self):
        """What the page has written to its console since it was asked last."""
        return [row["message"] for row in self.ask("/se/log", {"type": "browser"})]

    def press(self, *keys):
        for key in keys:
            codes = {"Tab": 9, "ArrowRight": 39, "Enter": 13, " ": 32}
            what = {"key": key, "windowsVirtualKeyCode": codes[key]}
            for kind in ("rawKeyDown", "keyUp"):
                self.cdp("Input.dispatchKeyEvent", type=kind, **what)

    def scripts(self, allowed):
        self.cdp("Emulation.setScriptExecutionDisabled", value=not allowed)

    def screenshot(self):
        """The whole page, not only what fits into the window."""
        got = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(got["data"])

    def pdf(self):
        return base64.b64decode(self.cdp("Page.printToPDF", printBackground=True)["data"])


@contextmanager
def browser():
    with tempfile.TemporaryDirectory() as profile:
        driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            line = next(line for line in driver.stdout if "started successfully on port" in line)
            one = Browser(int(line.rstrip(".\n").rpartition(" ")[2]), profile)
            try:
                yield one
            finally:
                one.ask("", method="DELETE")
        finally:
            driver.terminate()
            driver.wait()


def main(page, folder):
    page, folder = Path(page), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as one:
        for width in WIDTHS:
            for scheme in SCHEMES:
                one.open(page, width, scheme)
                (folder / f"{page.stem}.{width}.{scheme}.png").write_bytes(one.screenshot())
        (folder / f"{page.stem}.pdf").write_bytes(one.pdf())


if __name__ == "__main__":
    main(*sys.argv[1:])
