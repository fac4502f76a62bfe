"""Do the installed packages fit each other and this interpreter?"""

from collections.abc import Iterator

from doctor import advise
from doctor.check import check
from doctor.facts import Facts
from doctor.finding import Finding, Severity


@check("numpy-missing")
def numpy_missing(facts: Facts) -> Iterator[Finding]:
    """torch is there and numpy is not."""
    if facts.torch is not None and "numpy" not in facts.packages:
        yield Finding(
            Severity.ERROR,
            because=(f"torch {facts.torch.version}", f"numpy ∉ {facts.python.site}"),
            commands=(advise.pip(facts, "install", "numpy"),),
            fix="install-numpy",
        )
