"""Trial: ComfyUI started once as a test; everything is imported, no server stays behind.

main.py's own `--quick-test-for-ci` ends it there; `--disable-all-custom-nodes` and
`--whitelist-custom-nodes` leave packs out (comfy/cli_args.py, ComfyUI 0.3.64).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from doctor import child, flags, packs
from doctor.checks.launch import cpu_flag_needed
from doctor.facts import Facts, NotKnown
from doctor.startup import NodeStart

TEST, NONE, BUT = "--quick-test-for-ci", "--disable-all-custom-nodes", "--whitelist-custom-nodes"
CPU = "--cpu"
LIMIT = 300.0  # seconds: a first start compiles every module on what may be a slow disk


@dataclass(frozen=True)
class Trial:
    """One start: why it failed ("" where it went well), how each pack fared, all that was said."""

    error: str
    seconds: float
    said: str = ""
    packs: Mapping[str, NodeStart] = field(default_factory=dict)

    @property
    def not_imported(self) -> dict[str, str]:
        """Packs that ComfyUI went on without, and the last line of each one's traceback."""
        return {name: one.why for name, one in self.packs.items() if one.failed}


def start(
    facts: Facts,
    limit: float = LIMIT,
    only: Sequence[str] | None = None,
    heard: Callable[[str], None] = lambda line: None,
) -> Trial:
    """Start it with all packs, or with only these; `heard` gets each line as it is said."""
    assert facts.comfyui is not None
    lines: list[str] = []
    since = monotonic()

    def keep(line: str) -> None:
        lines.append(line)
        heard(line.strip())

    try:
        ended = child.run(command(facts, only), timeout=limit, cwd=facts.comfyui.path, heard=keep)
    except child.TooLate:
        last = last_line(lines)
        said = f"no end after {limit:.0f} s" + (f"; the last it said: {last}" if last else "")
        return Trial(said, monotonic() - since, "".join(lines))
    except OSError as error:
        return Trial(str(error), monotonic() - since)
    said = ended.out + ended.err
    why = failure(ended.code, (ended.out, ended.err)) if ended.code else ""
    return Trial(why, monotonic() - since, said, packs.starts(said))


def command(facts: Facts, only: Sequence[str] | None) -> list[str]:
    """The words that start it: the flags kept for it, and those of a test."""
    assert facts.comfyui is not None
    main = str(Path(facts.comfyui.path, "main.py"))
    words = [str(facts.target.python), *facts.target.flags, main, TEST]
    words += flags.words(flags.applied(facts.comfyui.flags, words, facts.world))
    if on_cpu(facts):
        words.append(CPU)
    if only is not None:
        words += [NONE, *([BUT, *only] if only else [])]
    return words


def on_cpu(facts: Facts) -> bool:
    """Does ComfyUI have to be told that there is only a CPU, and was not yet."""
    try:
        return any(cpu_flag_needed(facts))
    except NotKnown:
        return False


def failure(code: int, said: Sequence[str]) -> str:
    """Why a start failed: its last line, and how it ended where that tells nothing."""
    last = next((line for text in reversed(said) if (line := last_line(text.splitlines()))), "")
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    told = "Error" in last or "Exception" in last or (last and code == 1)
    return last if told else f"{how}, after: {last}" if last else how


def last_line(lines: Sequence[str]) -> str:
    """The last that was said, but for packs that were left out because we asked for it."""
    said = (line.strip() for line in reversed(lines))
    return next((line for line in said if line and not line.startswith("Skipping ")), "")
