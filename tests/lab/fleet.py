"""Ray for real on this machine: raylets that differ, one that is killed in mid-run, one whose
environment is broken, one that hangs; and `fleet` has to be right about each of them.

    python -m tests.lab.fleet       check and render, with the driver killed, too: some minutes
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from doctor.fleet.cluster import QUICK, STORE, library, raylet
from doctor.fleet.hand import MARK
from tests.doctor.command import ROOT

HANGS = "#!/bin/sh\nexec sleep 1000\n"
LIMIT = 25  # seconds that a part may take here: less than a doctor waits for an interpreter


def environments(folder: Path) -> dict[str, str]:
    """What `--python` means on each node: this one, one without torch, two that never answer."""
    venv = folder / "broken"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    hanging = folder / "hanging"
    hanging.write_text(HANGS)
    hanging.chmod(0o755)
    broken = str(venv / "bin" / "python")
    return {
        "healthy": sys.executable,
        "broken": broken,
        "hanging": str(hanging),
        "killed": str(hanging),
    }


@contextmanager
def raylets(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The address of a cluster, and its nodes by what is wrong with them; loopback only."""
    library(loopback=True)
    os.environ["RAY_TMPDIR"] = str(folder)
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    started = {}
    try:
        for n, (name, python) in enumerate(environments(folder).items()):
            started[name] = raylet(
                cluster,
                num_cpus=1,
                resources={name: 1},
                include_dashboard=False,
                node_ip_address="127.0.0.1",
                object_store_memory=STORE,
                env_vars={"FLEET_PYTHON": python, "FLEET_NODE": name},
                **({} if n else {"_system_config": QUICK}),
            )
        yield cluster.address, started
    finally:
        cluster.shutdown()


def begin(address: str, *words: object, limit: int = LIMIT) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "doctor", "fleet", *map(str, words), "--json"]
    command += ["--address", address, "--python", "$FLEET_PYTHON", "--limit", str(limit)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, text=True, cwd=ROOT, env=env, **pipes)


def read_until(child: "subprocess.Popen[str]", text: str) -> list[str]:
    """The lines of its stderr up to the first with this text; all of them where it has none."""
    lines = []
    for line in child.stderr:
        lines.append(line)
        if text in line:
            break
    return lines


def at_work(folder: str) -> list[str]:
    """What still runs of the nodes whose interpreters lie in a folder, by /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            own = path.read_bytes().split(b"\0")
            ours = any(v.startswith(f"{MARK}=".encode()) for v in own)
            if ours and any(v.startswith(f"FLEET_PYTHON={folder}".encode()) for v in own):
                found.append(path.with_name("cmdline").read_bytes().decode().replace("\0", " "))
    return found


def kill(node: Any) -> None:
    """A machine that is gone: its raylet and all that Ray started there, at once."""
    for processes in list(node.all_processes.values()):
        for one in processes:
            os.kill(one.process.pid, signal.SIGKILL)


def checked(
    address: str, nodes: dict[str, Any], limit: int = LIMIT
) -> tuple[int, dict[str, Any], str]:
    """A check during which one node is killed: exit code, answer, and what was told meanwhile."""
    child = begin(
        address, "check", "--level", 1, "--only", "torch-missing", "numpy-missing", limit=limit
    )
    told = read_until(child, "Asking")
    told += read_until(child, "✗")  # the broken one has answered; two are waited for
    kill(nodes["killed"])
    out, err = child.communicate(timeout=180)
    return child.returncode, json.loads(out), "".join(told) + err


def names(address: str) -> dict[str, str]:
    """Node id -> what is wrong with it, by Ray's own resources."""
    code = (
        "import json, ray; ray.init('%s', log_to_driver=False, logging_level='CRITICAL');"
        "print(json.dumps({n['NodeID'][:6]: r for n in ray.nodes() for r in n['Resources']"
        " if r in ('healthy', 'broken', 'hanging', 'killed')}))"
    )
    words = [sys.executable, "-c", code % address]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    known: dict[str, str] = json.loads(run.stdout.splitlines()[-1])
    return known


def album(folder: Path, count: int) -> Path:
    folder.mkdir()
    for n in range(count):
        Image.new("RGB", (48, 48), (n * 40 % 256, 90, 200)).save(folder / f"p{n}.png")
    return folder


def rendered(address: str, nodes: dict[str, Any], folder: Path, count: int = 12) -> None:
    """A driver that is killed after the first picture, and a second one that does only the rest."""
    words = ("render", "--images", album(folder / "in", count), "--out", folder / "out")
    words += ("--steps", 2, "--wait", 60)
    child = begin(address, *words)
    told = read_until(child, "✓")
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    ledger = folder / "out" / "fleet-render.jsonl"
    first = len(ledger.read_text().splitlines()) - 1
    print("".join(told), f"the driver was killed with {first} of {count} done", sep="")
    child = begin(address, *words)
    out, err = child.communicate(timeout=900)
    answer = json.loads(out)
    print(err, json.dumps(answer, indent=1), sep="")
    done = sorted(path.name for path in (folder / "out").glob("*.png"))
    assert done == sorted(f"p{n}.png.png" for n in range(count)), "nothing is lost"
    assert (child.returncode, answer["failed"]) == (0, [])
    assert answer["done_before"] >= first >= 1
    assert answer["done_before"] + answer["done_now"] == count, "and nothing is done twice"
    assert all("recipe" in Image.open(path).text for path in (folder / "out").glob("*.png"))


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="fl-") as name:
        folder = Path(name)
        began = time.monotonic()
        with raylets(folder) as (address, nodes):
            who = names(address)
            print(f"four raylets in {time.monotonic() - began:.0f} s: {who}")
            code, answer, told = checked(address, nodes)
            print(told, f"exit {code}", sep="")
            judge(code, answer, who)
            print(f"left behind: {at_work(str(folder))}")
            rendered(address, nodes, folder)
    return 0


def judge(code: int, answer: dict[str, Any], who: dict[str, str]) -> None:
    """The report is right about all of them, and its exit code is that of the worst."""
    parts = {who[part["slot"].partition("#")[2]]: part for part in answer["parts"]}
    states = {name: (part["state"], part["exit"]) for name, part in parts.items()}
    assert states["healthy"] == ("answered", 0), states
    assert states["broken"] == ("answered", 1), states
    assert states["hanging"][0] == "late", states
    assert states["killed"][0] == "dead", states
    found = {row["id"]: row["slots"] for row in answer["findings"]}
    assert found["torch-missing"] == [parts["broken"]["slot"]]
    assert (code, answer["exit"], answer["healthy"]) == (1, 1, False)


if __name__ == "__main__":
    sys.exit(main())
