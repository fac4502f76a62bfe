"""Writes docs/caught.md: which installations of the lab are noticed, by comfy-doctor and by others.

PYTHON docs/write_caught.py --tools FOLDER [--only WORD ...] [--raw FILE]

FOLDER holds one environment for each tool, named after its distribution, made by this Python's
version: python -m uv venv FOLDER/NAME; python -m uv pip install --python FOLDER/NAME NAME. A tool
whose environment is not there is left out, and said. Each runs as its own documentation wants it:
in the patient's interpreter, with its own packages beside. It notices an installation when it
prints a line that it does not print about the healthy one (figures and paths aside), however it
puts it. Tools that look at the environment alone are not run where only ComfyUI's folder is broken:
what they are given is the healthy environment then.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.lab.installation import Case, Here, Impossible, installation, make_base  # noqa: E402
from tests.lab.judge import CASES, CLEAN, ask  # noqa: E402


@dataclass(frozen=True)
class Tool:
    name: str  # of its distribution; the environment below --tools is called so
    command: Callable[[Path, Here], list[str]]  # (its environment, the patient) -> words
    folder: bool = False  # does it look at ComfyUI's folder?
    inside: bool = True  # does it run in the patient's interpreter?


def script(name: str, *words: str) -> Callable[[Path, Here], list[str]]:
    return lambda own, here: [str(here.python), str(own / "bin" / name), *words]


def pip_check(own: Path, here: Here) -> list[str]:
    return [sys.executable, "-m", "pip", "--python", str(here.python), "check"]


def uv_check(own: Path, here: Here) -> list[str]:
    return [sys.executable, "-m", "uv", "pip", "check", "--python", str(here.python)]


def comfy(own: Path, here: Here) -> list[str]:
    words = ["--skip-prompt", "--workspace", str(here.root), "--json", "node", "deps"]
    return [str(own / "bin/comfy"), *words]


TOOLS = (
    Tool("pip", pip_check, inside=False),
    Tool("uv", uv_check, inside=False),
    Tool("env-doctor", script("env-doctor", "check")),
    Tool("cuda-doctor", script("cuda-doctor", "diagnose")),
    Tool("gpu-doctor", script("gpu-doctor", "--check")),
    Tool("ai-infradr", script("ai-infradr")),
    Tool("mlenvdoctor", script("mlenvdoctor", "doctor", "--ci")),
    Tool("comfy-cli", comfy, folder=True, inside=False),
)
NOT_COMPARED = (
    "Not compared: comfyui-manager (its command line must live in ComfyUI's own environment and"
    " needs a ComfyUI that imports), comfygit, comfydock and comfy-env (they know only environments"
    " that they made), umeairt-comfyui-installer and pypilot-cli (they download their programs from"
    " GitHub), Comfy-Desktop and the ComfyUI-Doctor node (not on the default index)."
)


HEAD = """# What is caught

Written by docs/write_caught.py from real runs: installations of tests/lab are built and given to
each tool. For comfy-doctor, yes means that the right finding is named; for the others, that they
print anything at all that they do not print about a healthy one, whatever it says. "–": the tool
looks at no ComfyUI folder, and its environment is healthy; or it needs another Python. They were
made for other ends, most of them for training on NVIDIA's cards: this compares what people have at
hand, not like with like. "not run": the run that wrote this page did not come to it."""


def lines(tool: Tool, own: Path, here: Here) -> frozenset[str]:
    """What it prints, without figures, paths and empty lines, and how it ended."""
    env = {k: v for k, v in os.environ.items() if k not in CLEAN} | here.variables
    env["VIRTUAL_ENV"] = str(here.python.parent.parent)
    env["COLUMNS"] = "2000"  # a path that is broken at the width of a console looks like news
    if tool.inside:
        packages = next(own.glob("lib/python3*/site-packages"), own)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (env.get("PYTHONPATH"), str(packages))))
    try:
        run = subprocess.run(
            tool.command(own, here),
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            cwd=here.root,
            env=env,
            timeout=120,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return frozenset({f"could not run: {type(error).__name__}"})
    text = (run.stdout + run.stderr).replace(str(here.root.parent), "")
    if tool.folder:  # JSON on one line: only what it does not call satisfied
        parts = re.findall(r"\{[^{}]*\}", text)
        text = "\n".join(p for p in parts if '"status"' in p and '"satisfied"' not in p)
    plain = (re.sub(r"\d[\d.]*", "#", line).strip() for line in text.splitlines())
    return frozenset({line for line in plain if line} | {f"exit {run.returncode}"})


def build(case: Case | None, place: Path, base: Path) -> Here:
    place.mkdir()
    here = installation(place / "ComfyUI", base)
    if case is not None:
        case.build(here)
    return here


def rows(asked: argparse.Namespace, tools: list[Tool], folder: Path) -> Iterator[dict[str, object]]:
    base, usual = make_base(folder / "base"), {}
    healthy = build(None, folder / "healthy", base)
    for tool in tools:  # twice: what differs between two healthy runs says nothing
        twice = (lines(tool, asked.tools / tool.name, healthy) for _ in range(2))
        usual[tool.name] = frozenset().union(*twice)
    names = [n for n in CASES if not asked.only or any(w in n for w in asked.only)]
    for number, name in enumerate(names, 1):
        case = CASES[name]
        sys.stderr.write(f"\r\033[K{number} of {len(names)}: {name}")
        try:
            here = build(case, folder / name, base)
        except Impossible:
            continue
        with here.ended:
            _, said = ask(here, "check", "--level", str(case.level))
            found = [f["id"] for f in said.get("findings", ()) if f["severity"] != "info"]
            row: dict[str, object] = {"case": name, "owed": case.owed, "comfy-doctor": found}
            row["right"] = case.owed in [f["id"] for f in said.get("findings", ())]
            for tool in tools:
                if suits(tool, case):
                    new = lines(tool, asked.tools / tool.name, here) - usual[tool.name]
                    row[tool.name] = sorted(new)[:20]
        subprocess.run(["rm", "-rf", str(folder / name)], check=False)
        yield row


def suits(tool: Tool, case: Case) -> bool:
    """Would it have anything to look at? See the head of this file."""
    other_python = tool.inside and "for this Python" in case.stand_in
    return not other_python and (tool.folder or not case.build.__module__.endswith("folders"))


def cell(row: dict[str, object], tool: Tool) -> str:
    said = row.get(tool.name)
    if said is None:
        return "not run" if suits(tool, CASES[str(row["case"])]) else "–"
    assert isinstance(said, list)
    if any(text.startswith("exit -") for text in said):
        return "dies with it"
    return "yes" if said else "no"


def page(found: list[dict[str, object]], tools: list[Tool], absent: list[str]) -> str:
    broken = [row for row in found if row["owed"]]
    well = [row for row in found if not row["owed"]]
    head = ["comfy-doctor", *(tool.name for tool in tools)]
    right = sum(bool(row["right"]) for row in broken)
    counts = [
        f"{sum(cell(row, t) in ('yes', 'dies with it') for row in broken)}"
        f" of {sum(cell(row, t) not in ('–', 'not run') for row in broken)}"
        for t in tools
    ]
    alarms = [alarm([cell(row, tool) for row in well]) for tool in tools]
    false = sum(bool(beyond(row)) for row in well)
    said = [
        *HEAD.splitlines(),
        "",
        NOT_COMPARED,
        *([f"Left out of this run: {', '.join(absent)}."] if absent else []),
        "",
        f"| installation | {' | '.join(head)} |",
        "| --- " * (len(head) + 1) + "|",
        *(line(row, tools) for row in broken),
        f"| **noticed** | {right} of {len(broken)} | {' | '.join(counts)} |",
        f"| **alarms about {len(well)} healthy ones** | {false} | {' | '.join(alarms)} |",
        "",
    ]
    return "\n".join(said)


def beyond(row: dict[str, object]) -> set[str]:
    """What comfy-doctor said that is not true of the case besides: a folder may be read-only."""
    said = row["comfy-doctor"]
    assert isinstance(said, list)
    return set(said) - CASES[str(row["case"])].also


def alarm(cells: list[str]) -> str:
    """How many healthy ones it spoke about, where it was run on any of them."""
    return "not run" if set(cells) <= {"not run", "–"} else str(cells.count("yes"))


def line(row: dict[str, object], tools: list[Tool]) -> str:
    own = f"{'yes' if row['right'] else 'no'}: {row['owed']}"
    cells = " | ".join(cell(row, tool) for tool in tools)
    return f"| {str(row['case']).replace('-', ' ')} | {own} | {cells} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tools", type=Path, required=True)
    options.add_argument("--only", nargs="*", default=())
    options.add_argument("--raw", type=Path, help="what each tool said, as JSON")
    options.add_argument("--leave", nargs="*", default=(), help="tools that are left out")
    options.add_argument("--merge", nargs="*", type=Path, help="files of --raw, in place of a run")
    options.add_argument("--folder", type=Path, help="where the installations are built")
    asked = options.parse_args()
    there = [t for t in TOOLS if t.name in ("pip", "uv") or (asked.tools / t.name).is_dir()]
    there = [tool for tool in there if tool.name not in asked.leave]
    absent = [tool.name for tool in TOOLS if tool not in there]
    if asked.merge:
        found = [row for path in asked.merge for row in json.loads(path.read_text("utf-8"))]
        found.sort(key=lambda row: list(CASES).index(row["case"]))
    else:
        with tempfile.TemporaryDirectory(dir=asked.folder, prefix="lab-") as folder:
            found = []
            for row in rows(asked, there, Path(folder)):
                found.append(row)
                if asked.raw:  # a run that is cut short keeps what it has
                    asked.raw.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (ROOT / "docs" / "caught.md").write_text(page(found, there, absent), encoding="utf-8")


if __name__ == "__main__":
    main()
