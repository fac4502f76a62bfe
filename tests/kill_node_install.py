"""Kill `node install` at random instants: never half a pack in custom_nodes/, always a way back.

python -m tests.kill_node_install [HOW_MANY] [SEED] runs the whole experiment by itself; the suite
runs a few rounds (tests/doctor/test_killed.py). A killed run must leave custom_nodes/ as it was, or
with the whole pack; the next run takes back what was open, and installs.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from doctor import installer
from tests import internet
from tests.doctor.command import ROOT, doctor
from tests.doctor.wheels import wheel

FILES = {f"part{number}.py": f"x = {number}\n" * 200 for number in range(120)}


def installation(folder: Path, online: dict[str, str]) -> Path:
    """A folder that looks like ComfyUI's, with an interpreter of its own."""
    here = folder / "ComfyUI"
    (here / "comfy").mkdir(parents=True)
    (here / "custom_nodes").mkdir()
    (here / "main.py").write_text("")
    (here / "requirements.txt").write_text("")
    venv.create(here / ".venv", with_pip=False, symlinks=True)
    python = str(here / ".venv" / "bin" / "python")
    words = [*installer.pip(python), "install", "--quiet", "alpha==1.0"]
    subprocess.run(words, check=True, env={**os.environ, **online})
    return here


def published(root: Path) -> tuple[str, set[str]]:
    """A repository with many files and a requirement; its path on the host, and its files."""
    work = root / "work"
    work.mkdir(parents=True)
    internet.git("init", "-q", "-b", "main", cwd=work)
    for name, text in {"__init__.py": "", "requirements.txt": "beta\n", **FILES}.items():
        (work / name).write_text(text)
    internet.git("add", "-A", cwd=work)
    internet.git("commit", "-qm", "pack", cwd=work)
    internet.git("clone", "-q", "--bare", str(work), str(root / "o" / "Pack.git"), cwd=root)
    return "/o/Pack", {path.name for path in work.iterdir()} - {".git"}


def shop(folder: Path) -> dict[str, str]:
    """The variables that make two small wheels the whole index."""
    wheel(folder, "alpha", "1.0")
    wheel(folder, "beta", "1.0", files={f"beta/m{n}.py": "y = 1\n" for n in range(60)})
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_CONFIG_FILE": os.devnull,
    }


def rounds(folder: Path, many: int, seed: int) -> Iterator[tuple[float, str]]:
    """(seconds until the kill, what was found afterwards): nothing or whole; raises on a half."""
    chance, online = random.Random(seed), shop(folder / "shop")
    online["XDG_CACHE_HOME"] = str(folder / "cache")
    path, files = published(folder / "internet")
    here, host = installation(folder, online), internet.Host(folder / "internet")
    words = ["node", "install", f"{host.url}{path}", "--comfyui", str(here), "--yes"]
    try:
        whole = run_whole(here, words, online)
        for _ in range(many):
            after = chance.uniform(0, whole)
            kill(words, online, after)
            found = state(here, files)
            yield after, found
            repaired(here, words, online, files)
    finally:
        host.close()


def run_whole(here: Path, words: list[str], online: dict[str, str]) -> float:
    """How long one undisturbed installation takes; it is undone again."""
    start = time.monotonic()
    code, out, err = doctor(*words, **online)
    assert code == 0, out + err
    spent = time.monotonic() - start
    assert doctor("undo", "--comfyui", here)[0] == 0
    return spent


def kill(words: list[str], online: dict[str, str], after: float) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "doctor", *words],
        cwd=ROOT,
        env={**os.environ, **online},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(after)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def state(here: Path, files: set[str]) -> str:
    """Nothing or the whole pack; anything else is what must not be."""
    there = sorted(path.name for path in (here / "custom_nodes").iterdir())
    if not there:
        return "nothing"
    assert there == ["Pack"], f"custom_nodes holds {there}"
    found = {path.name for path in (here / "custom_nodes" / "Pack").iterdir()}
    assert found - {".git"} == files, f"half a pack: {len(found)} of {len(files)} files"
    return "whole"


def repaired(here: Path, words: list[str], online: dict[str, str], files: set[str]) -> None:
    """The next command takes back what was open; then it installs, and `undo` goes back."""
    doctor("undo", "--comfyui", here)
    while state(here, files) == "whole":  # the kill came after the installation was done
        assert doctor("undo", "--comfyui", here)[0] == 0
    for _ in range(50):  # children of the killed one may hold the lock for a moment
        code, out, err = doctor(*words, **online)
        if "Another comfy-doctor" not in err + out:
            break
        time.sleep(0.2)
    assert code == 0, out + err
    assert state(here, files) == "whole"
    assert doctor("undo", "--comfyui", here)[0] == 0
    assert state(here, files) == "nothing"
    assert list((here / ".comfy-doctor" / "staging").glob(".work-*")) == []


def main() -> None:
    many, seed = (int(word) for word in (*sys.argv[1:], "100", "1")[:2])
    with tempfile.TemporaryDirectory() as folder:
        found = Counter()
        for number, (after, what) in enumerate(rounds(Path(folder), many, seed), 1):
            found[what] += 1
            sys.stdout.write(f"{number}: killed after {after:.2f} s: {what}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{many} kills, seed {seed}: {dict(found)}, never half a pack\n")


if __name__ == "__main__":
    main()
