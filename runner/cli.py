"""The command line: the one place that prints, and that turns what happened into exit codes.

0 done, or the verdict is passed; 1 the verdict is failed, or the picture is not finite;
2 bad usage or input; 3 a fault of the runner; 130 interrupted.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from runner import early, many
from runner.announcer import Announcer
from runner.arguments import (
    LANGUAGES,
    Parser,
    about_bench,
    about_depth,
    about_judged,
    about_levers,
    about_many,
    about_model,
    about_placement,
    about_prove,
    about_recipe,
    about_synthetic,
    about_workflow,
    beside,
    spoken,
)
from runner.recipe import Progress, Recipe, Refused
from runner.report import (
    bench_lines,
    language,
    render_lines,
    say,
    verify_lines,
    workflow_lines,
)

if TYPE_CHECKING:  # torch is imported where it is used: `--help` must not wait for it
    from runner.checkpoint import Checkpoint
    from runner.devices import Placement
    from runner.gate import Subject
    from runner.pipeline import Models

Json = dict[str, Any]
Answer = tuple[int, Json, list[str]]  # exit code, the JSON object, lines for a person
POSITIVE = "a dog with a hat"  # what is asked for where nothing is, of a model of everything
SHORT = 10  # steps (measured at 256 x 256: 0.9 s sooner to the first, 0.07 s longer each)
SPINS = "10000"  # rounds a thread of libgomp waits awake; its own 300,000 starve a busy machine


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    lang = language(spoken(arguments))
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is imported
    try:
        with ended_like_interrupted():
            options = parser().parse_args(arguments)
            options.words = arguments
            if getattr(options, "checkpoint", None):
                early.begin(options.checkpoint, options.device, stays(options))
            code, answer, lines = options.run(options, announcer(options, lang), lang)
        tell(json.dumps(answer, allow_nan=False) if options.json else "\n".join(lines))
        return int(code)
    except Refused as refused:
        return stopped(arguments, 2, refused, say("refused", lang, message=refused))
    except KeyboardInterrupt:
        line = say("interrupted", lang)
        return stopped(arguments, 130, Refused("interrupted", "interrupted"), line)
    except Exception as error:  # noqa: BLE001 - the last stop: told in full, with its own code
        known = expected(error)
        if known:
            return stopped(arguments, 2, known, say("refused", lang, message=known))
        fault = Refused("our-bug", f"{type(error).__name__}: {error}")
        return stopped(arguments, 3, fault, f"{say('bug', lang)}\n{paste_ready(arguments)}")


def tell(text: str) -> None:
    """Print on stdout in UTF-8 whatever the locale; a reader who left early is not an error."""
    with suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stopped(arguments: Sequence[str], code: int, why: Refused, line: str) -> int:
    """Say why on stderr, and with --json on stdout, too; the exit code."""
    with suppress(AttributeError, ValueError):
        sys.stderr.reconfigure(errors="replace")  # type: ignore[union-attr]
    print(line, file=sys.stderr)
    if "--json" in arguments:
        command = next((word for word in arguments if word in COMMANDS), "usage")
        error = {"id": why.id, "message": str(why)}
        tell(json.dumps({"schema": f"runner.{command}/1", "error": error}))
    return code


@contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """Being asked to end is an interruption: what is not whole is taken away first."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: there is nothing to arrange
        before = None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def expected(error: Exception) -> Refused | None:
    """What a machine may lack without anybody's fault: a package, or memory."""
    if isinstance(error, ImportError) and not (error.name or "").startswith("runner"):
        return Refused("import-failed", f"{error.name or 'A package'} cannot be imported: {error}.")
    words = str(error).lower()
    if isinstance(error, MemoryError) or "out of memory" in words or "can't allocate" in words:
        return Refused("not-enough-memory", "There was not enough memory for this.")
    return None


def paste_ready(arguments: Sequence[str]) -> str:
    torch = sys.modules.get("torch")
    here = f"Python {platform.python_version()}, {platform.platform()}"
    return "\n".join(
        [
            f"runner {' '.join(arguments)}",
            f"{here}, torch {getattr(torch, '__version__', 'not imported')}",
            traceback.format_exc().rstrip(),
        ]
    )


def announcer(options: argparse.Namespace, lang: str) -> Announcer:
    style = options.progress or ("tty" if sys.stderr.isatty() else "lines")
    return Announcer(style, lang)


def parser() -> Parser:
    top = Parser(prog="runner", description="img2img as ComfyUI computes it, verified.")
    commands = top.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name, (run, about, more) in COMMANDS.items():
        one = commands.add_parser(name, help=about, description=about)
        one.set_defaults(run=run)
        one.add_argument("--json", action="store_true", help="one JSON object on stdout")
        one.add_argument("--lang", choices=LANGUAGES)
        one.add_argument("--progress", choices=("json", "lines", "none"))
        one.add_argument("--threads", type=int, help="of the CPU; another number, other last bits")
        for add in more:
            add(one)
    return top


def renders(options: argparse.Namespace, tell: Progress, lang: str) -> Answer:
    recipe = asked_for(options)
    if not (options.image or options.images or options.embedded):
        raise Refused("no-image", "No picture was given: --image FILE.")
    from runner.rendered import rendered

    checkpoint, placement = chosen(options), placed(options)
    models, seconds = loaded(checkpoint, placement, tell, options.without, stays(options))

    def one(asked: argparse.Namespace) -> Json:
        return rendered(models, recipe, asked, tell, {"weights": seconds}, lang)

    answer = many.drawn(options, one) if options.images else one(options)
    lines = many.lines(answer, partial(render_lines, lang=lang))
    return 0 if answer["finite"] else 1, answer, list(lines)


def asked_for(options: argparse.Namespace) -> Recipe:
    """The recipe in the options, checked, with both output paths, before anything slow."""
    from runner import embedded
    from runner.pipeline import named
    from runner.pixels import can_write, load

    names = Recipe.__dataclass_fields__
    asked = {name: getattr(options, name) for name in names}
    if asked["positive"] is None:
        asked["positive"] = embedded.POSITIVE if options.embedded else POSITIVE
    if asked["scheduler"] is None:
        asked["scheduler"] = embedded.SCHEDULER if options.embedded else Recipe("").scheduler
    recipe = named(Recipe(**asked))
    if options.embedded:
        recipe = embedded.native(recipe)
    for path in (*many.outs(options), options.trace):
        if path:
            can_write(path)
    if options.image:
        load(options.image)  # refused now, and not after the weights
    if options.page:
        from runner import page

        page.can_write(options.page)
    return recipe


def chosen(options: argparse.Namespace) -> "Checkpoint":
    """The checkpoint in the options, with what they put beside it."""
    from runner import checkpoint, embedded, sources, synthetic

    if options.embedded:
        return sources.changed(embedded.read(), **beside(options))
    if options.checkpoint:
        return sources.changed(checkpoint.read(options.checkpoint), **beside(options))
    if options.synthetic:
        return sources.changed(synthetic.checkpoint(options.synthetic), **beside(options))
    there = "--checkpoint FILE, --embedded or --synthetic sd15"
    raise Refused("no-checkpoint", f"No model was given: {there}.")


def placed(options: argparse.Namespace) -> "Placement":
    """Where to compute; the number of threads is set here, once."""
    from runner import devices

    if options.threads is not None:
        devices.set_threads(options.threads)
    return devices.choose(getattr(options, "device", None), getattr(options, "dtype", None))


def stays(options: argparse.Namespace) -> bool:
    """Whether weights stay in their file: a run is over before they repay being widened once."""
    long = options.run is not renders or options.images or options.steps > SHORT
    other = options.lora or options.dtype not in (None, "float32")
    return not (long or other or {"mapped", "all"} & set(options.without))


def loaded(
    checkpoint: "Checkpoint",
    placement: "Placement",
    tell: Progress,
    without: Sequence[str] = (),
    mapped: bool = False,
) -> tuple["Models", float]:
    """The models and the seconds it took to have them; `without` names levers left alone."""
    from runner import heap
    from runner.devices import threads
    from runner.pipeline import load

    start = time.perf_counter()
    models = load(checkpoint, placement, threads(), tell, mapped)
    if without:
        models = replace(models, denoiser=models.denoiser.without(without))
    if "heap" in models.denoiser.levers:
        heap.keep()
    return models, time.perf_counter() - start


def executes(options: argparse.Namespace, tell: Progress, lang: str) -> Answer:
    """A ComfyUI graph, from a file or out of a picture; exit 1 if a picture is not finite."""
    from runner import devices, graph, trace, workflow
    from runner.folders import Folders
    from runner.pixels import can_write

    asked = graph.read(options.graph)
    folders = Folders.of(options.comfyui)
    given = {"input": options.input, "output": options.output, "temp": options.temp}
    folders = replace(folders, **{name: path for name, path in given.items() if path})
    if options.models:
        folders = replace(folders, models=tuple(options.models))
    if options.trace:
        can_write(options.trace)
    placement = placed(options)
    done = workflow.execute(asked, folders, placement, devices.threads(), tell)
    answer = done.to_json(placement)
    if options.trace:
        trace.save(trace.Trace(done.tensors()), options.trace, {"workflow": asked.source})
        answer["files"].append(str(options.trace))
    return 0 if answer["finite"] else 1, answer, list(workflow_lines(answer, lang))


def makes(options: argparse.Namespace, tell: Progress, lang: str) -> Answer:
    from runner import devices, pixels, synthetic

    pixels.can_write(options.out)
    placed(options)
    start = time.perf_counter()
    size = synthetic.write(options.model, options.out, devices.threads(), tell)
    answer = {
        "schema": "runner.synthetic/1",
        "model": options.model,
        "files": [str(options.out)],
        "bytes": size,
        "seconds": time.perf_counter() - start,
    }
    return 0, answer, [say("wrote", lang, files=options.out, size=size / 1e9)]


def verifies(options: argparse.Namespace, tell: Progress, lang: str) -> Answer:
    _, answer = verified(options, tell)
    return 0 if answer["passed"] else 1, answer, list(verify_lines(answer, lang))


def verified(options: argparse.Namespace, tell: Progress) -> tuple["Models | None", Json]:
    """The models that were judged (none at depth 1), and the object of schema runner.verify/1.

    In float32 unless another precision is asked for: that is what the golden numbers are in.
    """
    from runner.devices import choose, exact
    from runner.verify import verify

    placed(options)
    placement = choose(options.device, options.dtype or "float32")
    asked = subjects(options)
    kept: list[Models] = []
    seconds: dict[str, float] = {}

    def load(name: str) -> "Subject":
        from runner.gate import Subject
        from runner.golden import known

        models, took = loaded(asked[name], placement, tell, options.without)
        seconds["weights"] = seconds.get("weights", 0.0) + took
        kept.extend([models] if len(asked) == 1 else [])
        return Subject(models, asked[name], known(name))

    start = time.perf_counter()
    with exact(placement):
        loads = {name: partial(load, name) for name in asked}
        verdict = verify(options.depth, placement, loads, tell)
    seconds["total"] = time.perf_counter() - start
    return kept[0] if kept else None, verdict.to_json() | {"seconds": seconds}


def subjects(options: argparse.Namespace) -> dict[str, "Checkpoint"]:
    """What `verify` judges, by name: synthetic models, or a checkpoint of one's own."""
    from runner import checkpoint, synthetic

    if getattr(options, "judge", None):
        return {options.judge.name: checkpoint.read(options.judge)}
    names = getattr(options, "model", None) or ["sd15"]
    if "all" in names:
        names = list(synthetic.MODELS)
    return {name: synthetic.checkpoint(name) for name in names}


def benches(options: argparse.Namespace, tell: Progress, lang: str) -> Answer:
    from runner import bench, checkpoint, embedded, history, plots, synthetic

    earlier = history.read(options.compare) if options.compare else []
    placement = placed(options)
    if options.allocators:
        return under_both(options, placement, lang)
    names = ("batch", "steps", "runs", "warmup")
    chosen = {name: getattr(options, name) for name in names}
    asked = [bench.settings_for(options.model, placement, size=s, **chosen) for s in options.size]
    if options.model in synthetic.MODELS:
        weights = synthetic.checkpoint(options.model)
    elif options.model == embedded.NAME:
        weights = embedded.read()
    else:
        weights = checkpoint.read(Path(options.model))
    models, _ = loaded(weights, placement, tell, options.without)
    results = [bench.measure(models, settings, tell).to_json() for settings in asked]
    answer = results[0]
    if len(results) > 1:
        answer["sizes"] = [bench.short(one) for one in results]
    if earlier:
        answer["times_as_fast"] = history.compare(answer, history.newest(answer, earlier))
    if options.history:
        answer |= history.beside(options.history, results)
    return 0, answer, [*bench_lines(answer, lang), *plots.lines(answer, lang)]


def under_both(options: argparse.Namespace, placement: "Placement", lang: str) -> Answer:
    from runner import allocators

    if placement.device.type != "cuda":
        what = f"--allocators compares memory of NVIDIA cards; this is {placement.device}."
        raise Refused("no-cuda-device", what)
    answer = allocators.compared(options.words, allocators.child)
    return 0, answer, list(bench_lines(answer, lang))


def proves(options: argparse.Namespace, tell: Progress, lang: str) -> Answer:
    """verify, render and bench with one loaded model: what the doctor's `run` asks for."""
    from runner import bench, synthetic
    from runner.pipeline import recast
    from runner.rendered import rendered

    recipe = asked_for(options)
    own = chosen(options) if options.checkpoint or options.embedded else None
    placement = placed(options)
    models, verdict = verified(options, tell)
    before = {"weights": verdict["seconds"].get("weights", 0.0)}
    timed, brief = None, {n: vars(options)[f"bench_{n}"] for n in ("size", "steps", "runs")}
    if options.embedded and models is not None:  # the full-size one is timed, the other looked at
        models = recast(models, placement)
        timed = bench.briefly(models, tell, **brief)
    if own or models is None:
        del models
        fresh = own or synthetic.checkpoint("sd15")
        models, before["weights"] = loaded(fresh, placement, tell, options.without)
    models = recast(models, placement)
    render = rendered(models, recipe, options, tell, before, lang)
    timed = timed or bench.briefly(models, tell, **brief)
    answer = {"schema": "runner.prove/1", "verify": verdict, "render": render, "bench": timed}
    lines = [*verify_lines(verdict, lang), *render_lines(render, lang), *bench_lines(timed, lang)]
    return 0 if verdict["passed"] and render["finite"] else 1, answer, lines


COMMANDS: dict[str, tuple[Any, str, tuple[Any, ...]]] = {
    "render": (
        renders,
        "One picture from a picture, as ComfyUI's nodes compute it.",
        (about_model, about_placement, about_levers, about_recipe, about_many),
    ),
    "workflow": (
        executes,
        "A ComfyUI graph in API format, or a picture that carries one, executed here.",
        (about_placement, about_workflow),
    ),
    "synthetic": (makes, "Write the synthetic checkpoint to a file.", (about_synthetic,)),
    "verify": (
        verifies,
        "The ladder of gates: is every stage right on this machine?",
        (about_depth, about_judged, about_placement, about_levers),
    ),
    "bench": (benches, "Sampler steps per second.", (about_bench, about_placement, about_levers)),
    "prove": (
        proves,
        "verify, render and bench in one process, with the weights loaded once.",
        (about_depth, about_model, about_placement, about_levers, about_recipe, about_prove),
    ),
}
