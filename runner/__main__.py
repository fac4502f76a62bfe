"""`python -m runner`."""

import gc
import os
import sys

# what importing torch makes stays: looking through it again and again took a fifth of that time
gc.set_threshold(1 << 20)

from runner.cli import main  # noqa: E402


def leave(code: int) -> None:
    """End with this code. An interrupted run ends at once: threads that still make weights would
    otherwise abort the process on its way out, and the code with it."""
    if code == 130:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


if __name__ == "__main__":
    leave(main())
