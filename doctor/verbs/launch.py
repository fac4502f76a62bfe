"""launch: main.py in the patient's interpreter with the kept flags, watched, or left in the
background under a watcher of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from doctor import cards, examine, flags, launched, listen, locate, machine, unit
from doctor.facts import Gpu, Target, Unknown
from doctor.launch import Command, command
from doctor.launched import Launched
from doctor.listen import Listening
from doctor.manifest import world
from doctor.options import BadUsage
from doctor.receipts import open_home
from doctor.screen import Screen
from doctor.step import Write
from doctor.verbs.patient import Args, home, target
from doctor.verbs.patient import command as patient_command
from doctor.verbs.startscript import write_script
from doctor.verbs.watch import Watch, tell_port
from doctor.verbs.withdraw import withdrawn
from doctor.words import say


def launch(args: Args, screen: Screen) -> int:
    """Start it and stay until it ends (0: as it was asked to, 1: on its own, with an error)."""
    patient = startable(args)
    if args.script is not None:
        return write_script(args, screen, patient)
    if args.systemd or args.compose:
        return written(args, patient, screen)
    there = examine.kept(Path(str(patient.comfyui)))
    flags_kept = there.flags if args.dry_run else withdrawn(patient, there.flags, screen)
    kept = flags.applied(flags_kept, args.args, world())
    what = command(patient, flags.words(kept), args.args)
    screen.say("launching", command=" ".join(what.words))
    for flag, row in kept.items():
        screen.say("kept-flag", flag=" ".join(flags.words({flag: row})), why=row.why)
    screen.lines(exposure(what.listening, screen.lang))
    if args.dry_run:
        return 0
    refuse_running(home(patient))
    taken = machine.port(what.listening.port)
    if taken.taken:
        return tell_port(taken, patient, screen)
    if args.detach:
        return detached(args, patient, what, screen)
    return Watch(args, patient, kept, screen).run()


def startable(args: Args) -> Target:
    patient = target(args)
    folder = Path(str(patient.comfyui))
    if patient.comfyui is None:
        raise BadUsage("launch starts main.py, and there is none: --comfyui DIR")
    if not locate.is_comfyui(folder):
        raise BadUsage(
            f"{folder} has no main.py to start yet; comfy-doctor setup {folder} brings it"
        )
    if patient.python is None:
        raise BadUsage(f"{folder} has no interpreter; comfy-doctor setup makes one")
    if not os.path.exists(patient.python):
        raise BadUsage(
            f"{patient.python} leads to a Python that is gone;"
            f" see: {patient_command(patient, 'check')}"
        )
    return patient


def written(args: Args, patient: Target, screen: Screen) -> int:
    """--systemd FILE and --compose FILE; kept flags are read at each start, so none are in them."""
    own = unit.without(args.args, "--listen", "--port")
    port = listen.of_words(args.args).port
    nvidia = any(gpu.vendor == "nvidia" for gpu in known_cards())
    words = [sys.executable, "-m", "doctor", *again(args, patient)]
    texts = {
        args.systemd: unit.systemd(words, str(patient.comfyui)),
        args.compose: unit.compose(own, port, nvidia),
    }
    files = []
    for path, text in texts.items():
        if path == "-":
            screen.lines(text.splitlines())
        elif path:
            place = Path(path).expanduser()
            if place.is_dir():
                raise BadUsage(f"{place} is a folder; name the file to write")
            Write(str(place), text).do(screen.progress)
            screen.say("script-written", path=place)
            files.append(str(place))
    screen.object({"schema": "comfy-doctor.launch/1", "files": files})
    return 0


def known_cards() -> Sequence[Gpu]:
    found = cards.gpus()
    return () if isinstance(found, Unknown) else found


def refuse_running(place: Path) -> None:
    there = launched.read(place)
    if there is not None and there.alive:
        raise BadUsage(
            f"It runs already, at {there.url} (pid {there.pid or there.watcher});"
            f" comfy-doctor stop --comfyui {place.parent} ends it."
        )


def exposure(listening: Listening, lang: str) -> Iterator[str]:
    """What listening for others means, and how to put protection before it."""
    if not listening.exposed:
        return
    addresses = ", ".join(listening.exposed)
    yield "! " + say("exposed", lang, addresses=addresses, port=listening.port)
    for way in ("tunnel", "proxy", "container", "firewall"):
        yield f"    {say(f'exposed-{way}', lang, port=listening.port)}"
    if not listening.tls:
        yield f"    {say('exposed-plain', lang)}"


def detached(args: Args, patient: Target, what: Command, screen: Screen) -> int:
    """A watcher in the background; returns when ComfyUI is ready, or is known not to become so."""
    place = home(patient)
    open_home(place)
    with (place / "watch.log").open("wb") as log:
        watcher = subprocess.Popen(
            [sys.executable, "-m", "doctor", *again(args, patient)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=os.name != "nt",
            creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
        )
    screen.progress(say("starting", screen.lang, url=what.listening.url))
    try:
        seen = wait(watcher, place, args.limit)
    except BaseException:
        watcher.terminate()
        watcher.wait(60)
        raise
    screen.ticker.clear()
    good = seen is not None and seen.state == launched.READY
    if good and seen is not None:
        screen.say("ready", url=seen.url, seconds=f"{seen.seconds:.1f}")
        screen.say("detached", stop=patient_command(patient, "stop"))
    else:
        screen.lines((place / "watch.log").read_text("utf-8", "replace").splitlines()[-40:])
        still = watcher.poll() is None
        key = "still-starting" if still else "not-started"
        screen.lines(["✗ " + say(key, screen.lang, log=place / "launch.log", limit=args.limit)])
    screen.object(
        {"schema": "comfy-doctor.launch/1", "command": list(what.words), "detached": True}
        | {"ready": good, "url": what.listening.url, "pid": seen.pid if seen else 0}
    )
    return 0 if good else 1


def again(args: Args, patient: Target) -> Sequence[str]:
    """The same command for the watcher."""
    words = ["launch", "--comfyui", str(patient.comfyui), "--python", str(patient.python)]
    words += ["--lang", args.lang] if args.lang else []
    words += ["--no-restart"] if args.no_restart else []
    return [*words, "--", *args.args]


def wait(watcher: "subprocess.Popen[bytes]", place: Path, limit: float) -> Launched | None:
    """What the watcher wrote when ComfyUI was ready or had ended, or when time was over."""
    until = time.monotonic() + limit
    while time.monotonic() < until and watcher.poll() is None:
        seen = launched.read(place)
        if seen is not None and seen.watcher == watcher.pid and seen.state == launched.READY:
            return seen
        time.sleep(0.1)
    seen = launched.read(place)
    return seen if seen is not None and seen.watcher == watcher.pid else None
