"""Can git do its work here: is it there, are the clones whole, and does it accept their owner?"""

from collections.abc import Iterator

from doctor import advise
from doctor.check import check
from doctor.facts import Facts
from doctor.finding import Finding, Severity


@check("git-missing")
def git_missing(facts: Facts) -> Iterator[Finding]:
    """There is no git, which node managers and updates call."""
    if facts.comfyui is not None and facts.comfyui.present and not facts.host.git:
        yield Finding(
            Severity.WARNING, because=("git ∉ PATH",), commands=advise.system(facts, "git")
        )


@check("git-repository-corrupt")
def git_repository_corrupt(facts: Facts) -> Iterator[Finding]:
    """A clone is half-made, damaged, or in the middle of a merge: it can no longer be updated."""
    if facts.folder is not None and facts.folder.damaged:
        yield Finding(Severity.WARNING, because=facts.folder.damaged[:8])


@check("git-dubious-ownership")
def git_dubious_ownership(facts: Facts) -> Iterator[Finding]:
    """Clones belong to another user, so git refuses to work in them."""
    if facts.folder is not None and facts.folder.foreign:
        add = ("git", "config", "--global", "--add", "safe.directory")
        yield Finding(
            Severity.WARNING,
            because=facts.folder.foreign[:8],
            commands=tuple(advise.line(facts, *add, path) for path in facts.folder.foreign[:3]),
        )
