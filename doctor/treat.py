"""Treat: a plan made exact, carried out fix by fix, verified by looking again, or taken back."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from doctor import fetch, installer, journal, machine, room, sync, uv
from doctor.check import subject
from doctor.facts import Facts, Refusal, Unknown
from doctor.finding import Diagnosis, Finding
from doctor.manifest import World
from doctor.plan import Plan, Treatment
from doctor.receipts import Journal
from doctor.step import MakeVenv, Packages, Place, Step, StepFailed

Progress = Callable[[str], None]
Look = Callable[[], tuple[Facts, Diagnosis]]
HEALTH = frozenset({"python", "packages", "torch", "gpu"})  # subjects no treatment may worsen


@dataclass(frozen=True)
class Settings:
    """What the user allowed."""

    offline: bool = False
    allow_unproven: bool = False
    core: str = ""  # where ComfyUI itself is to come from: an archive, a folder, an address


@dataclass(frozen=True)
class Outcome:
    """What became of a plan, in receipts and ids of findings."""

    receipts: tuple[str, ...] = ()
    cured: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)  # fix -> why it was taken back
    eased: tuple[str, ...] = ()  # cured of some of what they named

    def __add__(self, later: "Outcome") -> "Outcome":
        return Outcome(
            (*self.receipts, *later.receipts),
            (*self.cured, *later.cured),
            {**self.failed, **later.failed},
            (*self.eased, *later.eased),
        )


def settle(plan: Plan, facts: Facts, journal: Journal, settings: Settings, say: Progress) -> Plan:
    """The same plan with every wheel and source known. Writes only into the doctor's own folder.

    A treatment that cannot be made exact, for want of a network say, is refused here: nothing
    of it is begun.
    """
    treatments, refused = [], dict(plan.refused)
    for treatment in plan.treatments:
        try:
            for step in treatment.steps:
                refuse_in_use(step)
                refuse_system(step, facts)
            steps = tuple(
                settled(step, is_to_be_made(step, treatment.steps), facts, journal, settings, say)
                for step in treatment.steps
            )
            refuse_no_room(steps, journal)
        except (InUse, installer.CannotInstall, fetch.NotObtained, fetch.Refused) as why:
            refused[treatment.fix] = str(why)
            continue
        treatments.append(replace(treatment, steps=steps))
    return Plan(tuple(treatments), refused)


MILDER = {"torch-companion-mismatch": "torch-companion-missing"}  # absent is better than wrong


class InUse(Refusal):
    """Somebody runs the interpreter whose packages would be changed under them."""

    code = 1


def refuse_in_use(step: Step) -> None:
    """Packages are not changed under a running ComfyUI: on Windows it holds its files, anywhere
    it may import one half old and one half new."""
    if isinstance(step, Packages) and os.path.exists(step.python):
        users = list(machine.users_of(str(Path(step.python).parent.parent)))
        if users and not is_ours(step.python):
            raise InUse(f"{users[0]} uses this interpreter now; stop it first")


def refuse_system(step: Step, facts: Facts) -> None:
    """A Python of the operating system is not ours to change (PEP 668)."""
    own = isinstance(step, Packages) and step.python == facts.target.python
    if own and not isinstance(facts.python, Unknown) and facts.python.externally_managed:
        raise InUse(
            f"{facts.target.python} belongs to the operating system (PEP 668): make an environment"
            " of its own for ComfyUI, with `comfy-doctor setup DIR`"
        )


def refuse_no_room(steps: tuple[Step, ...], journal: Journal) -> None:
    """Before anything is fetched: is there room for it all."""
    packages = [step for step in steps if isinstance(step, Packages)]
    needs: list[room.Need] = []
    for step in packages:
        absent = is_to_be_made(step, steps)
        needs += step.needs(None if absent else installer.scope(step.python), journal.home)
    room.refuse_short(needs)


def is_to_be_made(step: Step, steps: Sequence[Step]) -> bool:
    """Is the interpreter of a step not there yet, or do the steps put another in its place?"""
    if not isinstance(step, Packages):
        return False
    places = [Path(other.path) for other in steps if isinstance(other, MakeVenv)]
    replaced = any(Path(step.python).is_relative_to(place) for place in places)
    return replaced or not os.path.exists(step.python)


def is_ours(python: str) -> bool:
    return Path(python).parent.resolve() == Path(sys.executable).parent.resolve()


def settled(
    step: Step,
    to_be_made: bool,
    facts: Facts,
    journal: Journal,
    settings: Settings,
    say: Progress,
) -> Step:
    if isinstance(step, Packages) and step.wheels is None:
        found = installer.resolve(
            "" if to_be_made else step.python,
            step.wants,
            wishes=step.wishes,
            holds=step.holds,
            indexes=step.indexes,
            build=step.build,
            anew=step.anew,
            offline=settings.offline,
            say=say,
        )
        return replace(step, wheels=installer.compared(found, versions(facts)))
    if isinstance(step, Place) and not step.source:
        arrived = obtain_known(step, journal, facts.world, settings, say)
        shown = " @ ".join(filter(None, (arrived.url, arrived.commit[:12])))
        return replace(step, source=str(arrived.path), url=shown)
    return step


def versions(facts: Facts) -> dict[str, str]:
    if isinstance(facts.packages, Unknown):
        return {}
    return {name: package.version for name, package in facts.packages.items()}


def obtain_known(
    step: Place, journal: Journal, world: World, settings: Settings, say: Progress
) -> fetch.Arrived:
    """The newest, or where its origin does not say which that is, a commit that is known."""
    if settings.core:
        arrived = obtain(settings.core, journal, world, settings, say)
        if not (arrived.path / "main.py").is_file() or not (arrived.path / "comfy").is_dir():
            fetch.remove(arrived.path)
            raise fetch.Refused("core", settings.core, "holds no main.py beside a folder comfy")
        return arrived
    try:
        return obtain(step.url, journal, world, settings, say)
    except fetch.NotObtained as why:
        if why.reference != "commit-unknown" or not step.known:
            raise
        return obtain(f"{step.url}@{step.known}", journal, world, settings, say)


def obtain(
    url: str, journal: Journal, world: World, settings: Settings, say: Progress
) -> fetch.Arrived:
    """A repository in the doctor's own staging folder, its commit checked."""
    staging = journal.home / "staging"
    return fetch.obtain(
        fetch.Source.parse(url),
        staging,
        world,
        environ=os.environ,
        offline=settings.offline,
        allow_unproven=settings.allow_unproven,
        say=say,
    )


def sizes(plan: Plan) -> int:
    """Bytes that will be downloaded, as far as the servers tell."""
    wheels = (wheel for treatment in plan.treatments for wheel in wheels_of(treatment))
    return sum(map(room.to_fetch, wheels))


def wheels_of(treatment: Treatment) -> tuple[installer.Wheel, ...]:
    packages = (step for step in treatment.steps if isinstance(step, Packages))
    return tuple(wheel for step in packages for wheel in step.wheels or ())


def carry_out(
    plan: Plan, book: Journal, before: Diagnosis, look: Look, progress: Progress
) -> Outcome:
    """Each treatment done, looked at, and kept or taken back before the next begins."""
    receipts: list[str] = []
    cured: list[str] = []
    eased: list[str] = []
    failed: dict[str, str] = {}
    for treatment in plan.treatments:
        unmet = unmet_in(treatment)
        try:
            receipt = journal.treat(book, treatment, progress)
        except StepFailed as error:
            failed[treatment.fix] = str(error)
            continue
        after = look()[1]
        worse = worsened(treatment, before, after) or new_conflict(treatment, unmet)
        if worse:
            failed[treatment.fix] = worse + journal.taken_back(book, receipt, worse, progress)
            continue
        journal.commit(book, receipt)
        installer.forget(wheels_of(treatment))
        receipts.append(receipt)
        left = {finding.id for finding in remaining(treatment, before, after)}
        cured += (id for id in treatment.cures if id not in left)
        eased += left
        before = after
    return Outcome(tuple(receipts), tuple(cured), failed, tuple(eased))


def worsened(treatment: Treatment, before: Diagnosis, after: Diagnosis) -> str:
    """Why a treatment may not stay: what it was to cure is still there, or it broke something.

    An error that could not be judged before is no worsening: a new environment has room for it.
    Nor is a cure of some of what a finding names, with no new evidence, one that did not help.
    """
    named = {f.id: set(f.because) for f in before.findings}
    left = remaining(treatment, before, after)
    still = [f.id for f in left if not set(f.because) < named.get(f.id, set())]
    if still:
        return f"{still[0]} is still there"
    known = {f.id for f in before.findings} | {n.id for n in before.not_judged}
    known |= {MILDER[id] for id in treatment.cures if id in MILDER}
    new = [f for f in after.errors if f.id not in known and subject(f.id) in HEALTH]
    return f"it brought {new[0].id}: {'; '.join(new[0].because)}" if new else ""


def remaining(treatment: Treatment, before: Diagnosis, after: Diagnosis) -> list[Finding]:
    """What it was to cure, and is there no milder than it was."""
    was = {f.id: f.severity for f in before.findings}
    cures = (f for f in after.findings if f.id in treatment.cures)
    return [f for f in cures if f.severity >= was.get(f.id, 0)]


def unmet_in(treatment: Treatment) -> frozenset[str]:
    """What `uv pip check` says of the interpreters that a treatment changes."""
    pythons = {s.python for s in treatment.steps if isinstance(s, Packages)}
    there = sorted(python for python in pythons if os.path.exists(python))
    return frozenset(line for python in there for line in unmet(python))


def unmet(python: str) -> Iterator[str]:
    lines = uv.check(python)
    there = installer.names(python) if lines else frozenset()
    return (line for line in lines if not sync.served(line, there))


def new_conflict(treatment: Treatment, before: frozenset[str]) -> str:
    """A requirement between packages that was met before, or was nobody's, and is not met now."""
    new = sorted(unmet_in(treatment) - before)
    return f"it left a requirement unmet: {new[0]}" if new else ""
