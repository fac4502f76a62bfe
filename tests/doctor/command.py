"""The installed command, run from outside as a person or a script would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def doctor(*words: object, cwd: Path | None = None, **variables: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    run = subprocess.run(
        [sys.executable, "-m", "doctor", *map(str, words)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=cwd or ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "LC_ALL": "", **variables},
    )
    return run.returncode, run.stdout, run.stderr


def answer(*words: object, **more: Any) -> tuple[int, dict[str, Any]]:
    """Exit code, and the one JSON object on stdout."""
    own = words.index("--") if "--" in words else len(words)
    code, out, _ = doctor(*words[:own], "--json", *words[own:], **more)
    said: dict[str, Any] = json.loads(out)
    return code, said
