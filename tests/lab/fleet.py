"""Ray for real on this machine: raylets that differ, one that is killed in mid-run, one whose
environment is broken, one that hangs; and `fleet` has to be right about each of them.

    python -m tests.lab.fleet [--out FILE]     check, render, and a cluster of two: 8 minutes
    python -m tests.lab.fleet check render      without the last: 4 minutes; the last has 10 GB

What is true of a node hangs on no race here. The doctor of the one that hangs is stopped (SIGSTOP)
by its own patient, and can say nothing; a node is killed when its part is known to be at work; and
a limit is many times what a part takes.
"""

import argparse
import atexit
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from doctor.fleet.cluster import QUICK, STORE, library, raylet
from doctor.fleet.hand import MARK
from doctor.fleet.ledger import NAME
from tests.doctor.command import ROOT

# Interpreters that never answer. The first stops the doctor that asks it, but for one that renders:
# that one waits by itself. The second says that it was asked.
FREEZES = """#!/bin/sh
grep -qaz '^check$' /proc/$PPID/cmdline && kill -STOP $PPID
exec sleep 1000
"""
HANGS = "#!/bin/sh\ntouch $0.asked\nexec sleep 1000\n"
KINDS = ("healthy", "broken", "hanging", "killed")
LIMIT = 60  # seconds that a part may take here; on an idle machine it takes 1, with torch 5
COMMIT = subprocess.run(
    ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, cwd=ROOT
).stdout.strip()
OURS = "FLEET_FOLDER"  # in the environment of all that this lab starts
PARTS = ("check", "render", "local")
AT_MOST = 1200.0  # seconds for one command on a busy machine


def environments(folder: Path) -> dict[str, str]:
    """What `--python` means on each node: this one, one without torch, two that never answer."""
    broken = folder / "broken"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(broken)], check=True)
    for name, text in (("hanging", FREEZES), ("killed", HANGS)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    names = {"healthy": sys.executable, "broken": str(broken / "bin" / "python")}
    return names | {name: str(folder / name) for name in ("hanging", "killed")}


class Lab:
    """A cluster on loopback, and its nodes by what is wrong with them."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.nodes: dict[str, Any] = {}

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, name: str, python: str) -> None:
        quick = {} if self.nodes else {"_system_config": QUICK}
        self.nodes[name] = raylet(
            self.cluster,
            num_cpus=1,
            resources={name: 1},
            include_dashboard=False,
            node_ip_address="127.0.0.1",
            object_store_memory=STORE,
            env_vars={"FLEET_PYTHON": python, "FLEET_NODE": name},
            **quick,
        )

    def slot(self, name: str) -> str:
        """As the fleet calls it: the nodes of one machine are told apart by their ids."""
        return f"{platform.node()}#{self.nodes[name].node_id[:6]}"

    def kill(self, name: str) -> None:
        """A machine that is gone: its raylet and all that Ray started there, at once."""
        for processes in list(self.nodes[name].all_processes.values()):
            for one in processes:
                os.kill(one.process.pid, signal.SIGKILL)


def at_work(folder: Path) -> list[str]:
    """What still runs of what this lab started on nodes, by /proc."""
    found, ours = [], f"{OURS}={folder}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            own = path.read_bytes().split(b"\0")
            if ours in own and any(v.startswith(f"{MARK}=".encode()) for v in own):
                found.append(path.with_name("cmdline").read_bytes().decode().replace("\0", " "))
    return found


@contextmanager
def raylets(folder: Path) -> Iterator[Lab]:
    library(loopback=True)
    os.environ |= {"RAY_TMPDIR": str(folder), OURS: str(folder)}
    from ray.cluster_utils import Cluster

    lab = Lab(Cluster(), folder)
    try:
        for name, python in environments(folder).items():
            lab.add(name, python)
        yield lab
    finally:
        with suppress(AssertionError):  # "there are zombie processes": the reaper has them
            lab.cluster.shutdown()
        os.environ.pop("RAY_TMPDIR")


def begin(*words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "doctor", "fleet", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    child = subprocess.Popen(command, text=True, cwd=ROOT, env=env, **pipes)
    atexit.register(child.terminate)  # nothing goes on behind a lab that was left early
    return child


def read_until(child: "subprocess.Popen[str]", *texts: str) -> str:
    """What it says on stderr up to the first line with these texts."""
    told = ""
    for line in child.stderr:
        told += line
        if all(text in line for text in texts):
            return told
    raise AssertionError(f"nothing said {texts}: {told}")


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + AT_MOST
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


Answer = tuple[int, dict[str, Any], str]  # exit code, JSON object, stderr


def ended(child: "subprocess.Popen[str]", told: str = "") -> Answer:
    out, err = child.communicate(timeout=AT_MOST)
    assert child.returncode in (0, 1), f"exit {child.returncode}: {told}{err}"
    return child.returncode, json.loads(out), told + err


def checked(lab: Lab, limit: int = LIMIT) -> Answer:
    """A check during which one node is killed."""
    child = begin(
        *("check", "--level", 1, "--only", "torch-missing", "--json"),
        *("--address", lab.address, "--python", "$FLEET_PYTHON", "--limit", limit),
        *("--html", lab.folder / "check.html"),
    )
    asked = lab.folder / "killed.asked"
    until(lambda: asked.exists() or child.poll() is not None)
    if asked.exists():
        lab.kill("killed")
    return ended(child)


def judge(code: int, answer: Mapping[str, Any], told: str, lab: Lab) -> None:
    """The report is right about all of them, each told before the slowest, and so is its code."""
    parts = {part["slot"]: part for part in answer["parts"]}
    states = {
        name: (parts[lab.slot(name)]["state"], parts[lab.slot(name)]["exit"]) for name in KINDS
    }
    assert states == {
        "healthy": ("answered", 0),
        "broken": ("answered", 1),
        "hanging": ("late", None),
        "killed": ("dead", None),
    }
    found = {row["id"]: row["slots"] for row in answer["findings"]}
    assert found == {"torch-missing": [lab.slot("broken")]}
    assert (code, answer["exit"], answer["healthy"]) == (1, 1, False)
    last = told.index(f"? {lab.slot('hanging')}")
    assert all(told.index(f" {lab.slot(name)}  ") < last for name in ("healthy", "broken"))


def album(folder: Path, count: int) -> Path:
    folder.mkdir()
    for n in range(count):
        Image.new("RGB", (48, 48), (n * 10 % 256, 90, 200)).save(folder / f"p{n:02}.png")
    return folder


def rendered(lab: Lab, count: int = 24) -> Answer:
    """A node that dies with pictures in its hands, a driver that is killed soon after, and a second
    driver that does only the rest, beside one node that is broken and one that hangs."""
    lab.add("dying", sys.executable)
    words = ("render", "--images", album(lab.folder / "in", count), "--out", lab.folder / "out")
    words += ("--steps", 2, "--json", "--address", lab.address, "--python", "$FLEET_PYTHON")
    words += ("--limit", LIMIT)
    child = begin(*words)
    told = read_until(child, "✓", f"({lab.slot('dying')}, ")
    lab.kill("dying")
    told += read_until(child, lab.slot("dying"), "dead: ")
    told += read_until(child, "✓")
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    first = len((lab.folder / "out" / NAME).read_text().splitlines()) - 1
    told += f"the driver was killed with {first} of {count} done\n"
    code, answer, rest = ended(begin(*words), told)
    answer["done_when_killed"] = first
    return code, answer, rest


def judge_render(code: int, answer: Mapping[str, Any], folder: Path, count: int = 24) -> None:
    done = sorted((folder / "out").glob("*.png"))
    assert [path.name for path in done] == [f"p{n:02}.png.png" for n in range(count)], "none lost"
    assert (code, answer["failed"]) == (0, [])
    assert count > answer["done_before"] >= answer["done_when_killed"] > 1
    assert answer["done_before"] + answer["done_now"] == count, "and nothing is done twice"
    assert all("recipe" in Image.open(path).text for path in done)


def local(folder: Path) -> Iterator[tuple[str, Answer]]:
    """`--local 2`, as somebody tries it who has no cluster: each command to its end."""
    place = ("--local", 2, "--python", sys.executable, "--json", "--html")
    bench = ("bench", "--model", "embedded", "--size", 64, "--steps", 4, "--runs", 3)
    yield "run", ended(begin("run", *place, folder / "run.html"))
    yield "bench", ended(begin(*bench, *place, folder / "bench.html"))
    pictures = ("--images", album(folder / "in", 6), "--out", folder / "out", "--steps", 2)
    yield "render", ended(begin("render", *pictures, *place[:-1]))


def judge_local(act: str, code: int, answer: Mapping[str, Any], folder: Path) -> None:
    assert code == 0, (act, answer)
    if act == "render":
        assert (answer["done_now"], answer["failed"]) == (6, [])
        return
    assert [part["state"] for part in answer["parts"]] == ["answered", "answered"]
    assert all(part["answer"]["bench"]["steps_per_second"] > 0 for part in answer["parts"])
    if act == "run":
        digests = {part["answer"]["render"]["sha256"]["output"] for part in answer["parts"]}
        assert len(digests) == 1, "one machine, one picture"
        assert all(part["answer"]["verify"]["passed"] for part in answer["parts"])
    assert (folder / f"{act}.html").read_text("utf-8").startswith("<!doctype html>")


def interrupted(folder: Path) -> float:
    """A driver that is asked to end while its nodes hang: the seconds until it has ended, whole."""
    hanging = Path(environments(folder)["killed"])
    os.environ[OURS] = str(folder)
    child = begin("check", "--local", 2, "--level", 1, "--python", hanging)
    asked = Path(f"{hanging}.asked")
    until(lambda: asked.exists() or child.poll() is not None)
    began = time.monotonic()
    child.terminate()
    _, err = child.communicate(timeout=AT_MOST)
    assert child.returncode == 130, err
    until(lambda: not at_work(folder))
    return time.monotonic() - began


def shown(name: str, began: float, answer: Answer) -> dict[str, Any]:
    """A part of the lab on the terminal, and as a row of its results."""
    code, said, told = answer
    seconds = time.monotonic() - began
    print(f"== {name}: exit {code} in {seconds:.0f} s\n{told}")
    sys.stdout.flush()
    rows = said.get("parts") or said["slots"]
    kept = {key: said[key] for key in said if key.startswith("done_")}
    states = [{n: row[n] for n in ("state", "exit", "pictures") if n in row} for row in rows]
    return {"part": name, "exit": code, "seconds": round(seconds), "nodes": states, **kept}


def troubled(folder: Path, parts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Four raylets, and one more for the pictures."""
    began = time.monotonic()
    with raylets(folder) as lab:
        answer = checked(lab)
        row = shown("check", began, answer)
        judge(*answer, lab)
        until(lambda: not at_work(lab.folder))  # nothing that was started there is left
        yield row
        if "render" in parts:
            began = time.monotonic()
            answer = rendered(lab)
            row = shown("render", began, answer)
            judge_render(*answer[:2], folder)
            yield row


def tried(folder: Path) -> Iterator[dict[str, Any]]:
    began = time.monotonic()
    for act, answer in local(folder):
        row = shown(f"{act} --local 2", began, answer)
        judge_local(act, *answer[:2], folder)
        yield row
        began = time.monotonic()
    seconds = interrupted(folder)
    print(f"== interrupted: exit 130 after {seconds:.0f} s\n", flush=True)
    yield {"part": "check --local 2, interrupted", "exit": 130, "seconds": round(seconds)}


def whole(folder: Path, parts: Sequence[str]) -> Iterator[dict[str, Any]]:
    if {"check", "render"} & set(parts):
        (folder / "lab").mkdir()
        yield from troubled(folder / "lab", parts)
    if "local" in parts:
        (folder / "local").mkdir()
        yield from tried(folder / "local")


def keep(row: dict[str, Any], out: Path | None) -> None:
    """A part that was judged right, into the file of results, beside the others that are there."""
    if out is None:
        return
    there = json.loads(out.read_text("utf-8"))["parts"] if out.exists() else []
    when = {"date": time.strftime("%Y-%m-%d"), "commit": COMMIT, "load": round(os.getloadavg()[0])}
    told = {
        "command": "python -m tests.lab.fleet --out tests/lab/fleet.json",
        "machine": {"system": platform.platform(), "processors": os.cpu_count()},
        "parts": [one for one in there if one["part"] != row["part"]] + [row | when],
    }
    out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("parts", nargs="*", default=PARTS, metavar="PART", help=", ".join(PARTS))
    options.add_argument("--out", type=Path, help="the results, as JSON")
    options.add_argument("--pages", type=Path, help="a folder for the pages that it made")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp") as name:
        for row in whole(Path(name), asked.parts):
            keep(row, asked.out)
        if asked.pages:
            asked.pages.mkdir(parents=True, exist_ok=True)
            for page in Path(name).glob("*/*.html"):
                shutil.copy(page, asked.pages)
    print("all right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
