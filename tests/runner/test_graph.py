"""A workflow's JSON, held against the nodes there are: every reason against it is one sentence."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from runner import canvas, graph
from runner.nodes import NODES, Widget
from runner.recipe import Recipe, Refused
from tests.runner.graphs import IMG2IMG, added, changed


def why(rows):
    with pytest.raises(Refused) as caught:
        graph.parse(rows if isinstance(rows, str | bytes) else json.dumps(rows))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 3000
    return caught.value.id, str(caught.value)


def test_nodes_come_after_their_sources():
    order = list(graph.parse(json.dumps(dict(reversed(IMG2IMG.items())))).nodes)
    assert len(order) == 8
    for id, one in IMG2IMG.items():
        for value in one["inputs"].values():
            if isinstance(value, list):
                assert order.index(value[0]) < order.index(id)


def test_what_is_sent_to_a_server_is_the_same_graph():
    sent = {"prompt": IMG2IMG, "client_id": "x"}
    assert graph.parse(json.dumps(sent)).source == IMG2IMG


def test_the_format_of_the_interface_is_told_apart():
    drawn = canvas.drawn(graph.parse(json.dumps(IMG2IMG)))
    assert why(drawn)[0] == "workflow-is-ui-format"
    assert "Export (API)" in why(drawn)[1]


def test_all_unknown_nodes_are_listed_with_those_that_are_known():
    id, said = why(added(("9", "FaceDetailer", {}), ("10", "FaceDetailer", {}), ("11", "X", {})))
    assert id == "workflow-unknown-nodes"
    assert "FaceDetailer (9, 10), X (11)" in said
    assert all(kind in said for kind in NODES)


WRONG = [
    (changed(n6={"model": ["5", 0]}), "model of KSampler (6) is a MODEL, and VAEEncode (5) gives"),
    (changed(n6={"model": ["1", 9]}), "is output 9 of CheckpointLoaderSimple (1), which has 3"),
    (changed(n6={"model": ["1", -1]}), "is output -1"),
    (changed(n6={"model": ["99", 0]}), "comes from node '99', which is not there"),
    (changed(n6={"model": "x"}), "model of KSampler (6) is not linked to a MODEL"),
    (changed(n6={"model": None}), "KSampler (6) lacks model"),
    (changed(n6={"seed": None}), "KSampler (6) lacks seed"),
    (changed(n6={"steps": 0}), "steps of KSampler (6) is 0; it is a number from 1 to 10000"),
    (changed(n6={"steps": 10**9}), "steps of KSampler (6) is 1000000000"),
    (changed(n6={"seed": -1}), "seed of KSampler (6) is -1"),
    (changed(n6={"seed": 2**64}), "seed of KSampler (6)"),
    (changed(n6={"seed": 10**1000}), "a number of about 1000 digits"),
    (changed(n6={"cfg": float("nan")}), "cfg of KSampler (6) is nan"),
    (changed(n6={"cfg": {"a": 1}}), "it is a number"),
    (changed(n6={"denoise": "much"}), "denoise of KSampler (6) is 'much'; it is a number"),
    (changed(n6={"seed": ["5", 0]}), "is a value typed in, and VAEEncode (5) gives a LATENT"),
    (changed(n4={"image": 7}), "image of LoadImage (4) is 7; it is a name"),
    (changed(n6={"latent_image": ["6", 0]}), "go round in a circle through KSampler (6)"),
    (
        added(("9", "CLIPSetLastLayer", {"clip": ["10", 0], "stop_at_clip_layer": -1}),
              ("10", "CLIPSetLastLayer", {"clip": ["9", 0], "stop_at_clip_layer": -1}),
              n2={"clip": ["9", 0]}),
        "go round in a circle through CLIPSetLastLayer",
    ),
    ({k: v for k, v in IMG2IMG.items() if k != "8"}, "nothing in it saves a picture"),
    ({"1": {"class_type": "KSampler"}}, "has no class_type with inputs"),
    ({"1": 5}, "has no class_type with inputs"),
    ({"1": {"inputs": {}}}, "has no class_type with inputs"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "said"), WRONG)
def test_what_is_wrong_is_said(rows, said):
    id, told = why(rows)
    assert id == "workflow-invalid"
    assert said in told


def test_several_reasons_are_told_at_once_and_no_more_than_five():
    said = why(changed(n6={"steps": 0, "cfg": -1, "seed": -1, "denoise": 2, "model": None}, n2={
        "text": None, "clip": None}))[1]  # fmt: skip
    assert said.count(";") >= 5
    assert "and 2 more" in said


@pytest.mark.parametrize(
    "data", ["", "{", "[]", "null", "3", '"x"', "{}", b"\xff\xfe", "[" * 100_000, '{"1":' * 10_000]
)
def test_what_is_no_graph_is_unreadable(data):
    assert why(data)[0] == "workflow-unreadable"


def test_a_million_nodes_and_a_very_long_chain(tmp_path):
    path = tmp_path / "many.json"
    row = '"%d":{"class_type":"PreviewImage","inputs":{}}'
    path.write_text("{" + ",".join(row % n for n in range(1_000_000)) + "}")
    start = time.monotonic()
    with pytest.raises(Refused) as caught:
        graph.read(path)
    assert caught.value.id == "workflow-too-large"
    assert time.monotonic() - start < 10
    assert why("{" + ",".join(row % n for n in range(10_001)) + "}")[0] == "workflow-too-large"
    chain = [
        (str(n), "CLIPSetLastLayer", {"clip": [str(n - 1), 0], "stop_at_clip_layer": -1})
        for n in range(101, 9000)
    ]
    first = ("100", "CLIPSetLastLayer", {"clip": ["1", 1], "stop_at_clip_layer": -1})
    rows = added(first, *chain, n2={"clip": ["8999", 0]})
    assert len(graph.parse(json.dumps(rows)).nodes) == 8 + 8900
    assert len(canvas.drawn(graph.parse(json.dumps(rows)))["nodes"]) == 8 + 8900


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([["1", 0], ["6", 0], "euler", "KSampler", "SaveImage"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["class_type", "inputs", "1", "model", "__value__"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@effort(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(IMG2IMG)), st.sampled_from(["inputs", "class_type", None]), junk)
def test_any_json_in_any_place_is_a_graph_or_a_sentence(id, place, value):
    rows = changed()
    if place is None:
        rows[id] = value
    else:
        rows[id][place] = value
    try:
        asked = graph.parse(json.dumps(rows))
    except Refused as refused:
        told = str(refused)
    else:
        told = ""
        json.dumps(canvas.drawn(asked), allow_nan=False)
        assert all(graph.settings(one) is not None for one in asked.nodes.values())
    assert "\n" not in told


def test_a_recipe_is_drawn_as_its_graph():
    recipe = Recipe("a", "b", 5, 3.0, "heun", "karras", 0.4, 9, width=64, stop_at_clip_layer=-2)
    files = canvas.Files(
        "/somewhere/m.safetensors", "pictures/p.png", "v.safetensors",
        (("l.safetensors", 0.5, 0.25),), ("v_prediction", True),
    )  # fmt: skip
    asked = canvas.of_recipe(recipe, files)
    kinds = {one.kind: graph.settings(one) for one in asked.nodes.values()}
    assert kinds["CheckpointLoaderSimple"] == {"ckpt_name": "m.safetensors"}
    assert kinds["LoadImage"] == {"image": "p.png"}
    assert kinds["VAELoader"] == {"vae_name": "v.safetensors"}
    assert kinds["LoraLoader"] == {
        "lora_name": "l.safetensors", "strength_model": 0.5, "strength_clip": 0.25,
    }  # fmt: skip
    assert kinds["ModelSamplingDiscrete"] == {"sampling": "v_prediction", "zsnr": True}
    assert kinds["CLIPSetLastLayer"] == {"stop_at_clip_layer": -2}
    assert kinds["ImageScale"]["width"] == 64
    assert kinds["KSampler"] == {
        "seed": 9, "steps": 5, "cfg": 3.0, "sampler_name": "heun", "scheduler": "karras",
        "denoise": 0.4,
    }  # fmt: skip
    part = canvas.of_recipe(
        Recipe("a", end_at_step=3, add_noise=False, seed=4), canvas.Files("m", "p")
    )
    [advanced] = [one for one in part.nodes.values() if one.kind == "KSamplerAdvanced"]
    assert graph.settings(advanced)["add_noise"] == "disable"
    assert graph.settings(advanced)["noise_seed"] == 4


def test_a_drawing_keeps_values_links_and_numbers():
    drawn = canvas.drawn(graph.parse(json.dumps(IMG2IMG)))
    boxes = {one["id"]: one for one in drawn["nodes"]}
    assert boxes[6]["widgets_values"] == [3, "fixed", 2, 7.0, "euler", "normal", 0.6]
    assert boxes[4]["widgets_values"] == ["in.png", "image"]
    assert [socket["name"] for socket in boxes[6]["inputs"]] == [
        "model", "positive", "negative", "latent_image",
    ]  # fmt: skip
    for number, source, slot, target, place, type in drawn["links"]:
        assert number in boxes[source]["outputs"][slot]["links"]
        assert boxes[source]["outputs"][slot]["type"] == type
        assert boxes[target]["inputs"][place]["link"] == number
    assert len({tuple(one["pos"]) for one in boxes.values()}) == 8
    odd = json.loads(json.dumps(IMG2IMG).replace('"6"', '"6:1"').replace('"7"', '"007"'))
    ids = {one["id"] for one in canvas.drawn(graph.parse(json.dumps(odd)))["nodes"]}
    assert len(ids) == 8


def test_every_widget_takes_its_own_default():
    for kind in NODES.values():
        for wanted in kind.inputs.values():
            assert not isinstance(wanted, Widget) or wanted.against(wanted.default) is None


def test_a_graph_comes_out_of_a_picture_that_comfyui_saved():
    """SaveImage of ComfyUI 0.3.64 wrote it (test_against_comfyui.py)."""
    pytest.importorskip("torch")
    asked = graph.read(Path("tests/golden/comfyui.png"))
    kinds = [one.kind for one in asked.nodes.values()]
    assert len(kinds) == 13
    assert {"LoraLoader", "ModelSamplingDiscrete", "VAELoader", "ImageScale"} <= set(kinds)
    values = graph.settings(next(one for one in asked.nodes.values() if one.kind == "KSampler"))
    assert (values["sampler_name"], values["cfg"]) == ("dpmpp_2m", 3.0)


def test_every_node_is_what_it_is_in_comfyui():
    """Names, order, types, limits, defaults and choices, held against its own INPUT_TYPES."""
    theirs = json.loads(Path("tests/golden/nodes.json").read_text())
    assert list(theirs) == list(NODES)
    for name, kind in theirs.items():
        ours = NODES[name]
        assert (list(ours.outputs), ours.saves) == (kind["outputs"], kind["saves"]), name
        assert list(ours.inputs) == list(kind["inputs"]), name
        for one, (type, about) in kind["inputs"].items():
            wanted = ours.inputs[one]
            if not isinstance(wanted, Widget):
                assert wanted == type, (name, one)
                continue
            assert wanted.type == type, (name, one)
            assert wanted.rolls == about.get("control_after_generate", False), (name, one)
            if "max" in about:
                limits = about["default"], about["min"], about["max"]
                assert (wanted.default, wanted.low, wanted.high) == limits, (name, one)
            if wanted.choices and name != "ModelSamplingDiscrete":
                assert list(wanted.choices) == about["choices"], (name, one)
