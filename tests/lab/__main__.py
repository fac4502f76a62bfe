"""Build every installation of the lab, judge it, and say what came of it.

python -m tests.lab [NAME ...] [--quick] [--no-fixes] [--jobs N] [--out tests/lab/results.json]

NAME picks cases (a part of a name will do). Each is built in a temporary folder (--folder), looked
at by the installed comfy-doctor from outside, cured and undone where a fix is promised, and
removed. Exit code 1 if anything is not as it must be. What this machine cannot build is skipped,
aloud. A results file that is there already keeps what it holds of the cases that are not run; the
command in it is that of the last run.
"""

import argparse
import json
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.lab.installation import CASES, make_base
from tests.lab.judge import Verdict, one


def options() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    words.add_argument("names", nargs="*", metavar="NAME")
    words.add_argument("--quick", action="store_true", help="the share that runs in the suite")
    words.add_argument("--no-fixes", action="store_true", help="only look")
    words.add_argument("--jobs", type=int, default=1, help="so many at the same time")
    words.add_argument("--out", type=Path, help="a results file")
    words.add_argument("--folder", type=Path, help="where the installations are built")
    return words.parse_args()


RAW = argparse.RawDescriptionHelpFormatter


def chosen(asked: argparse.Namespace) -> list[str]:
    names = [n for n, case in CASES.items() if case.quick or not asked.quick]
    wanted = [word.replace("_", "-") for word in asked.names]
    return [n for n in names if not wanted or any(word in n for word in wanted)]


def row(verdict: Verdict) -> str:
    mark = "-" if verdict.skipped else "✓" if verdict.well else "✗"
    said = verdict.skipped or "; ".join(verdict.wrong) or verdict.fix or ", ".join(verdict.found)
    return f"{mark} {verdict.name:<46} {verdict.owed or 'healthy':<28} {said}"


def summary(verdicts: Sequence[Verdict]) -> str:
    broken = [v for v in verdicts if v.owed and not v.skipped]
    well = [v for v in verdicts if not v.owed and not v.skipped]
    fixed = [v for v in broken if v.fix == "cured, undone"]
    return (
        f"{sum(v.well for v in broken)} of {len(broken)} broken installations named rightly,"
        f" {sum(v.well for v in well)} of {len(well)} healthy ones left alone,"
        f" {len(fixed)} cured and undone, {sum(bool(v.skipped) for v in verdicts)} skipped"
    )


def read_results(path: Path | None) -> Mapping[str, Any]:
    there: dict[str, Any] = json.loads(path.read_text("utf-8")) if path and path.exists() else {}
    return there


def results(verdicts: Sequence[Verdict], before: Mapping[str, Any]) -> dict[str, object]:
    """The file's new content: of each case when, by which commit and in how long it was judged."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    when = {"date": time.strftime("%Y-%m-%d"), "commit": commit.stdout.strip()[:12]}
    cases = {case["name"]: case for case in before.get("cases", ()) if case["name"] in CASES}
    for v in verdicts:
        own = {"seconds": round(v.seconds, 2), "stand_in": CASES[v.name].stand_in}
        cases[v.name] = asdict(v) | own | when
    kept = [cases[name] for name in CASES if name in cases]
    fields = [{f: c[f] for f in Verdict.__dataclass_fields__} for c in kept]
    return {
        "command": shlex.join(["python", "-m", "tests.lab", *sys.argv[1:]]),
        "machine": {"system": platform.platform(), "python": platform.python_version()},
        "summary": summary([Verdict(**one) for one in fields]),
        "cases": kept,
    }


def judged(names: Sequence[str], asked: argparse.Namespace) -> Iterator[Verdict]:
    """Each as soon as it is judged; the rest is dropped where somebody interrupts."""
    with (
        tempfile.TemporaryDirectory(dir=asked.folder, prefix="lab-") as folder,
        ThreadPoolExecutor(asked.jobs) as pool,
    ):
        base = make_base(Path(folder, "base"))
        fixes = not asked.no_fixes
        under_way = [pool.submit(one, name, Path(folder), base, fixes) for name in names]
        try:
            yield from (done.result() for done in as_completed(under_way))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def main() -> int:
    asked = options()
    names, verdicts = chosen(asked), []
    before = read_results(asked.out)
    for verdict in judged(names, asked):
        verdicts.append(verdict)
        sys.stderr.write("\r\033[K")
        sys.stdout.write(row(verdict) + "\n")
        sys.stdout.flush()
        sys.stderr.write(f"{len(verdicts)} of {len(names)}")
        sys.stderr.flush()
        if asked.out:  # after each, so that a run that is cut short keeps what it has
            told = json.dumps(results(verdicts, before), indent=2, ensure_ascii=False)
            asked.out.write_text(told + "\n", encoding="utf-8")
    verdicts.sort(key=lambda verdict: names.index(verdict.name))
    sys.stderr.write("\r\033[K")
    sys.stdout.write(f"{summary(verdicts)}\n")
    return 0 if all(v.well for v in verdicts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
