"""served: the ComfyUI that a smoke test asks: one that runs somewhere, or one started for it, with
folders of its own, so that nothing of the owner's is written to."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from doctor import cures, examine, flags, handoff, launch, listen, machine
from doctor.api import Server
from doctor.checks.launch import cpu_flag_needed
from doctor.facts import Facts, NotKnown, Refusal, Target
from doctor.launch import Command, Running
from doctor.manifest import world
from doctor.symptoms import Judgement

SYNTHETIC = "comfy-doctor-sd15.safetensors"
FOLDERS = ("input", "output", "temp", "user", "models/checkpoints")
Say = Callable[[str], None]


class NotServed(Refusal):
    """The server that was to be started did not come up."""

    code = 1

    def __init__(self, why: str, judgement: Judgement | None = None, ended: bool = True) -> None:
        super().__init__(why)
        self.judgement = judgement
        self.ended = ended  # by itself; else it was only too slow


@dataclass(frozen=True)
class Place:
    """Where the prompts go, and what is at hand of them here."""

    server: Server
    own: bool = False  # started for this, with folders of its own
    checkpoint: str = ""  # as the server lists it; "": its first
    models: str = ""  # the folder where the runner finds it; "": not at hand
    comfyui: str = ""  # the server's folder, where it is this machine's: its temp is tidied up
    seconds: dict[str, float] = field(default_factory=dict)


def checkpoint_into(models: Path, named: str | None, patient: Target, say: Say) -> str:
    """The file that was named, or the synthetic one, below a folder of models; its name there."""
    folder = models / "checkpoints"
    if named is None:
        say(SYNTHETIC)
        words = ["synthetic", "sd15", "--out", str(folder / SYNTHETIC)]
        handoff.ask_runner(patient, words, lambda event: None)
        return SYNTHETIC
    source = Path(named).expanduser().resolve()
    there = folder / source.name
    try:
        there.symlink_to(source)
    except OSError:  # Windows without the right to
        with suppress(OSError):
            os.link(source, there)
        if not there.exists():
            shutil.copyfile(source, there)
    return source.name


@contextmanager
def started(
    patient: Target, scratch: Path, checkpoint: str, limit: float, say: Say
) -> Iterator[Place]:
    """A ComfyUI of this installation on a free port, ended afterwards. Raises NotServed."""
    facts = examine.examine(patient, 1)
    port = next(machine.free_after(listen.PORT), 0)
    kept = examine.kept(Path(str(patient.comfyui))).flags
    own = [*needed(facts), *apart(Path(str(patient.comfyui)), scratch), "--port", str(port)]
    words = [*flags.words(flags.applied(kept, own, world())), *own, "--listen", "127.0.0.1"]
    what = launch.command(patient, (), words)
    say(" ".join(what.words))
    running = up(what, scratch, limit)
    try:
        server = Server(what.listening.url)
        phases = {phase.name: phase.seconds for phase in running.startup.phases}
        yield Place(server, True, checkpoint, str(scratch / "models"), seconds=phases)
    finally:
        running.end()


def up(what: Command, scratch: Path, limit: float) -> Running:
    quiet = {"PYTHONDONTWRITEBYTECODE": "1"}
    running = launch.start(what, scratch / "server.log", lambda block: None, quiet)
    try:
        outcome = launch.until_ready(running, limit)
        if outcome.ready:
            return running
        judgement = cures.judged(bytes(running.tail), outcome.code, world())
        said = [
            line for line in bytes(running.tail).decode("utf-8", "replace").splitlines() if line
        ]
        why = outcome.why or f"it ended with code {outcome.code}: {said[-1] if said else 'nothing'}"
        raise NotServed(why, judgement, outcome.code is not None)
    except BaseException:
        running.end(5)
        raise


def needed(facts: Facts) -> Sequence[str]:
    """--cpu, where ComfyUI does not start without it."""
    with suppress(NotKnown):
        return ("--cpu",) if any(True for _ in cpu_flag_needed(facts)) else ()
    return ()


def apart(comfyui: Path, scratch: Path) -> Iterator[str]:
    """Arguments that give a server folders of its own, as far as this ComfyUI knows them."""
    for name in FOLDERS:
        (scratch / name).mkdir(parents=True, exist_ok=True)
    extra = scratch / "extra_model_paths.yaml"
    rows = {"comfy_doctor": {"base_path": str(scratch / "models"), "checkpoints": "checkpoints"}}
    extra.write_text(json.dumps(rows), encoding="utf-8")  # JSON is YAML, whatever is in a path
    known = options_of(comfyui)
    for flag, value in {
        "--extra-model-paths-config": str(extra),
        "--input-directory": str(scratch / "input"),
        "--output-directory": str(scratch / "output"),
        "--temp-directory": str(scratch),
        "--user-directory": str(scratch / "user"),
        "--database-url": f"sqlite:///{scratch / 'user' / 'comfyui.db'}",
    }.items():
        if flag in known:
            yield from (flag, value)
    if "--disable-auto-launch" in known:
        yield "--disable-auto-launch"


def options_of(comfyui: Path) -> str:
    try:
        return (comfyui / "comfy" / "cli_args.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
