"""Monitor: a verdict as programs that watch servers read it. Pure: JUnit XML, Prometheus text.

JUnit as Jenkins, GitLab and GitHub's report actions take it; metrics in the text format of
https://prometheus.io/docs/instrumenting/exposition_formats/, for the textfile collector.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

PREFIX = "comfy_doctor"


@dataclass(frozen=True)
class Case:
    """One question, and what came of it: passed, failed, not judged."""

    name: str
    verdict: str
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Sample:
    """One number. Labels become part of its name."""

    name: str  # without the prefix: "healthy"
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def junit(suite: str, cases: Sequence[Case], seconds: float) -> str:
    """One <testsuite>; what was not judged is skipped, with its reason."""
    counts = {"tests": len(cases), "failures": count(cases, "failed")}
    counts |= {"skipped": count(cases, "not judged"), "errors": 0}
    attributes = {"name": suite, "time": f"{seconds:.3f}"}
    attributes |= {name: str(number) for name, number in counts.items()}
    root = ElementTree.Element("testsuites")
    inside = ElementTree.SubElement(root, "testsuite", attributes)
    for case in cases:
        told = {"name": clean(case.name), "classname": suite, "time": f"{case.seconds:.3f}"}
        row = ElementTree.SubElement(inside, "testcase", told)
        if case.verdict == "failed":
            first = clean(case.why).partition("\n")[0][:300]
            ElementTree.SubElement(row, "failure", {"message": first}).text = clean(case.why)
        elif case.verdict == "not judged":
            ElementTree.SubElement(row, "skipped", {"message": clean(case.why)[:300]})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def count(cases: Sequence[Case], verdict: str) -> int:
    return sum(case.verdict == verdict for case in cases)


def clean(text: str) -> str:
    """Without the characters that XML 1.0 does not have."""
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "\ufffd", text)


HELP = {
    "healthy": "1 where no error was found, or the server renders as it should",
    "findings": "findings by severity",
    "finding": "1 for each finding there is",
    "gate": "1 passed, 0 failed; absent where it was not judged",
    "seconds": "seconds that a stage took",
    "steps_per_second": "sampler steps per second",
    "memory_bytes": "memory, as the server tells it",
    "info": "versions, as labels",
    "run_timestamp_seconds": "when this was judged",
}


def metrics(samples: Sequence[Sample]) -> str:
    """Prometheus text: each name once with its help, a NaN or an infinity left out."""
    return "".join(f"{line}\n" for line in lines(samples))


def lines(samples: Sequence[Sample]) -> Iterator[str]:
    for name in dict.fromkeys(sample.name for sample in samples):
        rows = [s for s in samples if s.name == name and math.isfinite(s.value)]
        if rows:
            yield f"# HELP {PREFIX}_{name} {HELP[name]}"
            yield f"# TYPE {PREFIX}_{name} gauge"
        for row in rows:
            labels = ",".join(f'{key}="{escaped(value)}"' for key, value in row.labels.items())
            yield f"{PREFIX}_{name}{{{labels}}} {row.value:.15g}"


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
