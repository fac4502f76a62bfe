"""Guard: stands between Ray's worker and the command line it starts, run as a file by itself.

A worker that ends kills its own children at once, and with that their chance to end what they
started. So its child is this, and the doctor's stdin is held by this: when the guard is gone, or
the worker is, the doctor is asked to end, and takes everything back.
"""

import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 20.0  # seconds to take a change back, as `hand` gives


def main() -> int:
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    threading.Thread(target=watch, args=(child,), daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code  # as a shell tells of a signal


def watch(child: "subprocess.Popen[bytes]") -> None:
    """Until nobody holds the other end any more."""
    while os.read(0, 1):
        pass
    child.terminate()
    time.sleep(GRACE)
    child.kill()  # a doctor that is stopped, or hangs itself, does not hear the first


if __name__ == "__main__":
    sys.exit(main())
