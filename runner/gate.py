"""Gate: one question of the ladder, its answer, and the verdict that all answers make."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import inf

import torch

from runner.checkpoint import Checkpoint
from runner.golden import Golden
from runner.pipeline import Models
from runner.recipe import Refused

PASSED, FAILED, NOT_JUDGED = "passed", "failed", "not judged"


@dataclass(frozen=True)
class Gate:
    """One question, its measured figure, the bound it was held against, and why if not passed."""

    name: str
    figure: float | None
    bound: float | None
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Subject:
    """What is judged: loaded models, the checkpoint they came from, ComfyUI's numbers on it.

    golden is None for a file of one's own: what needs such numbers is then not judged.
    """

    models: Models
    checkpoint: Checkpoint
    golden: Golden | None = None


@dataclass(frozen=True)
class Rung:
    """A question that can be asked of a subject, again and under other conditions.

    about: the part it is about ("text", "vae", "unet", "all"), which says what may cure it.
    """

    name: str
    ask: Callable[[Subject], Gate]
    about: str = "all"
    repeats: bool = False  # it asks whether the same comes out again


@dataclass(frozen=True)
class Trial:
    """A failed gate, asked again with one thing changed."""

    experiment: str
    verdict: str
    figure: float | None


@dataclass(frozen=True)
class Suspect:
    """What was tried on a failed gate, and the experiment that cured it ("": none did)."""

    gate: str
    cured_by: str
    tried: tuple[Trial, ...]


@dataclass(frozen=True)
class Verdict:
    gates: tuple[Gate, ...]
    machine: Mapping[str, object]
    depth: int
    dtype: str = ""
    suspects: tuple[Suspect, ...] = ()

    @property
    def passed(self) -> bool:
        """No gate failed, and some were judged."""
        verdicts = {gate.verdict for gate in self.gates}
        return FAILED not in verdicts and PASSED in verdicts

    def to_json(self) -> dict[str, object]:
        """The object of schema runner.verify/1; an infinite figure is the string "inf"."""
        return {
            "schema": "runner.verify/1",
            "depth": self.depth,
            "dtype": self.dtype,
            "machine": dict(self.machine),
            "gates": [spoken(asdict(gate)) for gate in self.gates],
            "suspects": [
                asdict(one) | {"tried": [spoken(asdict(trial)) for trial in one.tried]}
                for one in self.suspects
            ],
            "passed": self.passed,
        }


def spoken(row: dict[str, object]) -> dict[str, object]:
    return row | {"figure": "inf" if row["figure"] == inf else row["figure"]}


def judged(called: str, ask: Callable[[], Gate]) -> Gate:
    """A gate's answer. A crash is an answer too: that stage does not work here."""
    try:
        with torch.inference_mode():
            return replace(ask(), name=called)
    except Refused as lacking:
        absent = lacking.id in ("torchsde-missing", "not-enough-memory")
        verdict = NOT_JUDGED if absent else FAILED
        return Gate(called, None, None, verdict, str(lacking))
    except Exception as error:  # noqa: BLE001 - whatever is broken must fail this gate alone
        return Gate(called, None, None, FAILED, f"it stopped with {type(error).__name__}: {error}")


def held(figure: float, bound: float, why: str = "") -> Gate:
    """Passed if the figure is within its bound; `why` is kept either way."""
    return Gate("", figure, bound, PASSED if figure <= bound else FAILED, why)


def unjudged(why: str) -> Gate:
    return Gate("", None, None, NOT_JUDGED, why)
