"""node snapshot: which packs are there, in ComfyUI-Manager's format and more; and back to that.

What Manager's file cannot say (packs from archives, unidentified folders, the core, torch) stands
under a key of our own. What cannot be brought back is said, and nothing else is lost.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from doctor import fetch, nodes, packs, report
from doctor.facts import Facts, NotKnown, Refusal
from doctor.nodes import Want
from doctor.options import BadUsage
from doctor.packs import Pack
from doctor.plan import Plan, Treatment
from doctor.screen import Screen
from doctor.tree import tree_hash
from doctor.verbs.node import Brought, Visit, brought, sweep, unedited, visited
from doctor.verbs.packs import carried_out
from doctor.verbs.patient import Args, opened
from doctor.verbs.treatment import recover
from doctor.words import refused, say, sentence

OWN, SCHEMA = "comfy-doctor", "comfy-doctor.snapshot/1"


def snapshot(args: Args, screen: Screen) -> int:
    return save(args, screen) if args.what == "save" else restore(args, screen)


def save(args: Args, screen: Screen) -> int:
    visit = visited(args, screen)
    there = packs.installed(visit.comfyui)
    written = said(visit.facts, there)
    path = Path(args.file).expanduser()
    if not args.dry_run:
        path.write_text(json.dumps(written, indent=4, sort_keys=True) + "\n", encoding="utf-8")
        screen.say("snapshot-saved", count=len(there), file=path)
    else:
        screen.lines(f"{pack.name}  {pack.source}".rstrip() for pack in there)
        screen.say("dry-run")
    screen.object({"schema": "comfy-doctor.node/1", "file": str(path), "snapshot": written})
    return 0


def said(facts: Facts, there: Sequence[Pack]) -> dict[str, Any]:
    """Manager's keys (manager_core.py, get_current_snapshot), and ours."""
    assert facts.comfyui is not None
    installed = {} if isinstance_unknown(facts) else facts.packages
    return {
        "comfyui": facts.comfyui.commit or None,
        "git_custom_nodes": {
            pack.url: {"hash": pack.commit, "disabled": pack.state == "disabled"}
            for pack in there
            if pack.kind == "git" and pack.url
        },
        "cnr_custom_nodes": {
            pack.id: pack.version
            for pack in there
            if pack.kind == "registry" and pack.state == "enabled"
        },
        "file_custom_nodes": [
            {"filename": pack.name, "disabled": pack.state == "disabled"}
            for pack in there
            if pack.kind == "file"
        ],
        "pips": {f"{name}=={one.version}": "" for name, one in sorted(installed.items())},
        OWN: {
            "schema": SCHEMA,
            "core": {"version": facts.comfyui.version, "commit": facts.comfyui.commit},
            "python": known(lambda: facts.python.version),
            "torch": known(lambda: facts.torch.version if facts.torch else ""),
            "packs": [row(pack) for pack in there],
        },
    }


def isinstance_unknown(facts: Facts) -> bool:
    return known(lambda: str(len(facts.packages))) == ""


def known(fact: Any) -> str:
    try:
        return str(fact())
    except NotKnown:
        return ""


def row(pack: Pack) -> dict[str, str]:
    """A pack without its place on this machine; with git's hash of what lies in it now."""
    own = {name: value for name, value in asdict(pack).items() if name != "path"}
    return own | {"tree": tree_hash(Path(pack.path)) if Path(pack.path).is_dir() else ""}


@dataclass(frozen=True)
class Wanted:
    """One row of a snapshot, ours or Manager's."""

    name: str
    kind: str
    state: str = "enabled"
    id: str = ""
    version: str = ""
    url: str = ""
    commit: str = ""

    def same(self, pack: Pack) -> bool:
        """Is this that pack, whatever its version."""
        if self.id and self.kind == "registry":
            return pack.id.lower() == self.id.lower()
        if self.url:
            return plain(pack.url) == plain(self.url)
        return pack.name == self.name

    @property
    def word(self) -> str:
        return self.name or self.id or self.url


def plain(url: str) -> str:
    return url.lower().rstrip("/").removesuffix(".git")


def wanted(data: Mapping[str, Any]) -> Iterator[Wanted]:
    names = tuple(Wanted.__dataclass_fields__)
    if OWN in data:
        for one in data[OWN]["packs"]:
            yield Wanted(**{name: str(one.get(name, "")) for name in names})
        return
    for url, one in data.get("git_custom_nodes", {}).items():
        state = "disabled" if one.get("disabled") else "enabled"
        yield Wanted("", "git", state, url=url, commit=one.get("hash") or "")
    for id, version in data.get("cnr_custom_nodes", {}).items():
        yield Wanted("", "registry", id=id, version=version)
    for one in data.get("file_custom_nodes", []):
        state = "disabled" if one.get("disabled") else "enabled"
        yield Wanted(one["filename"], "file", state)


def read(path: Path) -> tuple[Mapping[str, Any], list[Wanted]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return data, list(wanted(data))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise refused(BadUsage, "snapshot-none", file=path, why=repr(error)) from error


def restore(args: Args, screen: Screen) -> int:
    """Missing ones fetched, others to their commit, then each enabled or put aside as it was."""
    data, rows = read(Path(args.file).expanduser())
    visit = visited(args, screen)
    wants, left = difference(visit, rows)
    left += others(data, visit.facts, screen.lang)
    done = Brought()
    if wants:
        with opened(args, visit.facts.target) as book:
            recover(screen, book)
            sweep(visit, book)
            done = brought(visit, book, wants)
    plan = Plan(tuple(states(visit, rows)))
    outcome = carried_out(visit, plan)
    if not (wants or plan.treatments or left):
        screen.say("snapshot-same")
    for what in left:
        screen.say("snapshot-left", what=what)
    failed = visit.failed | dict(outcome.failed)
    screen.object(
        {
            "schema": "comfy-doctor.node/1",
            "plan": [*report.plan_json(done.plan), *report.plan_json(plan)],
            "receipts": [*done.outcome.receipts, *outcome.receipts],
            "failed": failed,
            "left": left,
        }
    )
    undone = len(outcome.receipts) < len(plan.treatments) or len(done.live) < len(wants)
    return 1 if failed or left or undone else 0


def difference(visit: Visit, rows: Sequence[Wanted]) -> tuple[list[Want], list[str]]:
    """What is to be fetched, and what cannot be brought back."""
    there, wants, left = packs.installed(visit.comfyui), [], []
    for one in rows:
        pack = next((pack for pack in there if one.same(pack)), None)
        at = (pack.version if one.kind == "registry" else pack.commit) if pack else ""
        goal = one.version if one.kind == "registry" else one.commit
        if pack and (not goal or at == goal):
            continue
        try:
            want = source_of(one, pack)
            wants.append(unedited(visit, pack, want) if pack else want)
        except (Refusal, ValueError) as why:
            left.append(sentence(why, visit.screen.lang))
    return wants, left


def source_of(one: Wanted, pack: Pack | None) -> Want:
    name = one.name if packs.ID.fullmatch(one.name) else ""
    if one.kind == "registry" and one.id:
        return Want(one.word, one.id, one.version, name=name, replaces=pack)
    if not one.url:
        raise refused(BadUsage, "node-no-source", name=one.word)
    ref = f"@{one.commit}" if one.commit else ""
    return Want(one.word, source=fetch.Source.parse(f"{one.url}{ref}"), name=name, replaces=pack)


def others(data: Mapping[str, Any], facts: Facts, lang: str) -> list[str]:
    """The core, Python and torch: told where they differ, and not changed here."""
    assert facts.comfyui is not None
    own = data.get(OWN, {})
    pairs = [
        ("ComfyUI", str(data.get("comfyui") or ""), facts.comfyui.commit),
        ("Python", str(own.get("python", "")), known(lambda: facts.python.version)),
        ("torch", str(own.get("torch", "")), known(lambda: facts.torch and facts.torch.version)),
    ]
    return [
        say("snapshot-other", lang, what=what, then=then, now=now or "?")
        for what, then, now in pairs
        if then and then != now
    ]


def states(visit: Visit, rows: Sequence[Wanted]) -> Iterator[Treatment]:
    """Each pack enabled or disabled as it was; what was not there then is put aside."""
    for pack in packs.installed(visit.comfyui):
        one = next((one for one in rows if one.same(pack)), None)
        goal = one.state if one else "disabled"
        if pack.state != goal:
            how = nodes.enable if goal == "enabled" else nodes.disable
            yield how(visit.comfyui, pack)
