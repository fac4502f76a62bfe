"""The command line: from words to a verb, and from whatever happens to an exit code.

Exit codes are fixed (schema 1): 0 no error, 1 errors found or left, 2 bad usage or input, 3 a
bug of ours, 4 something essential could not be judged, 130 interrupted.
"""

import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from doctor import options, spoken
from doctor.facts import Refusal
from doctor.screen import Screen
from doctor.words import language, sentence

VERBS = {  # command -> module below doctor.verbs, and function; imported when it is asked for
    "check": ("check", "check"),
    "log": ("log", "log"),
    "fix": ("treatment", "fix"),
    "undo": ("treatment", "undo"),
    "history": ("treatment", "history"),
    "setup": ("treatment", "setup"),
    "node install": ("node", "install"),
    "node update": ("node", "update"),
    "node list": ("packs", "show"),
    "node verify": ("packs", "verify"),
    "node disable": ("packs", "disable"),
    "node enable": ("packs", "enable"),
    "node remove": ("packs", "remove"),
    "node snapshot": ("nodeset", "snapshot"),
    "node bisect": ("bisect", "bisect"),
    "node sync": ("sync", "run"),
    "launch": ("launch", "launch"),
    "status": ("running", "status"),
    "stop": ("running", "stop"),
    "smoke": ("smoke", "smoke_test"),
    "run": ("run", "run"),
    "report": ("page", "report"),
    "fleet check": ("fleet", "check"),
    "fleet run": ("fleet", "run"),
    "fleet bench": ("fleet", "bench"),
    "fleet render": ("album", "render"),
    "fleet here": ("here", "here"),
    "explain": ("explain", "explain"),
    "list": ("explain", "list_all"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. Nothing but this catches what nobody expected."""
    words = list(sys.argv[1:] if argv is None else argv)
    be_robust()
    own = words[: words.index("--")] if "--" in words else words  # the rest is main.py's
    lang = options.language(own) or language()
    screen = Screen(lang, "--json" in own, "--no-color" in own)
    try:
        return obey(words, screen)
    except Refusal as error:
        return refuse(screen, sentence(error, screen.lang), error.code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return refuse(screen, f"{where}{error.strerror or error}.", 2)
    except KeyboardInterrupt:
        screen.say("interrupted")
        screen.object(failure("interrupted", "Interrupted.", 130))
        return 130
    except Exception:  # noqa: BLE001  (our bug: told, with where the details are)
        return bug(screen)
    finally:
        screen.close()


def obey(words: Sequence[str], screen: Screen) -> int:
    parser = options.parser()
    if screen.lang != "en" and (not words or {"-h", "--help"} & set(words)):
        spoken.speak(parser, screen.lang)
    args = parser.parse_args(words)
    if args.verb is None:
        parser.print_help()
        return 2
    screen.verbose = args.verbose
    screen.preview = getattr(args, "preview", screen.preview)
    module, function = VERBS.get(f"{args.verb} {getattr(args, 'act', '')}") or VERBS[args.verb]
    code: int = getattr(import_module(f"doctor.verbs.{module}"), function)(args, screen)
    return code


def be_robust() -> None:
    """What a console cannot print gets plainer; being asked to end is an interruption."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="plainer")  # type: ignore[union-attr]
    for name in ("SIGTERM", "SIGHUP"):
        with suppress(AttributeError, ValueError, OSError):
            signal.signal(getattr(signal, name), interrupt)


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def refuse(screen: Screen, sentence: str, code: int) -> int:
    """One clear sentence; with --json, an object that says the same."""
    screen.complain(sentence)
    screen.object(failure("refused", sentence, code))
    return code


def failure(id: str, message: str, code: int) -> dict[str, object]:
    """comfy-doctor.error/1: what stands in the place of an answer."""
    return {
        "schema": "comfy-doctor.error/1",
        "error": {"id": id, "message": message},
        "exit": code,
    }


def bug(screen: Screen) -> int:
    folder = Path(tempfile.mkdtemp(prefix="comfy-doctor-bug-"))
    path = folder / "report.txt"
    path.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
    last = traceback.format_exc().splitlines()[-1]
    screen.complain(last)
    screen.say("bug", path=path)
    screen.object(failure("our-bug", f"{last} ({path})", 3))
    return 3
