"""What was proved: the picture, the gates with their figures, the timing, and the runs before."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan
from statistics import median
from typing import Any

from doctor.page.markup import (
    both,
    code,
    folded,
    phrased,
    plainly,
    safe,
    section,
    table,
    tag,
    terms,
)
from doctor.page.patient import Report, mark, verdict


@dataclass(frozen=True)
class Pictures:
    """PNG files of one run, as bytes; empty where there is none."""

    before: bytes = b""
    after: bytes = b""
    steps: tuple[bytes, ...] = ()


def uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image(data: bytes, alt: str) -> str:
    return f'<img src="{uri("image/png", data)}" alt="{alt}">'


def size(png: bytes) -> tuple[int, int]:
    """Width and height, from the header. (RFC 2083, 4.1.1)"""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def figure(data: bytes, key: str, **values: object) -> str:
    wide, high = size(data)
    told = f"{both(key, **values)} <small>{wide} × {high}</small>"
    return f"<figure>{image(data, plainly(key, **values))}<figcaption>{told}</figcaption></figure>"


def render(run: Report, pictures: Pictures) -> str:
    done = run["render"]
    if not done:
        return ""
    pair = ((pictures.before, "html-input"), (pictures.after, "html-output"))
    shown = tag("div", "".join(figure(data, key) for data, key in pair if data), "pair")
    asked = tag("p", code(done["recipe"].get("positive", "")))
    parts = [asked, shown, slider(pictures), strip(pictures)]
    if not done["finite"]:
        parts.insert(0, tag("p", f"{mark('failed')} {both('html-not-finite')}"))
    if str(done["checkpoint"]).startswith("synthetic"):
        parts.append(tag("p", both("html-noise"), "faint"))
    parts += [tag("p", phrased(note)) for note in done["notes"]]
    parts.append(folded(both("html-settings"), terms(settings(done))))
    return section("render", "".join(parts))


def slider(pictures: Pictures) -> str:
    """Both pictures on one place; the edge between them is moved by hand. For the eye alone: the
    same stands side by side above."""
    if not pictures.before or size(pictures.before) != size(pictures.after):
        return ""
    below = f'<img src="{uri("image/png", pictures.after)}" alt="">'
    above = f'<img src="{uri("image/png", pictures.before)}" alt="">'
    drawn = f'<div class="slider" aria-hidden="true">{below}<div>{above}</div></div>'
    return folded(both("html-slider"), drawn)


def strip(pictures: Pictures) -> str:
    count = len(pictures.steps)
    told = (
        f"<figure>{image(data, plainly('html-step', n=n, of=count))}"
        f"<figcaption>{n}</figcaption></figure>"
        for n, data in enumerate(pictures.steps, 1)
    )
    if not count:
        return ""
    return f"<h3>{both('html-steps')}</h3>" + tag("div", "".join(told), "strip")


def settings(done: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("checkpoint", "device", "dtype", "threads"):
        yield code(name), code(done[name])
    for name, value in done["recipe"].items():
        if value not in (None, ""):
            yield code(name), code(value)
    spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in done["seconds"].items())
    yield both("html-seconds"), code(spent)
    yield code("sha256"), code(done["sha256"]["output"])


def ladder(run: Report) -> str:
    """Every gate with figure and bound, the failed ones first, then by how much of its bound it
    takes; the many samplers that passed are folded away."""
    if not run["verify"]:
        return ""
    gates = sorted(run["verify"]["gates"], key=by_trouble)
    good = [g for g in gates if g["name"].startswith("sampler ") and g["verdict"] == "passed"]
    count = {"passed": sum(g["verdict"] == "passed" for g in gates), "all": len(gates)}
    told = tag("p", both("html-ladder-text"))
    told += gate_table([g for g in gates if g not in good], "html-gates", **count)
    if good:
        line = both("html-samplers", count=len(good))
        told += folded(line, gate_table(good, "html-samplers", count=len(good)))
    return section("ladder", told)


ORDER = ("failed", "not judged", "passed")


def by_trouble(gate: Mapping[str, Any]) -> tuple[int, float]:
    whole = part(gate["figure"], gate["bound"])
    return ORDER.index(gate["verdict"]), -(0 if isnan(whole) else whole)


def gate_table(gates: Sequence[Mapping[str, Any]], key: str, **values: object) -> str:
    names = ("gate", "figure", "bound", "share", "verdict", "why")
    rows = (
        [
            code(gate["name"]),
            number(gate["figure"]),
            number(gate["bound"]),
            share(gate["figure"], gate["bound"]),
            mark(gate["verdict"]),
            phrased(gate["why"]),
        ]
        for gate in gates
    )
    heads = [both(f"html-{name}") for name in names]
    return table(both(key, **values), heads, rows, plainly(key, **values))


def number(figure: float | str | None) -> str:
    return "–" if figure is None else safe(figure if isinstance(figure, str) else f"{figure:.2g}")


def part(figure: float | str | None, bound: float | None) -> float:
    """Which part of its bound a figure takes; nan where there is no such part."""
    try:
        return float(figure) / float(bound)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return nan


def share(figure: float | str | None, bound: float | None) -> str:
    """The same as a bar with the number beside it."""
    whole = part(figure, bound)
    if not isfinite(whole):
        return "–"
    width = min(100.0, 100 * whole)
    told = f"{100 * whole:.0f} %" if whole >= 0.1 else f"{100 * whole:.1f} %"
    return f'<span class="bar"><i style="width:{width:.0f}%"></i></span> {told}'


def earlier(run: Report, before: Sequence[Report]) -> str:
    """This run among those of the same installation, newest first."""
    if not before:
        return ""
    rows = [line(one, run) for one in (run, *before)]
    names = ("when", "verdict", "gates-passed", "rate-short", "against", "same-picture")
    heads = [both(f"html-{name}") for name in names]
    drawn = table(both("html-runs"), heads, rows, plainly("html-runs"))
    return section("earlier", drawn)


def line(one: Report, run: Report) -> list[str]:
    gates = one["verify"]["gates"] if one["verify"] else []
    passed = sum(gate["verdict"] == "passed" for gate in gates)
    rate = one["bench"]["steps_per_second"] if one["bench"] else None
    return [
        code(one.get("when", "–")),
        mark(verdict(one)),
        f"{passed}/{len(gates)}" if gates else "–",
        "–" if rate is None else f"{rate:.2f}",
        against(one, run),
        same_picture(one, run),
    ]


def against(one: Report, run: Report) -> str:
    """How fast a run was beside this one; only where machine and settings were the same."""
    if one is run or not one["bench"] or not run["bench"]:
        return "–"
    if any(one["bench"][part] != run["bench"][part] for part in ("machine", "settings")):
        return both("html-not-comparable")
    return f"{run['bench']['median'] / median(one['bench']['seconds']):.2f} ×"


def same_picture(one: Report, run: Report) -> str:
    if one is run or not one["render"] or not run["render"]:
        return "–"
    if one["render"]["recipe"] != run["render"]["recipe"]:
        return both("html-not-comparable")
    same = one["render"]["sha256"]["output"] == run["render"]["sha256"]["output"]
    return both("html-yes" if same else "html-no")


def raw(run: Report) -> str:
    data = json.dumps(run, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace")
    link = f'<a download="report.json" href="{uri("application/json", data)}">report.json</a>'
    return section("raw", tag("p", f"{link} ({len(data) / 1000:.0f} kB): {both('html-raw-text')}"))
