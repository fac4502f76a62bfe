"""Nodes: what can be done to packs, as treatments: in, to another version, aside, back, out.

Nothing is deleted: what goes, goes to a folder of the doctor's own, from where `undo` brings it
back. Folders go live by one rename each, after the requirements.
"""

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from doctor import fetch, network, packs, registry, suspicion, sync, treat, tree, wishes
from doctor.examine import text
from doctor.facts import Facts, Refusal
from doctor.finding import Finding, Severity
from doctor.fixes.packages import HELD, holds, interpreter
from doctor.mirrors import Unreachable, private
from doctor.packs import Note, Pack
from doctor.plan import Plan, Treatment
from doctor.receipts import Journal
from doctor.source import ARCHIVE, PACKED, SSH
from doctor.step import Move, Packages, Step, Write
from doctor.words import refused, say


@dataclass(frozen=True)
class Want:
    """One thing a person asked for: a registry id, or an address, archive or folder."""

    word: str
    id: str = ""
    version: str = ""
    source: fetch.Source | None = None
    name: str = ""  # of its folder, where the person named it
    replaces: Pack | None = None


@dataclass(frozen=True)
class Coming:
    """A pack that lies in the staging folder, and all that is known of it."""

    want: Want
    path: Path
    note: Note
    findings: tuple[Finding, ...] = ()

    @property
    def blocked(self) -> bool:
        return any(finding.severity is Severity.ERROR for finding in self.findings)


def want(word: str, name: str = "") -> Want:
    """What a word on the command line means. A folder that is there wins over a registry id."""
    known = registry.split(word)
    if known and not Path(word).exists() and not PACKED.search(word):
        return Want(word, *known, name=name)
    return Want(word, source=fetch.Source.parse(word), name=name)


@dataclass(frozen=True)
class Errands:
    """How packs are fetched for one installation."""

    facts: Facts
    environ: Mapping[str, str]
    settings: treat.Settings
    say: treat.Progress
    staging: Path

    @property
    def comfyui(self) -> str:
        assert self.facts.comfyui is not None
        return self.facts.comfyui.path

    def obtain(self, source: fetch.Source) -> fetch.Arrived:
        return fetch.obtain(
            source,
            self.staging,
            self.facts.world,
            environ=self.environ,
            offline=self.settings.offline,
            allow_unproven=self.settings.allow_unproven,
            say=self.say,
        )

    def bring(self, asked: Want) -> Coming:
        """Fetched, named, marked as Manager marks it, and looked over. Raises Refusal."""
        if asked.source:
            arrived = self.obtain(asked.source)
            keep_remote(asked, arrived)
            return self.looked_over(asked, arrived, noted(asked, arrived))
        return self.from_registry(asked)

    def from_registry(self, asked: Want) -> Coming:
        offline = self.settings.offline
        try:
            release = registry.release(asked.id, asked.version, self.environ, offline=offline)
        except Unreachable as error:
            self.say(f"registry: {error}")
            address = registry.listed(self.comfyui, asked.id)
            if not address:
                raise refused(NoRegistry, "registry-away", id=asked.id, why=str(error)) from error
            return self.bring(replace(asked, source=fetch.Source.parse(address), version=""))
        if release.deprecated:
            self.say(f"registry: {asked.id} {release.version} is deprecated")
        arrived = self.obtain(fetch.Source(ARCHIVE, release.url))
        own = str(packs.project(arrived.path).get("name", asked.id))
        if not private(registry.base(self.environ)):
            arrived = doubted(arrived, "the registry answers over plain http")
        if own.lower() != asked.id.lower():
            arrived = doubted(arrived, f"the archive calls itself {own}")
        if not arrived.proven and not self.settings.allow_unproven:
            fetch.remove(arrived.path)
            raise refused(NoRegistry, "registry-unproven", id=asked.id, why=arrived.why)
        note = replace(
            noted(asked, arrived), kind="registry", id=release.id, version=release.version
        )
        names = sorted(p.relative_to(arrived.path).as_posix() for p in tree.files(arrived.path))
        (arrived.path / ".tracking").write_text("\n".join(names), encoding="utf-8")
        return self.looked_over(asked, arrived, note)

    def looked_over(self, asked: Want, arrived: fetch.Arrived, note: Note) -> Coming:
        found = suspicion.found(arrived.path, note.name, note.url, self.facts)
        return Coming(asked, arrived.path, note, found)


def keep_remote(asked: Want, arrived: fetch.Arrived) -> None:
    """A clone that was made over SSH goes on naming SSH: its owner pushes there."""
    config, old = arrived.path / ".git" / "config", asked.replaces.url if asked.replaces else ""
    if SSH.fullmatch(old) and config.is_file():
        said = config.read_text(encoding="utf-8")
        config.write_text(said.replace(f"url = {arrived.url}\n", f"url = {old}\n"), "utf-8")


class NoRegistry(Refusal):
    """A registry id that led nowhere."""

    code = 1


def doubted(arrived: fetch.Arrived, why: str) -> fetch.Arrived:
    return replace(arrived, proven=False, why="; ".join(filter(None, (arrived.why, why))))


def noted(asked: Want, arrived: fetch.Arrived) -> Note:
    """What is remembered of it; the folder's name is the user's, the registry's, its own."""
    cloned = (arrived.path / ".git").exists()
    id = packs.published(arrived.path)
    if cloned and id:
        (arrived.path / ".git" / ".cnr-id").write_text(id, encoding="utf-8")
    old = asked.replaces.name if asked.replaces else ""
    name = old or asked.name or asked.id or id or (asked.source.name if asked.source else "")
    return Note(
        name=name,
        kind="git" if cloned else "archive",
        url=arrived.url,
        ref=arrived.ref.removeprefix("refs/heads/"),
        commit=arrived.commit,
        id=asked.id or id,
        version=str(packs.project(arrived.path).get("version", "")),
        route=arrived.route.name,
        proven=arrived.proven,
        why=arrived.why,
        files={} if cloned else tree.listing(arrived.path),
    )


def taken(comfyui: str, note: Note, lang: str) -> str:
    """Why a pack cannot go live under its name: "" if it can."""
    for pack in packs.installed(comfyui):
        same = note.id and pack.id.lower() == note.id.lower()
        if pack.name.lower() == note.name.lower() or same:
            return say(f"taken-{pack.state}", lang, path=pack.path, name=pack.name)
    return ""


def requirements(coming: Coming) -> Iterator[str]:
    """The lines of its requirements.txt that are followed: no torch, no addresses, no options."""
    said = wishes.read(text(coming.path / "requirements.txt"), "requirements.txt", coming.note.name)
    for wish in said:
        asked = wish.requirement
        if asked and not asked.url and wish.name not in HELD:
            yield str(asked)


def kept(facts: Facts, leaving: Sequence[str] = ()) -> tuple[str, ...]:
    """What others wish for and have: torch's family exactly, the rest within what suits them."""
    assert facts.comfyui is not None
    asked = (w for w in sync.gather(Path(facts.comfyui.path)) if w.pack not in leaving)
    bounds = (bound(wish.requirement, facts) for wish in asked if wish.requirement)
    return (*holds(facts), *dict.fromkeys(filter(None, bounds)))


def bound(asked: Requirement, facts: Facts) -> str:
    """A wish that is met now, as a line for a constraints file; "" for any other."""
    package = facts.packages.get(canonicalize_name(asked.name))
    if not package or asked.url or not asked.specifier or asked.name in HELD:
        return ""
    try:
        met = asked.specifier.contains(Version(package.version), prereleases=True)
    except InvalidVersion:
        return ""
    return f"{asked.name}{asked.specifier}" if met and not asked.marker else ""


def bring_in(facts: Facts, coming: Sequence[Coming]) -> Treatment:
    """Requirements of all together first; then each folder, by one rename."""
    assert facts.comfyui is not None
    steps: list[Step] = []
    if wants := tuple(dict.fromkeys(line for one in coming for line in requirements(one))):
        leaving = [one.note.name for one in coming]
        steps.append(Packages(interpreter(facts), wants=wants, holds=kept(facts, leaving)))
    for one in coming:
        steps += live(facts.comfyui.path, one)
    return Treatment("node-" + ",".join(one.note.name for one in coming), (), tuple(steps))


def live(comfyui: str, one: Coming) -> Iterator[Step]:
    target = packs.custom_nodes(comfyui) / one.note.name
    yield Write(str(packs.note_path(comfyui, one.note.name)), one.note.written())
    note = one.note
    what = f"{note.name} ({note.commit[:12] or note.version or note.kind}, by {note.route})"
    if one.want.replaces is None:
        yield Move(str(one.path), str(target), what=what)
        return
    old = Path(one.want.replaces.path)
    aside = set_aside(comfyui, old.name)
    yield Move(str(old), str(aside))
    yield Move(str(one.path), str(old), what=what)


def carried(
    one: Coming, extra: Sequence[str], comfyui: str, steps: Sequence[Step]
) -> Iterator[Step]:
    """Files that the user or the pack made in the old folder, into the new one."""
    assert one.want.replaces is not None
    old = Path(one.want.replaces.path)
    aside = next(Path(s.target) for s in steps if isinstance(s, Move) and s.source == str(old))
    for name in extra:
        if not (one.path / name).exists():
            yield Move(str(aside / name), str(old / name))


def set_aside(comfyui: str, name: str) -> Path:
    return packs.beside(comfyui) / "removed" / f"{name}-{secrets.token_hex(3)}"


def disable(comfyui: str, pack: Pack) -> Treatment:
    target = packs.at_disabled(comfyui, pack)
    note = packs.notes(comfyui).get(pack.name)
    own = Note(pack.name, "unknown", pack.url, pack.ref, pack.commit, pack.id, pack.version)
    steps: list[Step] = []
    if note is None and pack.kind != "file":
        steps.append(Write(str(packs.note_path(comfyui, pack.name)), own.written()))
    return Treatment(f"disable-{pack.name}", (), (*steps, Move(pack.path, str(target))))


def enable(comfyui: str, pack: Pack) -> Treatment:
    target = packs.custom_nodes(comfyui) / pack.name
    return Treatment(f"enable-{pack.name}", (), (Move(pack.path, str(target)),))


def remove(comfyui: str, pack: Pack) -> Treatment:
    target = set_aside(comfyui, Path(pack.path).name)
    return Treatment(f"remove-{pack.name}", (), (Move(pack.path, str(target)),))


def settled(
    facts: Facts,
    coming: Sequence[Coming],
    extra: Mapping[str, Sequence[str]],
    book: Journal,
    settings: treat.Settings,
    say: treat.Progress,
) -> tuple[Plan, dict[str, str]]:
    """One treatment of all that can be satisfied together, and why the others cannot."""
    refused: dict[str, str] = {}
    good: list[Coming] = []
    plan = attempt(facts, coming, extra, book, settings, say)
    if plan.treatments or len(coming) < 2:
        whys = plan.refused.values()
        return plan, {one.note.name: why for one, why in zip(coming, whys, strict=False)}
    for one in coming:
        tried = attempt(facts, [*good, one], extra, book, settings, say)
        if tried.treatments:
            good, plan = [*good, one], tried
        else:
            refused[one.note.name] = next(iter(tried.refused.values()), "")
    return replace(plan if good else Plan(), refused={}), refused


def attempt(
    facts: Facts,
    coming: Sequence[Coming],
    extra: Mapping[str, Sequence[str]],
    book: Journal,
    settings: treat.Settings,
    say: treat.Progress,
) -> Plan:
    assert facts.comfyui is not None
    if not coming:
        return Plan()
    treatment = bring_in(facts, coming)
    more = [
        step
        for one in coming
        if one.want.replaces
        for step in carried(one, extra.get(one.note.name, ()), facts.comfyui.path, treatment.steps)
    ]
    treatment = replace(treatment, steps=(*treatment.steps, *more))
    plan = treat.settle(Plan((treatment,)), facts, book, settings, say)
    if plan.refused and settings.allow_unproven and (others := indexes(facts, settings, say)):
        steps = (elsewhere(step, others) for step in treatment.steps)
        again = replace(treatment, steps=tuple(steps))
        plan = treat.settle(Plan((again,)), facts, book, settings, say)
    bad = [f for t in plan.treatments for s in t.steps for f in malicious(s, facts)]
    if bad:
        return Plan((), {treatment.fix: "; ".join(bad)})
    return replace(plan, treatments=tuple(map(without_idle, plan.treatments)))


def without_idle(treatment: Treatment) -> Treatment:
    """The same without the packages of which nothing has to be changed."""
    steps = (s for s in treatment.steps if not (isinstance(s, Packages) and s.idle))
    return replace(treatment, steps=tuple(steps))


def elsewhere(step: Step, others: Sequence[str]) -> Step:
    return replace(step, indexes=tuple(others)) if isinstance(step, Packages) else step


def indexes(facts: Facts, settings: treat.Settings, say: treat.Progress) -> tuple[str, ...]:
    """Mirrors of the package index that answer now, for when the one in use does not serve, or
    lags behind a version that is wanted.

    What a mirror's own page says a wheel's hash is proves nothing, so they are asked only where
    the unproven is allowed; and never where the user wants no index at all.
    """
    if settings.offline or os.environ.get("PIP_NO_INDEX"):
        return ()
    mirrors = [mirror for mirror in facts.world.mirrors if mirror.kind == "index"]
    alive = network.answering([mirror.at for mirror in mirrors])
    for mirror in mirrors:
        say(f"{mirror.name} ({mirror.at}): {'asked' if mirror.at in alive else 'no answer'}")
    return tuple(alive)


def malicious(step: Step, facts: Facts) -> Iterator[str]:
    """Wheels that a resolver found, and that are known to be malicious."""
    if isinstance(step, Packages) and step.wheels:
        pairs = [(wheel.name, wheel.version) for wheel in step.wheels]
        for finding in suspicion.among_wheels(pairs, facts.world):
            yield from finding.because
