"""What was found: the verdict, the interpreter, findings with evidence and cure, packages."""

from collections.abc import Iterator, Mapping
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from doctor import report
from doctor.facts import Facts, NotKnown
from doctor.page.markup import (
    both,
    code,
    folded,
    items,
    phrased,
    plainly,
    said,
    section,
    table,
    tag,
    terms,
)
from doctor.words import LANGUAGES

Report = Mapping[str, Any]
STATES = {
    "passed": "✓",
    "failed": "✗",
    "not judged": "?",
    "error": "✗",
    "warning": "!",
    "info": "·",
}
KINDS = {"passed": "good", "failed": "bad", "error": "bad", "warning": "warn"}


def mark(state: str) -> str:
    """A state as a sign and a word: colour never says it alone."""
    sign = f'<b aria-hidden="true">{STATES[state]}</b>'
    return tag(
        "span",
        f"{sign} {both('html-' + state.replace(' ', '-'))}",
        f"mark {KINDS.get(state, 'calm')}",
    )


def verdict(run: Report) -> str:
    """passed, failed, or not judged: what the whole run came to."""
    errors = any(f["severity"] == "error" for f in run["findings"])
    if not run["verify"] or not run["render"]:
        return "failed" if errors else "not judged"
    return "passed" if run["verify"]["passed"] and run["render"]["finite"] else "failed"


def summary(run: Report, facts: Facts) -> str:
    state = verdict(run)
    why = f"html-{'proved' if run['verify'] else 'unproved'}-{state.replace(' ', '-')}"
    counts = {
        word: sum(f["severity"] == word for f in run["findings"])
        for word in ("error", "warning", "info")
    }
    found = both("html-counts", **counts)
    rows = {lang: dict(report.first_rows(facts, lang)) for lang in LANGUAGES}
    labels = zip(*(rows[lang].items() for lang in LANGUAGES), strict=True)
    told = (
        (said(dict(zip(LANGUAGES, (n for n, _ in pair), strict=True))),
         said(dict(zip(LANGUAGES, (v for _, v in pair), strict=True))))
        for pair in labels
    )  # fmt: skip
    head = f'<p class="verdict {KINDS.get(state, "calm")}">{mark(state)} {both(why)}</p>'
    return section("summary", head + tag("p", found) + terms(told))


def findings(run: Report) -> str:
    """Worst first, as they come."""
    told = "".join(map(finding, run["findings"]))
    return section("findings", (told or tag("p", both("html-none"))) + unjudged(run))


def unjudged(run: Report) -> str:
    rows = items(f"{code(row['id'])}: {phrased(row['why'])}" for row in run.get("not_judged", ()))
    return folded(both("html-unjudged"), rows) if rows else ""


def finding(row: Mapping[str, Any], where: str = "") -> str:
    """One finding: what is wrong, where (HTML), because of what, and what to do."""
    told = row.get("told") or dict.fromkeys(LANGUAGES, row)
    title = said({lang: told[lang]["title"] for lang in LANGUAGES})
    advice = said({lang: told[lang]["advice"] for lang in LANGUAGES})
    because = items(map(phrased, row["because"]))
    commands = "".join(f'<pre tabindex="0">{code(command)}</pre>' for command in row["commands"])
    parts = [
        f"<h3>{mark(row['severity'])} {title}</h3>",
        tag("p", code(row["id"]), "faint"),
        where,
        tag("h4", both("because")) + because if because else "",
        tag("h4", both("do")) + tag("p", advice) + commands,
    ]
    return tag("article", "".join(parts), KINDS.get(row["severity"], "calm"))


FIRST = (
    "torch",
    "torchvision",
    "torchaudio",
    "numpy",
    "safetensors",
    "xformers",
    "triton",
    "pillow",
)


def packages(facts: Facts) -> str:
    """Which interpreter, where its packages lie, and who needs whom."""
    try:
        there = dict(facts.packages)
    except (NotKnown, TypeError):
        return ""
    rows = list(interpreter(facts))
    order = [name for name in FIRST if name in there]
    order += sorted(there.keys() - set(order))
    needed = wanted_by(there)
    lines = (
        [code(n), code(there[n].version), code(", ".join(needed.get(n, ())) or "–")] for n in order
    )
    heads = [both(f"html-{name}") for name in ("package", "version", "needed-by")]
    count = both("html-packages-all", count=len(there))
    listed = folded(
        count, table(count, heads, lines, plainly("html-packages-all", count=len(there)))
    )
    return section("packages", terms(rows) + listed)


def interpreter(facts: Facts) -> Iterator[tuple[str, str]]:
    python = facts.python
    for name in ("executable", "prefix", "base_prefix", "site"):
        try:
            yield both(f"html-{name}".replace("_", "-")), code(getattr(python, name))
        except NotKnown:
            continue
    if facts.target.others:
        yield both("html-others"), items(map(code, facts.target.others))


def wanted_by(there: Mapping[str, Any]) -> dict[str, list[str]]:
    """Package -> who requires it, leaving out what only an extra asks for."""
    found: dict[str, list[str]] = {}
    for name, package in sorted(there.items()):
        for wish in package.requires:
            needed = required(wish)
            if needed and name not in found.setdefault(needed, []):
                found[needed].append(name)
    return found


def required(wish: str) -> str:
    """The name in a Requires-Dist; empty where only an extra asks for it, or nobody can read it."""
    try:
        read = Requirement(wish)
    except InvalidRequirement:
        return ""
    return "" if read.marker and "extra" in str(read.marker) else canonicalize_name(read.name)


def treatment(run: Report) -> str:
    """What was planned, what was done, and what differs since."""
    fix = run["fix"]
    if not fix or not (fix.get("plan") or fix.get("refused")):
        return ""
    plan = "".join(map(planned, fix["plan"]))
    cured = (
        tag("p", both("html-cured") + " " + ", ".join(map(code, fix["cured"])))
        if fix["cured"]
        else ""
    )
    failed = items(f"{code(name)}: {phrased(why)}" for name, why in fix["rolled_back"].items())
    failed = tag("p", both("html-rolled-back")) + failed if failed else ""
    return section("treatment", plan + cured + failed + changed(run))


def planned(row: Mapping[str, Any]) -> str:
    why = tag("p", phrased(row["refused"])) if row.get("refused") else ""
    steps = "".join(tag("li", code(step)) for step in row["steps"])
    return f"<h3>{code(row['fix'])}</h3>{why}" + (tag("ol", steps) if steps else "")


def changed(run: Report) -> str:
    """Packages and findings before and after, only where they differ."""
    before = run["fix"].get("before")
    if not before:
        return ""
    now = {f["id"] for f in run["findings"]}
    rows = [
        [code(id), mark(severity), "–" if id not in now else mark(severity)]
        for id, severity in before["findings"].items()
    ]
    now_there = run["facts"].get("packages", {})
    old, new = versions(before["packages"]), versions(now_there)
    rows += [
        [code(name), code(old.get(name, "–")), code(new.get(name, "–"))]
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if not rows:
        return ""
    heads = [both("html-what"), both("html-before"), both("html-after")]
    return table(both("html-changed"), heads, rows, plainly("html-changed"))


def versions(packages: Mapping[str, Any]) -> dict[str, str]:
    """Of packages as report.json has them; none of those that nobody could look at."""
    found = {name: row for name, row in packages.items() if isinstance(row, dict)}
    return {name: str(row.get("version", "")) for name, row in found.items()}
