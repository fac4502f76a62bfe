"""Judge one case of the lab by the installed command, from outside, as people and scripts do."""

import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import folders, layouts, packages, surroundings  # noqa: F401  (register their cases)
from tests.lab.installation import CASES, Case, Here, Impossible, installation

COMMAND = Path(sys.executable).with_name("comfy-doctor")
SMALL = 100_000  # bytes; of larger files the size alone is compared
CLEAN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "XDG_CACHE_HOME")


@dataclass(frozen=True)
class Verdict:
    name: str
    owed: str
    found: tuple[str, ...] = ()  # "severity id", as the command gives them
    wrong: tuple[str, ...] = ()  # what is not as it must be; nothing where all is well
    fix: str = ""  # "cured, undone", why it was not carried out, "" where none is promised
    skipped: str = ""
    seconds: float = 0.0  # of the first check

    @property
    def well(self) -> bool:
        return not self.wrong


def judge(case: Case, folder: Path, base: Path, fixes: bool = True) -> Verdict:
    """Build it, look at it, and where a fix is promised, let it be cured and undone."""
    here = installation(folder / "ComfyUI", base)
    with here.ended:
        try:
            case.build(here)
        except Impossible as lack:
            return Verdict(case.name, case.owed, skipped=str(lack))
        except (OSError, RuntimeError, AssertionError) as error:
            return Verdict(case.name, case.owed, wrong=(f"not built: {error}",))
        start = time.perf_counter()
        code, said = ask(here, "check", "--level", str(case.level))
        seconds = time.perf_counter() - start
        wrong = list(amiss(case, here, code, said))
        promised = next((f["fix"] for f in found(said) if f["id"] == case.owed), "")
        fix = ""
        if promised and not wrong:
            fix = case.unfixed or ("not tried" if not fixes else "")
            if not fix:
                wrong += cured_and_undone(case, here)
                fix = "failed" if wrong else "cured, undone"
    told = tuple(text.replace(str(folder), "…") for text in wrong)  # a results file has no paths
    return Verdict(case.name, case.owed, brief(said), told, fix, "", seconds)


def ask(here: Here, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and the one JSON object on stdout ({} where there is none)."""
    own = {k: v for k, v in os.environ.items() if k not in CLEAN}
    asked = here.asked or ["--comfyui", str(here.root)]
    run = subprocess.run(
        [*here.before, str(COMMAND), *words, *asked, "--json"],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        cwd="/",
        env={**own, "LANG": "C.UTF-8", **here.variables},
        timeout=900,
    )
    try:
        said: dict[str, Any] = json.loads(run.stdout)
    except ValueError:
        return run.returncode, {"error": {"message": (run.stdout + run.stderr)[-500:]}}
    return run.returncode, said


def found(said: dict[str, Any]) -> list[dict[str, Any]]:
    return list(said.get("findings", ()))


def brief(said: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{f['severity']} {f['id']}" for f in found(said))


def amiss(case: Case, here: Here, code: int, said: dict[str, Any]) -> list[str]:
    """What the answer says that it must not, and what it fails to say."""
    if "error" in said:
        return [f"exit {code}: {said['error']['message']}"]
    ids = [f["id"] for f in found(said)]
    errors = {f["id"] for f in found(said) if f["severity"] == "error"}
    wrong = []
    if case.owed and case.owed not in ids:
        wrong.append(f"{case.owed} is not found")
    if errors - {case.owed} - case.also:
        wrong.append(f"errors besides: {', '.join(sorted(errors - {case.owed} - case.also))}")
    warnings = {f["id"] for f in found(said) if f["severity"] == "warning"}
    if not case.owed and warnings - case.also:
        wrong.append(f"warnings about a healthy one: {', '.join(sorted(warnings))}")
    if code != (1 if errors else 0):
        wrong.append(f"exit {code}")
    if said["target"]["python"] != str(here.python):
        wrong.append(f"judged {said['target']['python']}, not {here.python}")
    return wrong


def cured_and_undone(case: Case, here: Here) -> list[str]:
    """What goes wrong when the fix is carried out, looked at, and taken back without a network."""
    before = held(here.root.parent)
    code, said = ask(here, "fix", case.owed, "--yes")
    if code or case.owed not in said.get("cured", ()):
        return [f"fix: exit {code}, {json.dumps(said)[:300]}"]
    wrong = []
    if case.owed in [f["id"] for f in found(ask(here, "check", "--level", str(case.level))[1])]:
        wrong.append("the fix did not cure it")
    ask(here, "undo", "--offline")
    after = held(here.root.parent)
    if after != before:
        changed = {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)}
        wrong.append(f"undo left {len(changed)} differences: {', '.join(sorted(changed)[:3])}")
    if case.owed not in [f["id"] for f in found(ask(here, "check", "--level", str(case.level))[1])]:
        wrong.append("undo did not bring the break back")
    return wrong


def held(folder: Path) -> dict[str, tuple[object, ...]]:
    """Every file with its mode, size, and for small ones a checksum; every link and its target."""
    tree: dict[str, tuple[object, ...]] = {}
    for root, inner, names in os.walk(folder):
        inner[:] = [n for n in inner if n not in ("__pycache__", ".comfy-doctor")]
        for name in (*names, *inner):
            path = Path(root, name)
            key = str(path.relative_to(folder))
            if path.is_symlink():
                tree[key] = (os.readlink(path),)
            elif path.is_file():
                size = path.stat().st_size
                sum_ = zlib.crc32(path.read_bytes()) if size < SMALL else 0
                tree[key] = (path.stat().st_mode, size, sum_)
    return tree


def one(name: str, folder: Path, base: Path, fixes: bool = True) -> Verdict:
    """Judge a case in a folder of its own, and leave nothing of it behind."""
    place = folder / name
    place.mkdir()
    try:
        return judge(CASES[name], place, base, fixes)
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(place)], capture_output=True)
        shutil.rmtree(place, ignore_errors=True)
