"""smoke: a running ComfyUI, or one started for it, renders the img2img graph; its picture is held
against the runner's of the same graph and checkpoint."""

import base64
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import uuid4

from doctor import handoff, locate, pictures, report, smoke, tensors
from doctor.api import Server
from doctor.facts import Target
from doctor.img2img import PICTURE, Case, graph
from doctor.mirrors import Unreachable, loopback, redacted
from doctor.options import BadUsage
from doctor.prompt import NotExecuted
from doctor.receipts import open_home
from doctor.screen import Screen
from doctor.smoke import Gate, Shot
from doctor.verbs import log
from doctor.verbs.patient import Args, home, target
from doctor.verbs.served import NotServed, Place, checkpoint_into, started
from doctor.verbs.told import of_smoke
from doctor.words import reasoned, say

OURS = "comfy-doctor"  # the folder below the server's temp, and the prefix of latents


class Smoke:
    """One smoke test: gates as they are judged, and what they rest on."""

    def __init__(self, args: Args, screen: Screen, scratch: Path) -> None:
        self.args, self.screen, self.scratch = args, screen, scratch
        self.gates: list[Gate] = []
        self.shots: dict[str, Shot] = {}
        self.case = Case(image="", **asked(args))
        self.name = f"{uuid4().hex[:12]}.png"
        self.picture = given(args)
        self.stats: Mapping[str, Any] = {}

    def judge(self, *gates: Gate) -> None:
        self.gates += gates
        self.screen.lines(line(gate, self.screen.lang) for gate in gates)

    @property
    def verdict(self) -> str:
        verdicts = {gate.verdict for gate in self.gates}
        return smoke.FAILED if smoke.FAILED in verdicts else smoke.PASSED

    def ask(self, place: Place) -> None:
        """Everything the server is asked; what it answers wrongly is a gate that failed."""
        try:
            self.stats = place.server.get("/system_stats")
            if not isinstance(self.stats, dict) or "system" not in self.stats:
                self.judge(smoke.failed("server", "/system_stats is not that of ComfyUI"))
                return
            self.judge(smoke.passed("server", version(self.stats)))
            if self.ready(place):
                self.shoot(place)
        except NotExecuted as error:
            self.judge(smoke.told(error))
        except Unreachable as error:
            self.judge(smoke.failed("server", str(error)))
        finally:
            self.tidy(place)

    def ready(self, place: Place) -> bool:
        """The picture is up, and the server has what the graph needs."""
        info = place.server.get("/object_info")
        models = smoke.offers(info, "CheckpointLoaderSimple", "ckpt_name")
        name = place.checkpoint or next(iter(models), "")
        up = place.server.upload(self.name, self.picture, OURS)
        if not isinstance(up, dict) or not isinstance(up.get("name"), str):
            raise NotExecuted("/upload/image does not say where the picture lies")
        where = "/".join(filter(None, [str(up.get("subfolder", "")), up["name"]]))
        self.case = replace(self.case, image=f"{where} [temp]", checkpoint=name)
        found = list(smoke.lacking(info, graph(self.case, OURS if place.own else ""), self.case))
        self.judge(*found)
        return all(gate.verdict != smoke.FAILED for gate in found)

    def shoot(self, place: Place) -> None:
        for name, case in smoke.variants(self.case).items():
            latents = OURS if place.own and name == "first" else ""

            def heard(node: str, done: int, of: int, name: str = name) -> None:
                count = f" {done}/{of}" if of else ""
                what = say(f"shot-{name}", self.screen.lang)
                self.screen.step(f"{what}: {node}{count}", f"{name}")

            shot = smoke.shoot(place.server, case, latents, self.args.limit, heard)
            self.screen.ticker.clear()
            self.shots[name] = shot
            if name == "first" or shot.executed.failed is not None:
                self.judge(smoke.executed(shot))
            if shot.executed.failed is not None:
                self.explain(shot)
                return
            if shot.picture is None:
                break  # nothing that comes after could be judged
        self.judge(*smoke.alone(self.shots["first"]))
        if len(self.shots) < len(smoke.ORDER):
            return
        first, seed, text, again = (self.shots[name] for name in smoke.ORDER)
        self.judge(*smoke.together(first, again, seed, text))

    def explain(self, shot: Shot) -> None:
        """The page of an exception, by the symptoms of its traceback."""
        from doctor import cures
        from doctor.manifest import world

        wrong = shot.executed.failed
        if wrong is not None and not wrong.interrupted:
            text = f"{wrong.trace}\n{wrong.exception}: {wrong.message}\n"
            judgement = cures.judged(text.encode("utf-8", "replace"), None, world())
            self.screen.lines(log.text(judgement, self.screen.lang))
            if judgement.symptoms:
                found = judgement.symptoms[0].finding.id
                self.gates[-1] = replace(self.gates[-1], finding=found)

    def tidy(self, place: Place) -> None:
        """Our files in the temp folder of a server of this machine; its own are its own."""
        if not place.comfyui or not self.case.image:
            return
        temp = Path(place.comfyui, "temp")
        mine = [temp / self.case.image.removesuffix(" [temp]")]
        for shot in self.shots.values():
            file = smoke.first_file(shot.executed, PICTURE, "images")
            mine += [temp / file["subfolder"] / file["filename"]] if file else []
        for path in mine:
            with suppress(OSError, ValueError):
                if temp.resolve() in path.resolve().parents:
                    path.unlink()
        with suppress(OSError):
            (temp / OURS).rmdir()

    def compare(self, patient: Target | None, place: Place) -> Sequence[Path]:
        """The runner's picture of the same graph, and the gates that hold them together."""
        first = self.shots.get("first")
        if first is None or first.executed.failed is not None:
            return []
        if patient is None or patient.python is None or not place.models:
            for stage in ("encode", "sample", "picture"):
                self.judge(smoke.not_judged(stage, say("not-at-hand", self.screen.lang)))
            return []
        try:
            said = self.render(patient, place)
        except handoff.HandoffFailed as error:
            self.judge(smoke.not_judged("picture", str(error)))
            return []
        ours = pictures.opened(Path(said["pictures"][0]["file"]).read_bytes())
        trace = tensors.read((self.scratch / "trace.safetensors").read_bytes())
        why = apart(self.stats, said)
        self.judge(*smoke.against(first, ours, trace, why, str(said["dtype"])))
        if parted := smoke.parting(self.gates):
            self.screen.lines(["! " + say("parts-at", self.screen.lang, stage=parted)])
        return self.keep(patient, first, ours)

    def render(self, patient: Target, place: Place) -> dict[str, Any]:
        """runner.workflow/1 of the graph that the server was given."""
        lies = self.scratch / "runner" / self.case.image.removesuffix(" [temp]")
        lies.parent.mkdir(parents=True, exist_ok=True)
        lies.write_bytes(self.picture)
        file = self.scratch / "graph.json"
        file.write_text(json.dumps(graph(self.case)), encoding="utf-8")
        words = ["workflow", str(file), "--models", place.models]
        words += ["--temp", str(self.scratch / "runner")]
        words += ["--trace", str(self.scratch / "trace.safetensors")]
        self.screen.progress(say("runner-renders", self.screen.lang))
        said = handoff.ask_runner(patient, words, lambda event: None)
        self.screen.ticker.clear()
        return said

    def keep(self, patient: Target, shot: Shot, ours: Any) -> Sequence[Path]:
        stamp = time.strftime("smoke-%Y%m%d-%H%M%S")
        out = Path(self.args.out) if self.args.out else home(patient) / "runs" / stamp
        if not self.args.out:
            open_home(home(patient))
        out.mkdir(parents=True, exist_ok=True)
        files = [out / "server.png", out / "runner.png", out / "side-by-side.png"]
        assert shot.picture is not None
        shot.picture.save(files[0])
        ours.save(files[1])
        pictures.side_by_side(files[2], pictures.opened(self.picture), shot.picture, ours)
        return files


def smoke_test(args: Args, screen: Screen) -> int:
    refuse(args)
    if args.dry_run:
        where = redacted(args.server) if args.server else str(target(args).comfyui)
        screen.say("smoke-plan", where=where, prompts=len(smoke.ORDER))
        screen.object({"schema": "comfy-doctor.smoke/1", "verdict": None, "server": where})
        return 0
    with tempfile.TemporaryDirectory(prefix="comfy-doctor-smoke-") as folder, ExitStack() as stack:
        test = Smoke(args, screen, Path(folder))
        patient = patient_of(args)
        try:
            place = stack.enter_context(served(args, patient, Path(folder), screen))
            test.ask(place)
        except NotServed as error:
            test.judge(smoke.failed("start", str(error), first_id(error)))
            if error.judgement is not None:
                screen.lines(log.text(error.judgement, screen.lang))
            place = Place(Server(""))
        stack.close()  # a server of ours ends before the runner needs the memory
        files = test.compare(patient, place)
        return told(test, patient, place, files)


def first_id(error: NotServed) -> str:
    symptoms = error.judgement.symptoms if error.judgement else ()
    return symptoms[0].finding.id if symptoms else ""


def served(args: Args, patient: Target | None, scratch: Path, screen: Screen) -> Any:
    """The context of the server that is asked."""
    if args.server:
        url, login = apart_from_login(args.server)
        sent = {**login, **headers(args)}
        server = Server(url, sent, patience=min(args.limit, 30.0))
        return nullcontext(elsewhere(args, patient, server, scratch))
    if patient is None or patient.comfyui is None or patient.python is None:
        raise BadUsage("smoke asks a server (--server URL) or starts one (--comfyui DIR)")
    if not locate.is_comfyui(Path(patient.comfyui)):
        raise BadUsage(f"{patient.comfyui} holds no ComfyUI to start")
    screen.progress(say("preparing", screen.lang))
    name = prepared(args, patient, scratch, screen)
    return started(patient, scratch, name, args.limit, screen.progress)


def prepared(args: Args, patient: Target, scratch: Path, screen: Screen) -> str:
    (scratch / "models" / "checkpoints").mkdir(parents=True)
    return checkpoint_into(scratch / "models", args.checkpoint, patient, screen.progress)


def elsewhere(args: Args, patient: Target | None, server: Server, scratch: Path) -> Place:
    """A server that runs already; its checkpoint is at hand where it is a file here."""
    here = str(patient.comfyui) if patient is not None and patient.comfyui else ""
    local = here if here and loopback(server.url) else ""
    name = args.checkpoint or ""
    file = Path(name).expanduser() if name else None
    if file is not None and file.is_file() and patient is not None:
        (scratch / "models" / "checkpoints").mkdir(parents=True)
        checkpoint_into(scratch / "models", name, patient, lambda what: None)
        return Place(server, checkpoint=file.name, models=str(scratch / "models"), comfyui=local)
    models = Path(here, "models") if here else None
    known = models is not None and name and (models / "checkpoints" / name).is_file()
    return Place(server, checkpoint=name, models=str(models) if known else "", comfyui=local)


def patient_of(args: Args) -> Target | None:
    """The installation at hand; none is needed to ask a server."""
    if not args.server or args.comfyui or args.python:
        return target(args)
    return None


def asked(args: Args) -> dict[str, Any]:
    names = ("positive", "negative", "steps", "cfg", "sampler_name", "scheduler", "denoise", "seed")
    values = {name: getattr(args, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def given(args: Args) -> bytes:
    """The picture as a PNG without anything besides its pixels."""
    if not args.image:
        return pictures.gradient()
    try:
        return pictures.png(pictures.opened(Path(args.image).expanduser().read_bytes()))
    except pictures.NotAPicture as error:
        raise BadUsage(f"--image {args.image}: {error}") from error


def headers(args: Args) -> dict[str, str]:
    found = {}
    for line in args.header:
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or "\n" in line or "\r" in line:
            raise BadUsage(f"--header is 'Name: value', not {name.strip()!r}")
        found[name.strip()] = value.strip()
    if args.token:
        token = args.token
        if token.startswith("@"):
            token = Path(token[1:]).expanduser().read_text(encoding="utf-8").strip()
        found["Authorization"] = f"Bearer {token}"
    return found


def apart_from_login(address: str) -> tuple[str, dict[str, str]]:
    """An address without the name and password in it, and the header that carries them."""
    parts = urlsplit(address)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return address, {}
    coded = base64.b64encode(unquote(login).encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {coded}"}


def refuse(args: Args) -> None:
    if args.server and urlsplit(args.server).scheme not in ("http", "https"):
        raise BadUsage(
            f"--server is an address like http://127.0.0.1:8188, not {redacted(args.server)}"
        )
    if not args.server and args.checkpoint and not Path(args.checkpoint).expanduser().is_file():
        raise BadUsage(f"--checkpoint: there is no file {args.checkpoint}")


def version(stats: Mapping[str, Any]) -> str:
    system = stats.get("system")
    row = system if isinstance(system, dict) else {}
    told = (
        f"ComfyUI {row.get('comfyui_version', '?')}",
        f"torch {row.get('pytorch_version', '?')}",
    )
    return ", ".join((*told, device(stats)))


def device(stats: Mapping[str, Any]) -> str:
    rows = stats.get("devices")
    first = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    return str(first.get("type", "?"))


def apart(stats: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """What makes server and runner differ by nature; "" where nothing does."""
    theirs, ours = device(stats), str(said["device"]).partition(":")[0]
    return "" if theirs == ours else f"the server computes on {theirs}, the runner on {ours}"


def line(gate: Gate, lang: str) -> str:
    mark = {"passed": "✓", "failed": "✗", "not judged": "?"}[gate.verdict]
    name = say("gate-" + gate.name.replace(" ", "-").replace("_", "-"), lang)
    figure = "" if gate.figure is None else f" {gate.figure:.3g}"
    bound = "" if gate.bound is None else f" ({say('bound', lang)} {gate.bound:g})"
    page = f"  [{gate.finding}]" if gate.finding else ""
    return reasoned(f"{mark} {name}{figure}{bound}", gate.why, lang) + page


def times(test: Smoke) -> Iterator[dict[str, Any]]:
    first = test.shots.get("first")
    for node, seconds in first.executed.times.items() if first else ():
        yield {"name": node, "seconds": round(seconds, 3)}


def told(test: Smoke, patient: Target | None, place: Place, files: Sequence[Path]) -> int:
    screen = test.screen
    rows = list(times(test))
    of_smoke(test.args, test.gates, rows, test.stats, test.case.steps)
    if rows:
        shown = ", ".join(f"{row['name']} {row['seconds']:.1f} s" for row in rows)
        screen.lines(["· " + say("node-times", screen.lang, times=shown)])
    for path in files:
        screen.lines([f"    {path}"])
    good = test.verdict == smoke.PASSED
    skipped = sum(gate.verdict == smoke.NOT_JUDGED for gate in test.gates)
    key = "smoke-passed" if good else "smoke-failed"
    screen.lines([("✓ " if good else "✗ ") + say(key, screen.lang, skipped=skipped)])
    answer = {
        "schema": "comfy-doctor.smoke/1",
        "target": report.target_json(patient) if patient else None,
        "server": place.server.url,
        "own": place.own,
        "versions": test.stats.get("system", {}) if isinstance(test.stats, dict) else {},
        "checkpoint": test.case.checkpoint,
        "verdict": test.verdict,
        "gates": [gate_json(gate) for gate in test.gates],
        "stages": rows,
        "previews": test.shots["first"].executed.previews if "first" in test.shots else 0,
        "start": place.seconds,
        "parts_at": smoke.parting(test.gates) or None,
        "files": [str(path) for path in files],
    }
    screen.object(answer)
    return 0 if good else 1


def gate_json(gate: Gate) -> dict[str, Any]:
    """An infinite figure is the string "inf", as in runner.verify/1."""
    row = asdict(gate)
    if gate.figure is not None and math.isinf(gate.figure):
        row["figure"] = "inf" if gate.figure > 0 else "-inf"
    return row
