"""Cluster: Ray, and nothing of what is asked over it.

Nothing is sent to Ray's makers (RAY_USAGE_STATS_ENABLED=0); what Ray prints is kept off stdout.
"""

import io
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from doctor.facts import Refusal
from doctor.fleet import hand
from doctor.fleet.places import CRASHED, DEAD, Lost, Node, Reply, Slot, Work, named_apart
from doctor.words import refused

STORE = 80 << 20  # bytes of object store of a node that was started here to try it
QUICK = {  # of a cluster started here: a node that died is known within seconds, a busy one lives
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 5,
    "health_check_timeout_ms": 10_000,
    "health_check_initial_delay_ms": 5000,
}
KEPT = {  # Ray leaves these variables alone: which card a child sees is said by `hand`
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
    "RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES": "1",
    "RAY_EXPERIMENTAL_NOSET_ROCR_VISIBLE_DEVICES": "1",
}


class NoCluster(Refusal):
    """Ray is not installed, or no cluster answers."""


def library(loopback: bool) -> Any:
    """Ray, imported when a fleet is asked for; NoCluster with the command where it is missing."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # of raylets started here; Ray's own is 15
    if loopback:  # the switch of Windows and macOS: Ray's own addresses are of this machine alone
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError as error:
        python = sys.executable
        raise refused(NoCluster, "fleet-no-ray", python=python, why=error) from error
    return ray


def own(address: str) -> bool:
    """Is it a cluster that listens on this machine's loopback alone?"""
    said = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    return said.startswith(("127.", "localhost:"))


class RayCluster:
    """One connection; the questions of places.Cluster."""

    def __init__(self, ray: Any, python: str, cpus: float = 0) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.ray, self.python, self.cpus = ray, python, cpus
        self.pinned = NodeAffinitySchedulingStrategy
        self.task = ray.remote(part)

    def nodes(self) -> list[Node]:
        rows = [row for row in self.ray.nodes() if row["Alive"]]
        found = sorted(map(node, rows), key=lambda one: (one.name, one.id))
        return named_apart(found)

    def start(self, slot: Slot, work: Work) -> object:
        task = self.task.options(
            name=f"comfy-doctor {work.key}",
            num_cpus=self.cpus if slot.gpu is None else 0,
            num_gpus=0 if slot.gpu is None else 1,
            max_retries=0,  # rounds decide about that, and say so
            scheduling_strategy=self.pinned(node_id=slot.node.id, soft=False),
        )
        return task.remote(work, self.python)

    def ended(self, handles: Sequence[object], seconds: float) -> Sequence[object]:
        done, _ = self.ray.wait(list(handles), num_returns=1, timeout=seconds)
        more, _ = self.ray.wait(list(handles), num_returns=len(handles), timeout=0)
        return list(dict.fromkeys([*done, *more]))

    def result(self, handle: object) -> Reply | Lost:
        from ray import exceptions

        try:
            reply: Reply = self.ray.get(handle)
            return reply
        except (exceptions.NodeDiedError, exceptions.TaskUnschedulableError):
            return Lost(DEAD, "the node died")
        except exceptions.RayError as error:
            return Lost(CRASHED, first_line(error))

    def cancel(self, handle: object) -> None:
        with suppress(Exception):  # it is over already, or its node is
            self.ray.cancel(handle, force=False)

    def dead(self, node: Node) -> bool:
        return not any(row["NodeID"] == node.id and row["Alive"] for row in self.ray.nodes())


def part(work: Work, python: str) -> Reply:
    """What runs in a worker of Ray."""
    import ray

    return hand.serve(work, python, [str(one) for one in ray.get_gpu_ids()])


def node(row: Mapping[str, Any]) -> Node:
    has = row["Resources"]
    kinds = [n.partition(":")[2] for n in has if n.startswith("accelerator_type:")]
    return Node(
        row["NodeID"],
        row["NodeManagerHostname"] or row["NodeManagerAddress"],
        row["NodeManagerAddress"],
        int(has.get("CPU", 0)),
        int(has.get("GPU", 0)),
        ", ".join(kinds),
    )


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]


@contextmanager
def joined(address: str, local: int, parcel: Path, python: str) -> Iterator[RayCluster]:
    """A cluster that is there, or one of so many nodes on this machine, gone again afterwards."""
    with ExitStack() as stack:
        ray = library(loopback=bool(local) or own(address))
        stack.enter_context(quiet())
        if local:
            address = stack.enter_context(started(local))
        env = {"working_dir": str(parcel), "env_vars": KEPT}
        with own_signals():
            try:
                ray.init(address, runtime_env=env, log_to_driver=False, logging_level="CRITICAL")
            except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
                raise refused(
                    NoCluster, "fleet-no-cluster", address=address, why=first_line(error)
                ) from error
        stack.callback(ray.shutdown)
        yield RayCluster(ray, python)


@contextmanager
def started(count: int) -> Iterator[str]:
    """So many raylets on this machine, reached over loopback alone; their address."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="cd-ray-")  # short: sockets lie in it, and their names are
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder
    cluster = Cluster()
    one: dict[str, Any] = {
        "num_cpus": 1,
        "include_dashboard": False,
        "node_ip_address": "127.0.0.1",
        "object_store_memory": STORE,
    }
    try:
        for n in range(count):
            quick: dict[str, Any] = {} if n else {"_system_config": QUICK}
            raylet(cluster, **one, **quick)
        yield cluster.address
    finally:
        with suppress(AssertionError):  # "there are zombie processes": the reaper has them
            cluster.shutdown()  # type: ignore[no-untyped-call]
        os.environ.pop("RAY_TMPDIR")
        os.environ.update({"RAY_TMPDIR": before} if before else {})
        shutil.rmtree(folder, ignore_errors=True)


def raylet(cluster: Any, tries: int = 3, **how: Any) -> Any:
    """One more node, with a folder of its own for what travels: raylets of one machine share one
    else, and each empties and fills it under the hands of the others (Ray 2.60, working_dir.py).

    Ray gives a raylet 30 s to be there, which a busy machine may not have.
    """
    count = len(cluster.list_all_nodes())
    if count:  # the first one's is where the driver packs
        how["runtime_env_dir_name"] = f"runtime_resources{count}"
    for left in reversed(range(tries)):
        try:
            with own_signals():
                return cluster.add_node(**how)
        except Exception as error:
            if "timed out" not in str(error):
                raise
            if not left:
                raise refused(NoCluster, "fleet-no-start", tries=tries) from error
    raise AssertionError


@contextmanager
def quiet() -> Iterator[None]:
    """What Ray says on stdout and by logging is not what was asked for."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    with redirect_stdout(io.StringIO()):
        yield


@contextmanager
def own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself, to drain a node with all the time in the world; it stays an
    interruption of ours."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
