"""Options: what the command line may say, and the help that teaches it."""

import argparse
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn

from doctor import __version__, terminal
from doctor.facts import Refusal
from doctor.words import LANGUAGES

SUMMARY = "Finds out why ComfyUI does not run, puts it right, and proves it with a picture."
EXITS = """exit codes: 0 no error, or verified; 1 errors found or left; 2 bad usage or input;
3 a bug of ours; 4 something essential could not be judged; 130 interrupted"""


class BadUsage(Refusal):
    """The command line asks for something that there is not."""


def language(words: Sequence[str]) -> str:
    """What --lang names, before the rest is read: help and complaints speak it, too; else ""."""
    said = [part for word in words for part in re.split("(?<=^--lang)=", word)]
    named = [after for word, after in pairwise(said) if word == "--lang" and after in LANGUAGES]
    return named[-1] if named else ""


class Parser(argparse.ArgumentParser):
    """No abbreviations: `--js` today could be two options tomorrow, and is no --json."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **more})

    def error(self, message: str) -> NoReturn:
        stray = message.startswith("unrecognized")
        hint = " What is for main.py stands behind --: launch -- --port 8190." if stray else ""
        raise BadUsage(f"{message[:1].upper()}{message[1:]}.{hint} See: {self.prog} --help")


def common() -> Parser:
    options = Parser(add_help=False)
    which = options.add_argument_group("which patient")
    which.add_argument("--comfyui", metavar="DIR", help="the folder that holds main.py")
    which.add_argument("--python", metavar="PY", help="the interpreter to judge, or its venv")
    how = options.add_argument_group("how")
    how.add_argument("--json", action="store_true", help="one JSON object on stdout")
    how.add_argument("--lang", choices=LANGUAGES, help="default: that of the locale")
    how.add_argument("--offline", action="store_true", help="never touch the network")
    how.add_argument("--yes", action="store_true", help="accept the plan without asking")
    how.add_argument("--dry-run", action="store_true", help="show the plan, change nothing")
    how.add_argument("--no-color", action="store_true", help="as NO_COLOR in the environment")
    how.add_argument("-v", "--verbose", action="store_true", help="tell more")
    return options


def parser() -> Parser:
    shared = [common()]
    top = Parser(prog="comfy-doctor", description=SUMMARY, epilog=EXITS)
    top.add_argument("--version", action="version", version=f"comfy-doctor {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="COMMAND", parser_class=Parser)

    def verb(name: str, help: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=help, description=help, parents=shared, epilog=EXITS)

    check = verb("check", "Examine an installation and say what is wrong. Changes nothing.")
    judging(check)
    watched(check)
    within = "ask, too, what is within reach of this machine (8 s at most)"
    check.add_argument("--network", action="store_true", help=within)
    check.add_argument("--facts", metavar="FILE", help="judge a saved file instead of a machine")
    check.add_argument("--save", metavar="FILE", help="save the facts, for --facts and for tests")
    log = verb("log", "What the log of ComfyUI, pip, uv, git or docker says is wrong.")
    log.add_argument("file", metavar="FILE", help="the log; - for what is piped in")
    log.add_argument("--facts", metavar="FILE", help="saved facts, to decide what a log cannot")
    fix = verb("fix", "Plan a treatment, show it, do it, look again; take it back if it failed.")
    fix.add_argument("ids", nargs="*", metavar="ID", help="findings to cure; default: all")
    fix.add_argument("--from-lock", metavar="FILE", help="make the environment of a lock file")
    undo = verb("undo", "Bring back what the last treatment changed. Needs no network.")
    undo.add_argument("receipt", nargs="?", help="which one; `history` lists them")
    verb("history", "List what was done to this installation.")
    setup = verb("setup", "Make an empty folder into a working ComfyUI.")
    setup.add_argument("folder", metavar="DIR")
    whence = "ComfyUI itself as an archive, a folder or an address; default: its own repository"
    setup.add_argument("--source", metavar="FROM", help=whence)
    unproven = "take an archive whose content nothing proves"
    setup.add_argument("--allow-unproven", action="store_true", help=unproven)
    once = "do not start it once at the end, as a test without a server"
    setup.add_argument("--no-start", action="store_true", help=once)
    node(verbs, shared)
    launching(verb("launch", "Start ComfyUI with the flags kept for it, and watch it."))
    verb("status", "Does the ComfyUI that launch started answer? 0: it does.")
    verb("stop", "End the ComfyUI that launch started, and all that it started.")
    smoking(verb("smoke", "A ComfyUI renders, and its picture is held against the runner's."))
    run(verb("run", "Check, treat, then prove it: a verified img2img render, timed."))
    page = verb("report", "The page of the last run: one HTML file, in English and Chinese.")
    page.add_argument("file", nargs="?", metavar="RUN", help="report.json, or the folder it is in")
    page.add_argument("--html", metavar="FILE", help="default: report.html beside report.json")
    fleet(verbs, shared)
    explain = verb("explain", "The page of a finding.")
    explain.add_argument("id", metavar="ID")
    verb("list", "All findings there are.")
    return top


def judging(check: argparse.ArgumentParser) -> None:
    check.add_argument(
        "--level",
        type=int,
        choices=(1, 2, 3, 4),
        default=2,
        help="1: metadata only (1 s); 2: imports and devices too (default, 15 s); 3: a small"
        " render, the allocators and a start of ComfyUI, too (60 s); 4: a full-size render and"
        " the benchmark, too",
    )
    check.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="ID",
        help="findings to look for; default: all",
    )
    check.add_argument(
        "--ignore",
        nargs="+",
        action="extend",
        default=[],
        metavar="ID",
        help="findings that stay visible and do not count",
    )


def watched(verb: argparse.ArgumentParser) -> None:
    """For programs that watch servers."""
    verb.add_argument("--junit", metavar="FILE", help="the verdict as JUnit XML, too")
    verb.add_argument("--metrics", metavar="FILE", help="and as metrics in Prometheus' text format")


def launching(launch: argparse.ArgumentParser) -> None:
    launch.add_argument("args", nargs="*", metavar="-- ARGS", help="passed on to main.py")
    launch.add_argument("--detach", action="store_true", help="in the background; see stop")
    late = "seconds until ComfyUI must answer; default 600"
    launch.add_argument("--limit", type=float, default=600.0, metavar="S", help=late)
    never = "never restart it with a flag that cures a fault"
    launch.add_argument("--no-restart", action="store_true", help=never)
    unit = "write a systemd unit for it, - for stdout; starts nothing"
    launch.add_argument("--systemd", metavar="FILE", help=unit)
    compose = "write a compose file for it, - for stdout; starts nothing"
    launch.add_argument("--compose", metavar="FILE", help=compose)
    script = "write a start script that does the same, and follows the kept flags; starts nothing"
    launch.add_argument("--script", nargs="?", const="", metavar="FILE", help=script)


NODE_EXAMPLES = """\
`comfy-doctor node ACTION --help` has examples. --comfyui DIR names the installation, --dry-run
shows what would be done, --json answers programs, and `comfy-doctor undo` takes the last change
back."""
EXAMPLES = {
    "install": """\
examples:
  comfy-doctor node install comfyui-impact-pack                 by its id in the registry
  comfy-doctor node install https://github.com/OWNER/NAME       its default branch
  comfy-doctor node install https://github.com/OWNER/NAME@v1.2  a tag, a branch or a commit
  comfy-doctor node install ~/Downloads/NAME-main.zip           what a browser saved
Where GitHub is out of reach mirrors are asked by themselves (-v shows each attempt).
GITHUB_ENDPOINT names one of your own, HTTPS_PROXY a proxy. A commit id of 40 digits behind @
lets any mirror deliver, even where the origin cannot be asked at all.""",
    "update": """\
examples:
  comfy-doctor node update               all packs that follow a branch or the registry
  comfy-doctor node update NAME          this one, also where it stands on a tag or a commit
Files that you edited keep a pack from being updated; files that you added are carried along.""",
    "bisect": """\
ComfyUI is started without a server, with half of the packs, then a quarter, until one is left.
Nothing is changed by it. A pack that ComfyUI can go on without is named with its error, too.""",
    "snapshot": """\
examples:
  comfy-doctor node snapshot save before.json
  comfy-doctor node snapshot restore before.json --dry-run
The file is one that ComfyUI-Manager reads, and its own snapshots are read here.""",
}


def smoking(smoke: argparse.ArgumentParser) -> None:
    where = "one that runs: http://HOST:PORT; default: one is started, and ended again"
    smoke.add_argument("--server", metavar="URL", help=where)
    header = "to send along, for a proxy: 'Name: value'; may be repeated"
    smoke.add_argument("--header", action="append", default=[], metavar="H", help=header)
    smoke.add_argument("--token", metavar="T", help="Authorization: Bearer T; @FILE reads it")
    late = "seconds for the start and for each prompt; default 600"
    smoke.add_argument("--limit", type=float, default=600.0, metavar="S", help=late)
    smoke.add_argument("--image", metavar="F", help="the picture to start from; default: 64×64")
    model = "a file, or a name that the server lists; default: synthetic weights, no download"
    smoke.add_argument("--checkpoint", metavar="F", help=model)
    smoke.add_argument("--out", metavar="DIR", help="where the pictures are kept")
    watched(smoke)
    for name, kind in RECIPE.items():
        if name not in ("width", "height"):
            smoke.add_argument(f"--{name}", type=kind, metavar="X")


def node(verbs: "argparse._SubParsersAction[Parser]", shared: Sequence[Parser]) -> None:
    help = "Custom nodes: fetched over any route, proved, and brought in whole or not at all."
    nodes = verbs.add_parser("node", help=help, description=help, epilog=NODE_EXAMPLES)
    acts = nodes.add_subparsers(dest="act", metavar="ACTION", required=True, parser_class=Parser)
    help = "Meet the requirements of ComfyUI, all enabled packs and your own file together."
    acts.add_parser("sync", help=help, description=help, parents=shared)

    def act(name: str, help: str, one: str = "", many: str = "") -> argparse.ArgumentParser:
        more = EXAMPLES.get(name, "")
        parser = acts.add_parser(
            name,
            help=help,
            description=help,
            parents=shared,
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if one or many:
            parser.add_argument("packs", nargs=one or "+", metavar=many or "PACK")
        return parser

    bring = [
        act("install", "Fetch node packs by any route that can prove them, with what they need."),
        act("update", "Bring packs to the newest commit or version; by default all.", "*"),
    ]
    bring[0].add_argument(
        "sources", nargs="+", metavar="SOURCE", help="ID[@VERSION], URL[@REF], archive or folder"
    )
    bring[0].add_argument("--name", help="of the folder in custom_nodes/, for a single pack")
    bring[1].add_argument(
        "--discard-edits", action="store_true", help="leave edited files behind (undo has them)"
    )
    for verb in bring:
        unproven = "take what nothing proves to be what its origin has"
        verb.add_argument("--allow-unproven", action="store_true", help=unproven)
        known = "take what is known to be malicious"
        verb.add_argument("--allow-malware", action="store_true", help=known)
        script = "run each pack's install.py afterwards; what it does is not undone"
        verb.add_argument("--run-install-scripts", action="store_true", help=script)
    act("list", "What is in custom_nodes/: source, commit, state, and how it started last.")
    act("verify", "Hold packs against their commit: edited, missing, added files.", "*")
    act("disable", "Put packs aside, as ComfyUI-Manager does.", "+")
    act("enable", "Bring disabled packs back.", "+")
    act("remove", "Take packs out; `undo` brings them back.", "+")
    bisect = act("bisect", "Find the pack that breaks the start, by starting ComfyUI repeatedly.")
    bisect.add_argument("--limit", type=float, default=180, metavar="S", help="seconds for a start")
    snapshot = act("snapshot", "Save which packs are there, or bring them back to that.")
    snapshot.add_argument("what", choices=("save", "restore"))
    snapshot.add_argument("file", metavar="FILE", help="in ComfyUI-Manager's format and more")
    snapshot.add_argument("--allow-unproven", action="store_true", help=unproven)
    snapshot.set_defaults(discard_edits=False, allow_malware=False, run_install_scripts=False)


FLEET_EXAMPLES = """\
examples:
  comfy-doctor fleet check --local 2 --comfyui ~/ComfyUI            to try it, on this machine
  comfy-doctor fleet check --address HEAD:6379 --comfyui '~/ComfyUI' --html fleet.html
  comfy-doctor fleet render --images photos --out painted --checkpoint '~/models/sd15.safetensors'
--comfyui, --python and --checkpoint are read on each node; ~ and $VARIABLES in them are its own.
Needs Ray: pip install 'comfy-doctor[fleet]'. Nothing is sent to Ray's makers."""
FLEET = {
    "check": "Examine every node: what is wrong where, and which of them stands out.",
    "run": "check, and treat with --yes, and prove it: a verified render on every node and GPU.",
    "bench": "The sampler's speed on every node and GPU, and who is slower than its siblings.",
    "render": "A folder of pictures, spread over all GPUs; a second start does only the rest.",
    "here": "One node's part, on this machine: what is started there.",
}


def fleet(verbs: "argparse._SubParsersAction[Parser]", shared: Sequence[Parser]) -> None:
    help = "The same on the many machines of a Ray cluster: one report, one exit code."
    top = verbs.add_parser("fleet", help=help, description=help)
    acts = top.add_subparsers(dest="act", metavar="ACTION", required=True, parser_class=Parser)
    for name, help in FLEET.items():
        act = acts.add_parser(
            name,
            help=help,
            description=help,
            parents=shared,
            epilog=FLEET_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for add in PARTS[name]:
            add(act)


def starting(act: argparse.ArgumentParser) -> None:
    act.add_argument("--image", metavar="F", help="the picture to start from; of each node")


def modelled(act: argparse.ArgumentParser) -> None:
    model = "a file of each node; default: a small model that comes along"
    act.add_argument("--checkpoint", metavar="F", help=model)


def timed(act: argparse.ArgumentParser) -> None:
    act.add_argument("--model", default="embedded", help="sd15, sd21, sdxl, embedded or a file")
    for option, usual, help in BENCH:
        act.add_argument(option, type=int, default=usual, metavar="N", help=help)


def stepped(act: argparse.ArgumentParser) -> None:
    act.add_argument("--steps", type=int, default=10, metavar="N", help="per run; default 10")


def placed(act: argparse.ArgumentParser) -> None:
    which = "cpu, cuda ...; default: the best there is, and of a GPU's part its GPU"
    act.add_argument("--device", metavar="D", help=which)


def foldered(act: argparse.ArgumentParser) -> None:
    help = "the folder of pictures, on this machine; folders in it, too"
    act.add_argument("--images", metavar="DIR", required=True, help=help)
    help = "for the pictures that come back, and for what is noted of them"
    act.add_argument("--out", metavar="DIR", required=True, help=help)


def parted(here: argparse.ArgumentParser) -> None:
    here.add_argument("what", choices=[one for one in FLEET if one != "here"])
    here.set_defaults(network=False, facts=None, html=None, dry_run=False)
    here.add_argument("--images", nargs="+", default=[], metavar="F", help="of render")
    here.add_argument("--out", metavar="DIR", help="of render")


BENCH = (
    ("--size", 64, "pixels a side; default 64"),
    ("--batch", 1, "pictures at once; default 1"),
    ("--runs", 3, "timed runs; default 3"),
)


def clustered(act: argparse.ArgumentParser) -> None:
    where = act.add_argument_group("which cluster")
    there = "of Ray's head: HOST:6379, ray://HOST:10001; default: $RAY_ADDRESS, or this machine's"
    where.add_argument("--address", metavar="A", help=there)
    here = "no cluster: so many nodes on this machine, to try it"
    where.add_argument("--local", type=int, metavar="N", help=here)
    own = "the Python that has a doctor on each node; default: this doctor travels there"
    where.add_argument("--installed", metavar="PY", help=own)
    how = act.add_argument_group("how long, how often")
    late = "seconds for each node; then its part is stopped, and not judged"
    how.add_argument("--limit", type=float, metavar="S", help=late)
    queue = "seconds until a node must have begun; default 120"
    how.add_argument("--wait", type=float, default=120.0, metavar="S", help=queue)
    tries = "more tries after anything but an answer; default 1"
    how.add_argument("--retries", type=int, default=1, metavar="N", help=tries)
    most = "parts under way at once; default 256"
    how.add_argument("--at-once", type=int, default=256, metavar="N", help=most)
    act.add_argument("--html", metavar="FILE", help="the report as a page for people, too")


def run(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--image", metavar="F", help="the picture to start from")
    verb.add_argument("--checkpoint", metavar="F", help="default: a small model that comes along")
    verb.add_argument(
        "--out", metavar="DIR", help="default: a new folder in DIR/.comfy-doctor/runs"
    )
    where = "the page for people; default: report.html beside the picture"
    verb.add_argument("--html", metavar="FILE", help=where)
    shown = "the picture while it is sampled, in terminals that can show one; default auto"
    verb.add_argument("--preview", choices=terminal.CHOICES, default="auto", help=shown)
    drawing(verb)


def drawing(verb: argparse.ArgumentParser) -> None:
    recipe = verb.add_argument_group("recipe (ComfyUI's names)")
    for name, kind in RECIPE.items():
        recipe.add_argument(f"--{name}", type=kind, metavar="X")


PARTS = {  # what an action is asked; `here` is asked what any of them is
    "check": (clustered, judging),
    "run": (clustered, starting, modelled, drawing),
    "bench": (clustered, timed, stepped, placed),
    "render": (clustered, foldered, modelled, drawing, placed),
    "here": (parted, judging, starting, modelled, drawing, timed, placed),
}

RECIPE = {
    "positive": str,
    "negative": str,
    "steps": int,
    "cfg": float,
    "sampler-name": str,
    "scheduler": str,
    "denoise": float,
    "seed": int,
    "width": int,
    "height": int,
}


def recipe_words(args: argparse.Namespace) -> list[str]:
    """What was asked of the recipe, as options of the runner, which are named like ours."""
    asked = {name: getattr(args, name.replace("-", "_")) for name in RECIPE}
    return [f"--{name}={value}" for name, value in asked.items() if value is not None]
