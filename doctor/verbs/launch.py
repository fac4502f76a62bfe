"""launch: main.py in the patient's interpreter, with the flags kept for this installation."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from doctor import locate
from doctor.examine import notes
from doctor.options import BadUsage
from doctor.receipts import open_home
from doctor.screen import Screen
from doctor.verbs.patient import Args, target


def launch(args: Args, screen: Screen) -> int:
    """main.py in the patient's interpreter with the kept flags; its exit code."""
    patient = target(args)
    folder = Path(str(patient.comfyui))
    if patient.comfyui is None or not locate.is_comfyui(folder):
        raise BadUsage("launch starts main.py, and there is none: --comfyui DIR")
    if patient.python is None:
        raise BadUsage(f"{folder} has no interpreter; comfy-doctor setup makes one")
    kept = {flag: why for flag, why in notes(folder).items() if flag not in args.args}
    words = [patient.python, *patient.flags, str(folder / "main.py"), *kept, *args.args]
    screen.say("launching", command=" ".join(words))
    for flag, why in kept.items():
        screen.say("kept-flag", flag=flag, why=why)
    if args.dry_run:
        return 0
    code = stream(words, folder, sys.stderr if args.json else sys.stdout)
    screen.object({"schema": "comfy-doctor.launch/1", "command": words, "code": code})
    return 1 if code else 0  # main.py's own codes mean other things than ours


def stream(words: Sequence[str], folder: Path, out: TextIO) -> int:
    """Run it as the user would, its output passed through and kept in launch.log; its exit code."""
    open_home(folder / ".comfy-doctor")
    log = folder / ".comfy-doctor" / "launch.log"
    with log.open("wb") as kept:
        run = subprocess.Popen(
            list(words), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert run.stdout is not None
        try:
            while block := os.read(run.stdout.fileno(), 1 << 16):
                out.buffer.write(block)
                out.flush()
                kept.write(block)
                kept.flush()
            return run.wait()
        except KeyboardInterrupt:
            end(run)
            raise
        finally:
            if run.poll() is None:
                run.kill()
                run.wait()


def end(run: "subprocess.Popen[bytes]", patience: float = 30) -> None:
    """A terminal has sent its signal to ComfyUI too; who was told alone passes it on."""
    with suppress(subprocess.TimeoutExpired):
        run.wait(2)
        return
    run.terminate()
    with suppress(subprocess.TimeoutExpired):
        run.wait(patience)
