"""Start: the command, before anything of another environment can get into it.

PYTHONPATH is set for somebody else's Python, and stands before this one's own libraries and even
before the standard library. The patient is asked with it, as it would be started; the doctor itself
runs without. Nothing is imported here that Python has not loaded already.
"""

import os
import sys


def main() -> int:
    sys.path[:] = own(sys.path, os.environ.get("PYTHONPATH", ""))
    from doctor.cli import main

    return main()


def own(path: list[str], foreign: str) -> list[str]:
    """`path` without the folders of PYTHONPATH, but for the one that holds the doctor itself."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    named = {os.path.abspath(entry) for entry in foreign.split(os.pathsep) if entry} - {home}
    return [entry for entry in path if os.path.abspath(entry) not in named]
