"""fleet render: a folder of pictures, spread over the GPUs of a cluster (or its CPUs); a second
start goes on where the first one stopped."""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from doctor.fleet import ledger, told
from doctor.fleet.album import Album, Done, Failed
from doctor.fleet.hand import FOLDER
from doctor.fleet.ledger import Ledger, Picture
from doctor.fleet.places import ANSWERED, Slot, devices
from doctor.fleet.rounds import Patience, rounds
from doctor.options import RECIPE, BadUsage, recipe_words
from doctor.screen import Screen
from doctor.verbs.fleet import LIGHT, common, connected, nodes, planned, refuse_bad_input
from doctor.verbs.patient import Args
from doctor.words import say

LIMIT = 1200.0  # seconds for loading a model and the first pictures
SCHEMA = "comfy-doctor.fleet-render/1"


def render(args: Args, screen: Screen) -> int:
    """0 where every picture lies there in the end; 1 where one does not, with the reason."""
    refuse_bad_input(args)
    there = folder(args.images)
    out = Path(args.out).expanduser()
    found = ledger.pictures(there)
    if not found:
        raise BadUsage(f"--images {args.images}: there is no picture in it")
    if args.dry_run:
        return planned(screen, [one.name for one in found], words(args, ["…"]))
    with ledger.opened(out, settings(args)) as book:
        left = [one for one in found if not book.done(one)]
        screen.news(say("fleet-pictures", screen.lang, all=len(found), left=len(left)))
        began = time.monotonic()
        failed, slots = drawn(args, screen, book, left) if left else ([], [])
        done = len(found) - len(left), sum(map(book.done, left))
        return reported(screen, done, failed, slots, time.monotonic() - began, out)


def folder(named: str) -> Path:
    place = Path(named).expanduser()
    if not place.is_dir():
        raise BadUsage(f"--images {named}: there is no such folder")
    return place


def settings(args: Args) -> dict[str, Any]:
    """What makes a picture what it is; a folder of results holds those of one such setting."""
    names = ("checkpoint", *(name.replace("-", "_") for name in RECIPE))
    return {name: getattr(args, name) for name in names}


def words(args: Args, files: Sequence[str]) -> tuple[str, ...]:
    model = [f"--checkpoint={args.checkpoint}"] if args.checkpoint else []
    where = [f"--device={args.device}"] if args.device else []
    more = [*common(args), *model, *where, *recipe_words(args)]
    return ("fleet", "here", "render", *more, "--out", f"{FOLDER}/out", "--images", *files)


def drawn(
    args: Args, screen: Screen, book: Ledger, left: Sequence[Picture]
) -> tuple[list[Failed], list[dict[str, Any]]]:
    """What failed, and of each slot what it brought and how it ended."""
    failed: list[Failed] = []
    travels = {"runner": True, "without": LIGHT}
    with connected(args, screen, travels) as there:
        slots = devices(nodes(there))
        todo = deque(left)
        album = Album(
            lambda files: words(args, files), todo, len(slots), args.limit or LIMIT, args.retries
        )
        patience = Patience(args.wait, args.at_once, args.retries)
        with closing(rounds(there, slots, album.take, patience)) as ends:
            for end in ends:
                known = set(album.retired)
                for one in album.ended(end):
                    kept(one, book, failed, screen)
                for slot in album.retired.keys() - known:
                    screen.news(told.live(album.retired[slot], screen.lang))
                if count := len(album.left) + sum(map(len, album.out.values())):
                    screen.progress(say("fleet-pictures-left", screen.lang, count=count))
    screen.ticker.clear()
    failed += [Failed(one, say("fleet-nobody-left", "en")) for one in album.left]
    return failed, [row(slot, album) for slot in slots]


def kept(one: Done | Failed, book: Ledger, failed: list[Failed], screen: Screen) -> None:
    """A picture that came is on the disk before the next is looked at."""
    if isinstance(one, Failed):
        failed.append(one)
        screen.news(f"✗ {one.picture.name}: {one.why}")
        return
    when, seconds = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), one.row["seconds"]["total"]
    more = {"slot": str(one.slot), "gpu": one.device, "seconds": seconds, "when": when}
    book.keep(one.picture, one.png, **more)
    screen.news(f"✓ {one.picture.name} → {one.picture.output}  ({one.slot}, {seconds:.1f} s)")


def row(slot: Slot, album: Album) -> dict[str, Any]:
    ended = album.retired.get(slot)
    state, why = (ended.state, ended.why) if ended else (ANSWERED, "")
    return {"slot": str(slot), "pictures": album.brought[slot], "state": state, "why": why}


def reported(
    screen: Screen,
    done: tuple[int, int],
    failed: Sequence[Failed],
    slots: Sequence[dict[str, Any]],
    seconds: float,
    out: Path,
) -> int:
    before, now = done
    counts = {"before": before, "now": now, "failed": len(failed)}
    screen.lines(
        f"? {slot['slot']}: {told.ended(slot['state'], slot['why'], screen.lang)}"
        for slot in slots
        if slot["state"] != ANSWERED
    )
    mark = "✗" if failed else "✓"
    screen.lines([f"{mark} {say('fleet-rendered', screen.lang, folder=out, **counts)}"])
    code = 1 if failed else 0
    rows = [{"picture": one.picture.name, "why": one.why} for one in failed]
    told_ = {"schema": SCHEMA, "exit": code, "done_before": before, "done_now": now}
    screen.object(told_ | {"failed": rows, "slots": list(slots), "seconds": round(seconds, 3)})
    return code
