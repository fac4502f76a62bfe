"""Options: what the command line may say, and the help that teaches it."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from doctor import __version__
from doctor.facts import Refusal
from doctor.words import LANGUAGES

SUMMARY = "Finds out why ComfyUI does not run, puts it right, and proves it with a picture."
EXITS = """exit codes: 0 no error, or verified; 1 errors found or left; 2 bad usage or input;
3 a bug of ours; 4 something essential could not be judged; 130 interrupted"""


class BadUsage(Refusal):
    """The command line asks for something that there is not."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadUsage(f"{message[:1].upper()}{message[1:]}. See: {self.prog} --help")


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
    check.add_argument("--facts", metavar="FILE", help="judge a saved file instead of a machine")
    check.add_argument("--save", metavar="FILE", help="save the facts, for --facts and for tests")
    log = verb("log", "What the log of ComfyUI, pip, uv, git or docker says is wrong.")
    log.add_argument("file", metavar="FILE", help="the log; - for what is piped in")
    log.add_argument("--facts", metavar="FILE", help="saved facts, to decide what a log cannot")
    fix = verb("fix", "Plan a treatment, show it, do it, look again; take it back if it failed.")
    fix.add_argument("ids", nargs="*", metavar="ID", help="findings to cure; default: all")
    undo = verb("undo", "Bring back what the last treatment changed. Needs no network.")
    undo.add_argument("receipt", nargs="?", help="which one; `history` lists them")
    verb("history", "List what was done to this installation.")
    setup = verb("setup", "Make an empty folder into a working ComfyUI.")
    setup.add_argument("folder", metavar="DIR")
    node(verbs, shared)
    launch = verb("launch", "Start ComfyUI with the flags kept for it.")
    launch.add_argument("args", nargs="*", metavar="-- ARGS", help="passed on to main.py")
    run(verb("run", "Check, treat, then prove it: a verified img2img render, timed."))
    explain = verb("explain", "The page of a finding.")
    explain.add_argument("id", metavar="ID")
    verb("list", "All findings there are.")
    return top


def judging(check: argparse.ArgumentParser) -> None:
    check.add_argument(
        "--level",
        type=int,
        choices=(1, 2),
        default=2,
        help="1: metadata only (1 s); 2: imports and devices too (default, 15 s)",
    )
    check.add_argument("--only", nargs="+", action="extend", default=[], metavar="ID")
    check.add_argument(
        "--ignore",
        nargs="+",
        action="extend",
        default=[],
        metavar="ID",
        help="findings that stay visible and do not count",
    )


def node(verbs: "argparse._SubParsersAction[Parser]", shared: Sequence[Parser]) -> None:
    nodes = verbs.add_parser("node", help="Custom nodes.", description="Custom nodes.")
    acts = nodes.add_subparsers(dest="act", metavar="ACTION", required=True, parser_class=Parser)
    help = "Meet the requirements of ComfyUI, all enabled packs and your own file together."
    acts.add_parser("sync", help=help, description=help, parents=shared)
    help = "Fetch a node pack by any route that can prove its commit, with its requirements."
    install = acts.add_parser("install", help=help, description=help, parents=shared)
    install.add_argument("source", metavar="URL[@REF]", help="repository, archive or folder")
    install.add_argument(
        "--allow-unproven",
        action="store_true",
        help="take an archive whose content nothing proves",
    )


def run(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--image", metavar="F", help="the picture to start from")
    verb.add_argument("--checkpoint", metavar="F", help="default: synthetic weights, no download")
    verb.add_argument(
        "--out", metavar="DIR", help="default: a new folder in DIR/.comfy-doctor/runs"
    )
    recipe = verb.add_argument_group("recipe (ComfyUI's names)")
    for name, kind in RECIPE.items():
        recipe.add_argument(f"--{name}", type=kind, metavar="X")


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
