"""Run the checks. One that cannot judge, or crashes, says so; silence means healthy."""

from collections.abc import Collection, Iterator
from dataclasses import replace

from doctor import checks  # noqa: F401  (importing a subject registers its checks)
from doctor.check import CHECKS, Check, subject
from doctor.facts import Facts, NotKnown
from doctor.finding import Diagnosis, Finding, NotJudged

# A subject that decides whether ComfyUI starts or renders: unjudged, the whole is unjudged.
ESSENTIAL = frozenset({"python", "torch", "packages", "gpu"})


def diagnose(facts: Facts, only: Collection[str] = (), ignore: Collection[str] = ()) -> Diagnosis:
    """All findings, worst first. `only` and `ignore` name ids; what is ignored stays visible."""
    found: list[Finding] = []
    unjudged: list[NotJudged] = []
    for id, check in CHECKS.items():
        if only and id not in only:
            continue
        for said in judge(id, check, facts):
            if isinstance(said, Finding):
                found.append(replace(said, id=id))
            else:
                unjudged.append(said)
    found.sort(key=lambda finding: -finding.severity)
    return Diagnosis(
        findings=tuple(f for f in found if f.id not in ignore),
        not_judged=tuple(n for n in unjudged if n.id not in ignore),
        ignored=tuple(f for f in found if f.id in ignore),
        asked=tuple(id for id in CHECKS if not only or id in only),
    )


def judge(id: str, check: Check, facts: Facts) -> Iterator[Finding | NotJudged]:
    try:
        yield from check(facts)
    except NotKnown as missing:
        yield NotJudged(id, str(missing), missing.skipped)
    except Exception as bug:  # noqa: BLE001  (a broken check must not hide the others)
        yield NotJudged(id, f"the check itself failed: {bug!r}")


def verdict(diagnosis: Diagnosis) -> int:
    """The exit code: 1 errors, 4 something essential could not be judged, else 0."""
    if diagnosis.errors:
        return 1
    lost = (n for n in diagnosis.not_judged if not n.skipped)
    return 4 if any(n.id not in CHECKS or subject(n.id) in ESSENTIAL for n in lost) else 0
