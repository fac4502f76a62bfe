"""The page of a run: whole, in two languages, and deaf to what a patient or a log says."""

import base64
import json
import re
import struct
import venv
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from doctor import pictures, preview, report
from doctor.diagnose import diagnose
from doctor.facts import Facts, Host, Package, Python, Target
from doctor.finding import Finding, Severity
from doctor.page.markup import safe
from doctor.page.plot import round_steps
from doctor.page.proof import Pictures
from doctor.page.whole import html
from doctor.tensors import Tensor
from doctor.verbs import page, run
from tests.doctor.command import doctor

EVIL = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'\u202egpj\u0000\x1b[2J\ud800"
)
GATES = [
    {"name": "tokens", "figure": 0.0, "bound": 0.0, "verdict": "passed", "why": ""},
    {"name": "text", "figure": 2.1e-7, "bound": 1e-5, "verdict": "passed", "why": ""},
    {"name": "run euler", "figure": "inf", "bound": 1e-4, "verdict": "failed", "why": "unet"},
    {"name": "gpu", "figure": None, "bound": 1e-3, "verdict": "not judged", "why": "no GPU"},
]
PROOF = {
    "verify": {"passed": False, "gates": GATES, "seconds": {"total": 30.0}},
    "render": {
        "recipe": {"positive": "a cat", "negative": "", "steps": 4, "cfg": 7.0, "seed": 0},
        "checkpoint": "synthetic sd15",
        "device": "cpu",
        "dtype": "float32",
        "threads": 2,
        "seconds": {"sample": 3.2, "total": 4.0},
        "sha256": {"input": "a" * 64, "output": "b" * 64, "latent": "c" * 64},
        "finite": True,
        "not_finite": [],
        "notes": [],
        "files": ["render.png"],
    },
    "bench": {
        "machine": {"cpu": "a processor"},
        "settings": {"size": 64, "sampler_name": "euler", "dtype": "float32"},
        "seconds": [0.81, 0.8, 0.79, 0.8, 0.9],
        "median": 0.8,
        "spread": 0.01,
        "steps_per_second": 1.25,
        "doubts": ["Fewer than five steps were timed."],
    },
}
FACTS = Facts(
    target=Target("/srv/ComfyUI", "/srv/ComfyUI/.venv/bin/python", "asked for", "venv"),
    host=Host(os="linux", memory_free=10**12),
    python=Python("3.11.7", "/srv/ComfyUI/.venv/bin/python", implementation="cpython", bits=64),
    packages={
        "torch": Package("2.4.0", requires=("numpy", 'pytest; extra == "test"')),
        "numpy": Package("2.1.0"),
    },
    gpus=(),
)
TREATED = {
    "plan": [{"fix": "numpy-1", "cures": ["numpy-abi"], "steps": ["pip install 'numpy<2'"]}],
    "receipts": ["1"],
    "cured": ["numpy-abi"],
    "left": [],
    "rolled_back": {},
    "refused": {},
    "before": {"findings": {"numpy-abi": "error"}, "packages": {"numpy": {"version": "1.26.4"}}},
}
ANIMAL = pictures.gradient()
SHOWN = Pictures(ANIMAL, ANIMAL, (ANIMAL, ANIMAL))


def told(proof=PROOF, facts=FACTS, findings=(), fixed=TREATED):
    """What report.json holds."""
    diagnosis = replace(diagnose(facts), findings=tuple(findings))
    answer = run.run_json(facts, diagnosis, fixed, proof, [], "en")
    return json.loads(json.dumps(answer | run.more_json(facts, diagnosis, "en")))


def evil(severity=Severity.ERROR):
    return Finding(severity, (EVIL,), {"packages": EVIL}, (EVIL,), "", "torch-missing")


class Reader(HTMLParser):
    """Tags as they open and close, and what stands between them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.text = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def read(text):
    reader = Reader(text)
    assert reader.open == [], "every element is closed"
    assert len(reader.ids) == len(set(reader.ids)), "every id is there once"
    return reader


def test_every_part_of_a_run_is_on_its_page():
    text = html(told(findings=[evil()]), SHOWN, [told()])
    reader = read(text)
    parts = "summary findings treatment render ladder bench earlier packages raw".split()
    assert [attrs["id"] for tag, attrs in reader.tags if tag == "section"] == parts
    assert {f"#{part}" for part in parts} <= {a.get("href") for _, a in reader.tags}
    assert sum(tag == "img" for tag, _ in reader.tags) == 2 + 2 + 2, "a pair, the slider, steps"
    assert sum(a.get("class") == "dot" for _, a in reader.tags) == 5, "every timed step"


def test_both_languages_are_there_and_nothing_is_from_elsewhere():
    text = html(told(), SHOWN, lang="zh")
    counts = [len(re.findall(f'<span lang="{code}">', text)) for code in ("en", "zh-Hans")]
    assert counts[0] == counts[1] > 40
    reader = read(text)
    assert ("html", {"lang": "zh-Hans"}) in reader.tags
    assert [a["id"] for tag, a in reader.tags if "checked" in a] == ["in-zh"]
    for _, attrs in reader.tags:
        for name in ("src", "href"):
            assert str(attrs.get(name, "#")).startswith(("#", "data:"))
    assert "url(" not in text
    assert "@import" not in text


def test_what_a_patient_says_stays_text():
    facts = replace(
        FACTS,
        target=replace(FACTS.target, comfyui=EVIL, why=EVIL, others=(EVIL,)),
        python=replace(FACTS.python, prefix=EVIL),
        packages={EVIL: Package(EVIL, requires=(EVIL,))},
    )
    proof = json.loads(json.dumps(PROOF))
    proof["render"]["recipe"]["positive"] = proof["render"]["checkpoint"] = EVIL
    proof["verify"]["gates"][2] |= {"name": EVIL, "why": EVIL, "figure": EVIL}
    proof["bench"] |= {"doubts": [EVIL], "machine": {EVIL: EVIL}}
    fixed = TREATED | {
        "plan": [{"fix": EVIL, "steps": [EVIL], "refused": EVIL}],
        "cured": [EVIL],
        "rolled_back": {EVIL: EVIL},
        "before": {"findings": {EVIL: "error"}, "packages": {EVIL: {"version": EVIL}}},
    }
    found = told(proof, facts, [evil()], fixed)
    text = html(found, SHOWN, [found | {"when": EVIL}])
    reader = read(text)
    assert not {"script", "iframe", "object"} & {tag for tag, _ in reader.tags}
    assert not [name for _, attrs in reader.tags for name in attrs if name.startswith("on")]
    assert sum(EVIL[:38] in data for data in reader.text) > 20, "it is said, as text"
    assert not set(text) & set("\0\x1b\u202e\ud800")
    text.encode("utf-8")


def test_without_a_render_the_page_says_so():
    text = html(told({}, findings=[evil()], fixed={}), Pictures())
    parts = [attrs["id"] for tag, attrs in read(text).tags if tag == "section"]
    assert parts == ["summary", "findings", "packages", "raw"]
    assert "No render was tried" in text


@pytest.mark.parametrize(
    ("passed", "finite", "state"), [(1, 1, "good"), (0, 1, "bad"), (1, 0, "bad")]
)
def test_the_verdict_is_that_of_the_gates_and_of_the_picture(passed, finite, state):
    proof = json.loads(json.dumps(PROOF))
    proof["verify"]["passed"], proof["render"]["finite"] = bool(passed), bool(finite)
    assert f'<p class="verdict {state}">' in html(told(proof), SHOWN)


def test_the_raw_data_can_be_taken_along():
    found = told(findings=[evil()])
    link = next(a for _, a in read(html(found, SHOWN)).tags if a.get("download"))
    data = base64.b64decode(link["href"].partition("base64,")[2])
    assert json.loads(data)["verify"] == found["verify"]


def test_runs_are_compared_only_where_they_were_alike():
    other = json.loads(json.dumps(PROOF))
    other["bench"]["settings"]["size"] = 512
    other["render"]["recipe"]["seed"] = 1
    slow = json.loads(json.dumps(PROOF))
    slow["bench"]["seconds"] = [1.6] * 5
    slow["render"]["sha256"]["output"] = "d" * 64
    text = html(told(), SHOWN, [told(other), told(slow)])
    rows = re.findall("<tr>.*?</tr>", text.partition('id="earlier"')[2].partition("</section>")[0])
    assert "other settings" in rows[2]
    assert "0.50 ×" in rows[3]
    assert ">no<" in rows[3]


@pytest.mark.parametrize("top", [0.004, 0.8, 1.0, 5.0, 817.3, 12_000.0])
def test_an_axis_has_few_round_steps_and_ends_above_its_values(top):
    steps = round_steps(top)
    assert steps[0] == 0
    assert steps[-1] > top
    assert 3 <= len(steps) <= 8


def saved(folder, found=None):
    folder.mkdir(parents=True)
    (folder / page.REPORT).write_text(json.dumps(found or told()), encoding="utf-8")
    (folder / page.AFTER).write_bytes(ANIMAL)
    return folder


def test_report_writes_the_page_of_a_run_and_knows_the_runs_before(tmp_path):
    for name in ("20260101-000000", "20260102-000000", "20260103-000000"):
        saved(tmp_path / "runs" / name)
    (tmp_path / "runs" / "20260101-000000" / page.REPORT).write_text("{", encoding="utf-8")
    code, out, err = doctor("report", tmp_path / "runs" / "20260103-000000", "--lang", "zh")
    assert code == 0, err
    text = (tmp_path / "runs" / "20260103-000000" / page.PAGE).read_text(encoding="utf-8")
    earlier = text.partition('id="earlier"')[2].partition("</section>")[0]
    assert earlier.count("<tr>") == 1 + 2, "this run and the one before; the damaged one is not"
    assert page.PAGE in out


def test_what_is_no_run_gets_one_sentence(tmp_path):
    (tmp_path / "facts.json").write_text('{"schema": "comfy-doctor.run/1", "facts": 1}')
    for words in ([tmp_path], [tmp_path / "facts.json"], ["README.md"], []):
        code, out, err = doctor("report", *words, cwd=None if words else tmp_path)
        assert (code, out) == (2, "")
        assert len(err.strip().splitlines()) == 1, err


def test_a_run_that_comes_to_no_render_has_a_page_where_one_is_asked_for(tmp_path):
    venv.create(tmp_path / "patient", with_pip=False)
    words = ["run", "--python", tmp_path / "patient", "--offline", "--dry-run", "--html"]
    code, _, err = doctor(*words, tmp_path / "page.html")
    assert code == 1, err
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "torch-missing" in text
    assert 'id="render"' not in text
    code, out, err = doctor(*words, tmp_path)
    assert (code, out) == (2, ""), "a folder is no file, and that is said before anything is done"
    assert "is a folder" in err


def test_rows_are_the_same_as_on_the_screen():
    text = html(told(), SHOWN)
    for _, value in report.first_rows(FACTS, "zh"):
        assert safe(value) in text


def tensors(**named):
    """Named numbers, (shape, values), as a safetensors file in float32."""
    header, body = {}, b""
    for name, (shape, values) in named.items():
        data = struct.pack(f"<{len(values)}f", *values)
        ends = [len(body), len(body) + len(data)]
        header[name.replace("_", "/")] = {"dtype": "F32", "shape": shape, "data_offsets": ends}
        body += data
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + body


def test_steps_are_small_pictures_in_the_colours_of_the_render(tmp_path):
    """Where red is 0.5 + 0.2 a and green 0.5 - 0.1 b of channels a and b, a fit finds that."""
    a, b = [n / 8 - 1 for n in range(16)], [(n * 5 % 16) / 8 - 1 for n in range(16)]
    colours = [(0.5 + 0.2 * x, 0.5 - 0.1 * y, 0.25) for x, y in zip(a, b, strict=True)]
    pixels = [v for row in range(8) for x in range(8) for v in colours[row // 2 * 4 + x // 2]]
    noisy = [10**0.5 * value for value in [*a, *b, *[0.0] * 32]]
    (tmp_path / page.TRACE).write_bytes(
        tensors(
            sigmas=([3], [14.0, 3.0, 0.0]),
            step_1=([1, 4, 4, 4], noisy),
            step_2=([1, 4, 4, 4], [*a, *b, *[0.0] * 32]),
            image_input=([1, 8, 8, 3], [0.0, 1.0, 0.5] * 64),
            image_output=([1, 8, 8, 3], pixels),
        )
    )
    page.keep_pictures(tmp_path)
    assert not (tmp_path / page.TRACE).exists()
    kept = page.beside(tmp_path)
    assert pictures.opened(kept.before).getpixel((3, 3)) == (0, 255, 128)
    for step in map(pictures.opened, kept.steps):
        assert step.size == (4, 4)
        for place, colour in enumerate(colours):
            seen = step.getpixel((place % 4, place // 4))
            assert seen == pytest.approx([255 * value for value in colour], abs=2)


@pytest.mark.parametrize("trace", [b"", b"\x08" + bytes(15), tensors(), tensors(sigmas=([0], []))])
def test_a_trace_that_is_none_costs_the_pictures_alone(tmp_path, trace):
    (tmp_path / page.TRACE).write_bytes(trace)
    page.keep_pictures(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_many_steps_twenty_are_shown_and_the_last_is():
    flat = [Tensor((1, 1, 1, 2), (v, -v)) for v in (0.0, 1.0)]
    trace = {f"step/{n}": flat[n == 50] for n in range(1, 51)}
    trace["image/output"] = Tensor((1, 1, 2, 3), (1.0, 1.0, 1.0, 0.0, 0.0, 0.0))
    shown = list(preview.strip({"sigmas": Tensor((51,), [0.0] * 51), **trace}))
    assert len(shown) == 20
    assert [one.getpixel((0, 0))[0] for one in shown[-2:]] == [127, 255]


def rows_of(text, id):
    part = text.partition(f'id="{id}"')[2].partition("</section>")[0]
    cells = re.compile(r"<t[hd][^>]*>(.*?)</t[hd]>")
    return [
        [re.sub("<[^>]+>", "", cell) for cell in cells.findall(row)]
        for row in re.findall("<tr>.*?</tr>", part)
    ]


def test_only_what_a_treatment_changed_stands_before_and_after():
    before = {"findings": {"numpy-abi": "error"}}
    packages = {"numpy": {"version": "1.26.4"}, "torch": {"version": "2.4.0"}}
    text = html(told(fixed=TREATED | {"before": before | {"packages": packages}}), SHOWN)
    names = [row[0] for row in rows_of(text, "treatment")[1:]]
    assert names == ["numpy-abi", "numpy"]
    assert rows_of(text, "treatment")[2][1:] == ["1.26.4", "2.1.0"]


def test_gates_stand_by_how_much_trouble_they_are():
    proof = json.loads(json.dumps(PROOF))
    proof["verify"]["gates"] += [
        {"name": "vae", "figure": 9e-6, "bound": 1e-5, "verdict": "passed", "why": ""},
        {"name": "sampler heun", "figure": 1e-6, "bound": 1e-5, "verdict": "passed", "why": ""},
    ]
    rows = rows_of(html(told(proof), SHOWN), "ladder")[1:]
    names = [row[0] for row in rows if row[0] not in ("Gate检验项",)]
    assert names == ["run euler", "gpu", "vae", "text", "tokens", "sampler heun"]
