"""Smoke: what a server's answers to a few prompts say about its health. Pure but for asking it.

Gates have the shape of the runner's: a name, a figure, a bound, passed / failed / not judged, why.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from doctor import pictures, prompt, tensors
from doctor.api import Server
from doctor.img2img import LATENTS, PICTURE, Case, Graph, graph
from doctor.manifest import Row, read, rows
from doctor.mirrors import Unreachable
from doctor.prompt import Executed, Heard, NotExecuted
from doctor.tensors import Tensor
from manifests import FOLDER

PASSED, FAILED, NOT_JUDGED = "passed", "failed", "not judged"


@dataclass(frozen=True)
class Gate:
    name: str
    figure: float | None
    bound: float | None
    verdict: str
    why: str = ""
    finding: str = ""  # the id whose page says more


@dataclass(frozen=True, kw_only=True)
class Bound(Row):
    stage: str
    bound: float


@dataclass(frozen=True)
class Shot:
    """One prompt, executed, and what came out of it."""

    executed: Executed
    picture: Image.Image | None = None
    broken: str = ""  # why there is no picture
    latents: Mapping[str, Tensor] = field(default_factory=dict)  # encode, sample


@dataclass(frozen=True, kw_only=True)
class Coarser(Row):
    dtype: str
    times: float
    picture: float


def bounds(dtype: str = "float32") -> dict[str, float]:
    """By stage: relative rms of latents, dB of the picture; wider in fewer bits."""
    file = read(FOLDER / "smoke.toml")
    found = {r.stage: r.bound for r in rows(file, "bounds", Bound) if isinstance(r, Bound)}
    for row in rows(file, "coarser", Coarser):
        if isinstance(row, Coarser) and row.dtype == dtype:
            found = {stage: bound * row.times for stage, bound in found.items()}
            found["picture"] = row.picture
    return found


def passed(name: str, why: str = "", figure: float | None = None) -> Gate:
    return Gate(name, figure, None, PASSED, why)


def failed(name: str, why: str, finding: str = "") -> Gate:
    return Gate(name, None, None, FAILED, why, finding)


def not_judged(name: str, why: str) -> Gate:
    return Gate(name, None, None, NOT_JUDGED, why)


def offers(info: Mapping[str, Any], kind: str, name: str) -> tuple[str, ...]:
    """The choices of an input by /object_info, in its old form ([[...]]) or its new one."""
    try:
        row = info[kind]["input"]["required"][name]
        choices = row[1]["options"] if row[0] == "COMBO" else row[0]
        return tuple(str(choice) for choice in choices)
    except (KeyError, TypeError, IndexError):
        return ()


def lacking(info: object, wanted: Graph, case: Case) -> Iterator[Gate]:
    """What of the graph this server does not have: nodes, sampler, scheduler, checkpoint."""
    if not isinstance(info, dict) or not info:
        yield failed("nodes", "/object_info names no nodes")
        return
    kinds = sorted({node["class_type"] for node in wanted.values()})
    absent = [kind for kind in kinds if kind not in info]
    if absent:
        yield failed("nodes", f"not there: {', '.join(absent)}", "missing-node-type")
    else:
        yield passed("nodes", f"{len(info)}")
    for name, value, finding in (
        ("sampler_name", case.sampler_name, "workflow-invalid"),
        ("scheduler", case.scheduler, "workflow-invalid"),
    ):
        if value not in offers(info, "KSampler", name):
            yield failed(name, f"there is no {value}", finding)
    models = offers(info, "CheckpointLoaderSimple", "ckpt_name")
    if case.checkpoint not in models:
        listed = ", ".join(models[:6]) or "none"
        there = f"{case.checkpoint or 'no checkpoint'} is not among: {listed}"
        yield failed("checkpoint", there, "model-missing")
    else:
        yield passed("checkpoint", case.checkpoint)


def shoot(server: Server, case: Case, latents: str, limit: float, heard: Heard) -> Shot:
    """One prompt, and its files fetched. Raises NotExecuted, Unreachable."""
    done = prompt.execute(server, graph(case, latents), limit, heard)
    prompt.forget(server, done.id)
    if done.failed is not None:
        return Shot(done)
    shot = Shot(done)
    try:
        shot = replace(shot, picture=pictures.opened(fetched(server, done, PICTURE, "images")))
    except (pictures.NotAPicture, Unreachable, LookupError) as error:
        shot = replace(shot, broken=str(error) or "it gave no picture")
    found: dict[str, Tensor] = {}
    for node, stage in LATENTS.items() if latents else ():
        try:
            found[stage] = tensors.read(fetched(server, done, node, "latents"))["latent_tensor"]
        except (tensors.NotTensors, Unreachable, LookupError):
            continue  # told as not judged
    return replace(shot, latents=found)


def fetched(server: Server, done: Executed, node: str, kind: str) -> bytes:
    """The first file of a node, by /view. LookupError where /history names none."""
    where = first_file(done, node, kind)
    if not where:
        raise LookupError(f"/history names no {kind} of {node}")
    return server.view(**where)


def first_file(done: Executed, node: str, kind: str) -> dict[str, str]:
    """filename, subfolder and type of a node's first file; empty where none is named."""
    row = done.outputs.get(node)
    files = row.get(kind) if isinstance(row, dict) else None
    if not isinstance(files, list) or not files or not isinstance(files[0], dict):
        return {}
    return {key: str(files[0].get(key, "")) for key in ("filename", "subfolder", "type")}


def executed(shot: Shot) -> Gate:
    wrong = shot.executed.failed
    if wrong is not None:
        said = "somebody interrupted it" if wrong.interrupted else wrong.exception
        return failed("executed", f"{wrong.node} ({wrong.kind}): {said}: {wrong.message}")
    lost = f"the websocket was lost {shot.executed.lost} times" if shot.executed.lost else ""
    return passed("executed", lost, shot.executed.seconds)


def alone(shot: Shot) -> Iterator[Gate]:
    """What one picture says by itself: whole, finite, not flat."""
    if shot.picture is None:
        yield failed("picture whole", shot.broken)
        return
    yield passed("picture whole", f"{shot.picture.width}×{shot.picture.height}")
    if shot.latents:
        bad = [stage for stage, latent in shot.latents.items() if not latent.finite]
        yield (
            failed("finite", f"NaN in: {', '.join(bad)}", "black-nan-image")
            if bad
            else passed("finite")
        )
    else:
        yield not_judged("finite", "latents are saved only where they can be taken away again")
    spread = pictures.spread(shot.picture)
    if spread < pictures.FLAT:
        colour = shot.picture.getpixel((0, 0))
        finding = "black-nan-image" if colour == (0, 0, 0) else ""
        yield Gate("not flat", spread, pictures.FLAT, FAILED, f"all of it is {colour}", finding)
    else:
        yield passed("not flat", figure=spread)


def together(first: Shot, again: Shot, seed: Shot, text: Shot) -> Iterator[Gate]:
    """What repeating and changing say: the same again, another with another seed or prompt."""
    if "sample" in again.executed.cached:
        yield not_judged("determinism", "the server answered from its cache")
    else:
        yield from same("determinism", first, again)
    for name, other in (("seed", seed), ("prompt", text)):
        yield from changed(name, first, other)


def same(name: str, first: Shot, again: Shot) -> Iterator[Gate]:
    if first.picture is None or again.picture is None:
        yield not_judged(name, "there is no picture")
        return
    apart = pictures.different(first.picture, again.picture)
    why = f"{apart} pixels differ" if apart else ""
    yield Gate(name, float(apart), 0.0, FAILED if apart else PASSED, why)


def changed(name: str, first: Shot, other: Shot) -> Iterator[Gate]:
    if first.picture is None or other.picture is None:
        yield not_judged(name, "there is no picture")
    elif pictures.different(first.picture, other.picture):
        yield passed(name, "another one, another picture")
    else:
        yield failed(name, "another one gives the same picture")


def against(
    shot: Shot,
    ours: Image.Image,
    trace: Mapping[str, Tensor],
    why: str = "",
    dtype: str = "float32",
) -> list[Gate]:
    """The server's numbers held against the runner's, in the order they come about.

    why: what makes them differ by nature ("" on one device): then a figure outside its bound is
    not judged. dtype: that of the runner's denoiser.
    """
    gates, limits = [], bounds(dtype)
    for stage in ("encode", "sample"):
        if stage not in shot.latents or f"node/{stage}" not in trace:
            gates.append(not_judged(stage, "its latents are not at hand"))
            continue
        figure = tensors.gap(shot.latents[stage], trace[f"node/{stage}"])
        gates.append(held(stage, figure, limits[stage], figure <= limits[stage], why))
    if shot.picture is None:
        return [*gates, failed("picture", shot.broken)]
    figure = pictures.psnr(shot.picture, ours)
    bound = limits["picture"]
    gate = held("picture", figure, bound, figure >= bound, why)
    most = pictures.different(shot.picture, ours)
    told = "uint8 equal" if figure == math.inf else f"{most} pixels differ in their last bits"
    return [*gates, replace(gate, why="; ".join(filter(None, [told, gate.why])))]


def held(stage: str, figure: float, bound: float, good: bool, why: str) -> Gate:
    verdict = PASSED if good else NOT_JUDGED if why else FAILED
    return Gate(stage, figure, bound, verdict, "" if good else why)


def parting(gates: Sequence[Gate]) -> str:
    """The first stage at which server and runner part: the VAE's encoder, the sampler (with text
    and UNet), the VAE's decoder; "" where they do not."""
    names = {"encode": "encode", "sample": "sample", "picture": "decode"}
    found = {gate.name: gate.verdict for gate in gates if gate.name in names}
    first = next((name for name in names if found.get(name) == FAILED), "")
    blind = first == "picture" and found.get("sample") != PASSED
    return "" if not first else "sample or decode" if blind else names[first]


ORDER = ("first", "seed", "prompt", "again")


def variants(case: Case) -> Mapping[str, Case]:
    """What is rendered, in an order in which a cache of the last prompt cannot answer."""
    return {"first": case, "seed": case.other_seed(), "prompt": case.other_prompt(), "again": case}


def told(error: NotExecuted) -> Gate:
    """A prompt that was not taken, or did not end."""
    refused = error.refused
    if refused is None:
        return failed("executed", str(error))
    lines = [f"{node}: {'; '.join(why)}" for node, why in refused.nodes.items()]
    return failed("executed", ". ".join([refused.why, *lines])[:1000], "workflow-invalid")
