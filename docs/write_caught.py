"""Writes docs/caught.md: which breakages of the lab are caught, by comfy-doctor and by others.

PYTHON docs/write_caught.py      (builds every installation of tests/lab/installations.py)

A tool catches a breakage when it says something it does not say of the healthy installation.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.lab.installations import BREAKS, healthy_installation  # noqa: E402


def said(words: list[str]) -> tuple[int, str]:
    run = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=120)
    return run.returncode, run.stdout + run.stderr


def doctor(root: Path) -> str:
    words = [sys.executable, "-m", "doctor", "check", "--level", "1", "--json"]
    _, text = said([*words, "--comfyui", str(root)])
    answer = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return " ".join(sorted(finding["id"] for finding in answer["findings"]))


def complaints(text: str, root: Path) -> str:
    """What a tool said, without the folder, and without the time it took."""
    return re.sub(r"\d+(?:\.\d+)?m?s\b", "", text.replace(str(root), ""))


def pip_check(root: Path) -> str:
    python = str(root / ".venv/bin/python")
    code, text = said([sys.executable, "-m", "pip", "--python", python, "check"])
    return complaints(text, root) if code else ""


def uv_check(root: Path) -> str:
    python = str(root / ".venv/bin/python")
    code, text = said([sys.executable, "-m", "uv", "pip", "check", "--python", python])
    return complaints(text, root) if code else ""


TOOLS = {"comfy-doctor check --level 1": doctor, "pip check": pip_check, "uv pip check": uv_check}


def row(name: str, healthy: dict[str, str]) -> str:
    owed, build = BREAKS[name]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "ComfyUI")
        healthy_installation(root)
        build(root)
        answers = {tool: ask(root) for tool, ask in TOOLS.items()}
    right = owed in answers["comfy-doctor check --level 1"].split()
    cells = [f"{'yes' if right else 'no'}: {owed}"] if owed else ["nothing to say"]
    for tool in list(TOOLS)[1:]:
        cells.append("yes" if answers[tool] and answers[tool] != healthy[tool] else "no")
    return f"| {name.replace('-', ' ')} | {' | '.join(cells)} |"


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "ComfyUI")
        healthy_installation(root)
        healthy = {tool: ask(root) for tool, ask in TOOLS.items()}
    lines = [
        "# What is caught",
        "",
        "Written by docs/write_caught.py: every installation of tests/lab/installations.py is",
        "built and judged. The others look at the requirements between packages and at nothing",
        "else, so this compares what people have at hand, not like with like.",
        "",
        f"| installation | {' | '.join(TOOLS)} |",
        "| --- " * (len(TOOLS) + 1) + "|",
        *(row(name, healthy) for name in BREAKS if BREAKS[name][0]),
        "",
    ]
    (ROOT / "docs" / "caught.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
