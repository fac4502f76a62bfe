"""What checks, fixes and refusals write in English is known in the other languages."""

import ast
import re
from pathlib import Path

import pytest

from doctor.manifest import read
from doctor.words import phrase, say
from manifests import FOLDER

DOCTOR = Path(__file__).parents[2] / "doctor"
SAID = set(  # what takes sentences for a person
    "CannotFix BadUsage Unknown BadTarget BadLock Busy InUse Undoable StepFailed SnapshotDamaged"
    " CannotInstall NoChoice Unreachable HandoffFailed Refused NotExecuted NotPacked".split()
)
SENTENCE = re.compile(r"[A-Za-z]{2,} [a-z]{2,}")


def written(node):
    """The text of a literal, with {} for what is filled in; else nothing."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
    return ""


def sentences():
    for path in DOCTOR.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", "")
            said = node.args if name in SAID else []
            facts = [word.value for word in node.keywords if word.arg == "because"]
            inner = [i for fact in facts for i in ast.walk(fact) if isinstance(i, ast.JoinedStr)]
            yield from filter(SENTENCE.search, map(written, (*said, *inner)))


def evidence():
    """What stands in the functions of a check, but for what it only compares with."""
    for path in (DOCTOR / "checks").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in (f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)):
            parts = {id(i) for n in ast.walk(function) for i in getattr(n, "values", ())}
            said = [n for line in function.body[1:] for n in ast.walk(line) if id(n) not in parts]
            yield from filter(SENTENCE.search, map(written, said))


COMPARED = {"No module named", "fallen off the bus", "docker run --gpus all ..."}


@pytest.mark.parametrize("english", sorted(set(evidence()) - COMPARED))
def test_the_evidence_of_every_check_is_known_in_chinese(english):
    text = ("x" + english if english[0] in " ;" else english).replace("{}", "x=y", 1)
    assert phrase(text.replace("{}", "x"), "zh") != text.replace("{}", "x"), english


@pytest.mark.parametrize("english", sorted(set(sentences())))
def test_every_sentence_is_known_in_chinese(english):
    assert phrase(english.replace("{}", "x"), "zh") != english.replace("{}", "x"), english


def test_blanks_keep_what_fills_them():
    for row in read(FOLDER / "phrases.toml")["phrases"]:
        fillings = [f"<{n}>" for n in range(row["en"].count("{}"))]
        told = phrase(row["en"].format(*fillings), "zh")
        assert all(filling in told for filling in fillings), row


def test_steps_of_a_plan_are_told_in_chinese():
    tree = ast.parse((DOCTOR / "step.py").read_text(encoding="utf-8"))
    told = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f.name == "__str__"]
    words = {written(n) for f in told for n in ast.walk(f) if isinstance(n, ast.JoinedStr)}
    for english in words:
        step = english.replace("{}", "x")
        assert phrase(step, "zh", "steps") != step, english


def test_a_refusal_that_a_plan_kept_as_text_is_told_in_chinese():
    blanks = {"url": "https://a.example/x", "ref": "v9"}
    for key in ("fetch-offline", "fetch-no-such-ref"):
        assert phrase(say(key, "en", **blanks), "zh") == say(key, "zh", **blanks)


def test_what_no_phrase_knows_stays_as_it_is():
    assert phrase("RuntimeError: {} of it", "zh") == "RuntimeError: {} of it"
    assert phrase("numpy is not in {here}", "en") == "numpy is not in {here}"


def test_an_address_and_several_routes_keep_their_place():
    text = "https://a.example/x: its name was not found | /srv/python: Permission denied"
    told = phrase(text, "zh")
    assert told == "https://a.example/x: 找不到它的域名 | /srv/python: 权限不足"


def test_a_flag_keeps_its_place_and_each_change_is_told():
    said = "--cpu: gpu was GTX 1650, is RTX 4090; driver was 535.54, is 580.95"
    told = "--cpu: gpu 原为 GTX 1650，现为 RTX 4090; driver 原为 535.54，现为 580.95"
    assert phrase(said, "zh") == told


def test_the_phrase_that_says_most_of_itself_is_taken():
    assert phrase("it cannot be started: odd", "zh") == "无法启动：odd"
