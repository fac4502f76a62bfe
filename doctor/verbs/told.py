"""told: --junit and --metrics of check and smoke, for programs that watch servers."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from doctor import monitor
from doctor.facts import Facts, NotKnown
from doctor.finding import Diagnosis, Severity
from doctor.monitor import Case, Sample
from doctor.step import Write
from doctor.verbs.patient import Args
from doctor.words import told


def write(args: Args, suite: str, cases: Sequence[Case], samples: Sequence[Sample]) -> None:
    """Each file whole or not at all: a collector may read at any time."""
    if args.junit:
        whole(args.junit, monitor.junit(suite, cases, sum(case.seconds for case in cases)))
    if args.metrics:
        when = Sample("run_timestamp_seconds", time.time(), {"command": suite.split()[-1]})
        whole(args.metrics, monitor.metrics([*samples, when]))


def whole(path: str, text: str) -> None:
    Write(str(Path(path).expanduser()), text).do(lambda what: None)


def of_check(
    args: Args, diagnosis: Diagnosis, facts: Facts, rows: Sequence[Mapping[str, Any]]
) -> None:
    """rows: what level 3 tried, as name, verdict, seconds, why."""
    found = {f.id: f for f in diagnosis.findings}
    silent = {n.id: n.why for n in diagnosis.not_judged}
    ids = dict.fromkeys([*diagnosis.asked, *found, *silent])
    write(
        args,
        "comfy-doctor check",
        [
            *(case(id, found, silent) for id in ids if id not in {row["name"] for row in rows}),
            *(Case(r["name"], r["verdict"], r["why"], r["seconds"]) for r in rows),
        ],
        [*of_findings(diagnosis, facts), *of_rows(rows)],
    )


def of_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[Sample]:
    for row in rows:
        yield Sample("seconds", row["seconds"], {"stage": row["name"]})
        for phase, seconds in row.get("phases", {}).items():
            yield Sample("seconds", seconds, {"stage": f"start/{phase}"})
        if "steps_per_second" in row:
            yield Sample("steps_per_second", row["steps_per_second"])


def case(id: str, found: Mapping[str, Any], silent: Mapping[str, str]) -> Case:
    finding = found.get(id)
    if finding is not None and finding.severity is Severity.ERROR:
        title = told(finding, "en").title
        return Case(id, "failed", "\n".join((title, *finding.because)))
    return Case(id, "not judged", silent[id]) if id in silent else Case(id, "passed")


def of_findings(diagnosis: Diagnosis, facts: Facts) -> Iterator[Sample]:
    yield Sample("healthy", float(not diagnosis.errors), {"command": "check"})
    for severity in Severity:
        number = sum(f.severity is severity for f in diagnosis.findings)
        yield Sample("findings", number, {"severity": severity.word})
    for finding in diagnosis.findings:
        yield Sample("finding", 1, {"id": finding.id, "severity": finding.severity.word})
    yield Sample("info", 1, versions(facts))


def versions(facts: Facts) -> dict[str, str]:
    rows: dict[str, Callable[[], object]] = {
        "python": lambda: facts.python.version,
        "torch": lambda: facts.torch.version if facts.torch else "",
        "comfyui": lambda: facts.comfyui.version if facts.comfyui else "",
        "gpu": lambda: ", ".join(gpu.name for gpu in facts.gpus),
        "driver": lambda: ", ".join(dict.fromkeys(gpu.driver for gpu in facts.gpus)),
    }
    found = {}
    for name, row in rows.items():
        try:
            found[name] = str(row())
        except NotKnown:
            found[name] = "?"
    return found


def of_smoke(
    args: Args, gates: Sequence[Any], stages: Sequence[Mapping[str, Any]], stats: Any, steps: int
) -> None:
    """gates: Gate; stages: {"name", "seconds"}; stats: /system_stats, whatever it is."""
    cases = [
        Case(g.name, g.verdict, g.why, g.figure or 0.0 if g.name == "executed" else 0.0)
        for g in gates
    ]
    good = all(g.verdict != "failed" for g in gates)
    samples = [Sample("healthy", float(good), {"command": "smoke"})]
    samples += [
        Sample("gate", float(g.verdict == "passed"), {"name": g.name})
        for g in gates
        if g.verdict != "not judged"
    ]
    samples += [Sample("seconds", row["seconds"], {"stage": row["name"]}) for row in stages]
    sampling = next((row["seconds"] for row in stages if row["name"] == "sample"), 0.0)
    samples += [Sample("steps_per_second", steps / sampling)] if sampling else []
    write(args, "comfy-doctor smoke", cases, [*samples, *of_stats(stats)])


SAID = {"comfyui": "comfyui_version", "torch": "pytorch_version", "python": "python_version"}


def of_stats(stats: Any) -> Iterator[Sample]:
    """Memory and versions, of a server that may say anything."""
    system = stats.get("system", {}) if isinstance(stats, dict) else {}
    rows = stats.get("devices") if isinstance(stats, dict) else None
    devices = rows if isinstance(rows, list) else []
    places = [("ram", system)] + [(f"device{n}", row) for n, row in enumerate(devices)]
    for place, row in places:
        for key, value in row.items() if isinstance(row, dict) else ():
            if key.endswith(("_total", "_free")) and isinstance(value, (int, float)):
                yield Sample("memory_bytes", value, {"of": place, "kind": key})
    if isinstance(system, dict):
        told = ((name, system.get(key, "?")) for name, key in SAID.items())
        yield Sample("info", 1, {name: str(value)[:80] for name, value in told})
