"""`python -m runner`."""

import os
import sys

from runner.cli import main


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
