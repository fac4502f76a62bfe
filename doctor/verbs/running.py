"""status and stop: the ComfyUI that `launch` started, and what is known of one that it did not."""

from dataclasses import asdict
from pathlib import Path

from doctor import launched, locate
from doctor.api import Server
from doctor.facts import Target
from doctor.launch import answers
from doctor.launched import Launched
from doctor.screen import Screen
from doctor.verbs.patient import Args, home, target


def status(args: Args, screen: Screen) -> int:
    """0: it answers; 1: it does not, or nothing runs. For health checks."""
    patient = target(args)
    there = launched.read(home(patient))
    alive = there is not None and there.alive
    good = there is not None and alive and answers(Server(there.url, patience=5.0))
    if there is None or not alive:
        tell_strangers(patient, screen)
        if there is not None:
            screen.say("status-ended", code=there.code, ids=", ".join(there.findings) or "-")
    elif good:
        screen.say("status-ready", url=there.url, pid=there.pid, since=there.since)
        for flag, why in there.flags.items():
            screen.say("kept-flag", flag=flag, why=why)
    else:
        screen.say("status-silent", url=there.url, pid=there.pid, state=there.state)
    known = asdict(there) if there is not None else {}
    screen.object({"schema": "comfy-doctor.status/1", "running": alive, "ready": good} | known)
    return 0 if good else 1


def stop(args: Args, screen: Screen) -> int:
    """End what `launch` started, with all that it started itself. 0: nothing of it runs now."""
    patient = target(args)
    there = launched.read(home(patient))
    if there is None or not there.alive:
        strangers = tell_strangers(patient, screen)
        screen.object({"schema": "comfy-doctor.stop/1", "stopped": None, "strangers": strangers})
        return 1 if strangers else 0
    if args.dry_run:
        screen.say("would-stop", url=there.url, pid=there.pid)
        screen.object({"schema": "comfy-doctor.stop/1", "stopped": None, "would_stop": there.pid})
        return 0
    return stopped(there, screen)


def stopped(there: Launched, screen: Screen) -> int:
    good = launched.end(there)
    screen.say("stopped" if good else "not-stopped", url=there.url, pid=there.pid)
    screen.object({"schema": "comfy-doctor.stop/1", "stopped": there.pid if good else None})
    return 0 if good else 1


def tell_strangers(patient: Target, screen: Screen) -> list[int]:
    """Processes that run this main.py and were not started by `launch`: told, and let alone."""
    pids = [pid for pid, _ in locate.running(Path(str(patient.comfyui)))]
    for pid in pids:
        screen.say("status-stranger", pid=pid)
    if not pids:
        screen.say("status-none")
    return pids
