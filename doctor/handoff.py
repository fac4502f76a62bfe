"""Hand-off: the runner at work in the patient's own interpreter.

The patient is given a folder that holds `runner` and its data alone (PY BUNDLE ...), so neither
the doctor's packages nor a stray folder can leak in; it answers with one JSON object.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from doctor import child
from doctor.facts import Refusal, Target

MAIN = "from runner.__main__ import leave, main\n\nleave(main())\n"
MARK = "@progress "
Progress = Callable[[dict[str, Any]], None]


class HandoffFailed(Refusal):
    """The runner gave no verdict; the sentence says how it ended."""

    def __init__(self, why: str, code: int) -> None:
        super().__init__(why)
        self.code = code if code in (1, 2, 130) else 1


def runner() -> Path:
    """Where the runner lies; HandoffFailed where it does not."""
    spec = find_spec("runner")  # finds it, and imports nothing of it
    if spec is None or not spec.submodule_search_locations:
        raise HandoffFailed("the runner is not installed beside the doctor", 3)
    return Path(spec.submodule_search_locations[0])


@contextmanager
def bundle() -> Iterator[Path]:
    """A folder with the runner alone, gone again afterwards."""
    with tempfile.TemporaryDirectory(prefix="comfy-doctor-") as folder:
        shutil.copytree(runner(), Path(folder, "bundle", "runner"))  # what is compiled, too
        Path(folder, "bundle", "__main__.py").write_text(MAIN, encoding="utf-8")
        yield Path(folder, "bundle")


def ask_runner(
    target: Target, words: Sequence[str], progress: Progress, timeout: float = 3600
) -> dict[str, Any]:
    """Run one command of the runner in the patient; its JSON object, whatever its verdict.

    HandoffFailed where there is none: a crash, a hang, bad input (code 2).
    """
    noise: list[str] = []

    def heard(line: str) -> None:
        if line.startswith(MARK):
            progress(json.loads(line.removeprefix(MARK)))
        elif line.strip():
            noise.append(line.rstrip())

    with bundle() as place:
        command = [str(target.python), *target.flags, "-B", str(place), *words]
        try:
            ended = child.run(
                [*command, "--json", "--progress", "json"],
                timeout=timeout,
                cwd=place.parent,
                heard=heard,
            )
        except child.TooLate as late:
            raise HandoffFailed(f"the runner hung: {late}", 1) from late
    return answer(ended.out, ended.code, noise)


def answer(out: str, code: int, noise: Sequence[str]) -> dict[str, Any]:
    try:
        said = json.loads(out)
    except ValueError:
        last = noise[-1] if noise else "nothing"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise HandoffFailed(f"the runner ended with {how} and said: {last}", code) from None
    if "error" in said:
        raise HandoffFailed(said["error"]["message"], code)
    return dict(said)
