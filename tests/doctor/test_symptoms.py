"""Signatures are data, and their examples are their tests."""

import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from doctor import hints, signatures, symptoms
from doctor.facts import Facts, Gpu, Host, Torch
from doctor.finding import Severity
from doctor.manifest import world
from doctor.words import LANGUAGES, pages, told
from manifests import FOLDER
from tests import logs, mutations

BOOK = signatures.book()
SHARED = Path(__file__).parents[3] / "shared" / "cases"
EXAMPLES = [
    pytest.param(number, text, id=f"{signature.id}-{number}-{place}")
    for number, signature in enumerate(BOOK.signatures)
    for place, text in enumerate(signature.examples)
]


def judged(text, book=BOOK, facts=None):
    stream = io.BytesIO(text if isinstance(text, bytes) else text.encode())
    seen = symptoms.scan(stream, book)
    here = hints.of_log(seen.hints, symptoms.modules(seen), world())
    if facts is not None:
        here = hints.together(here, hints.of_facts(facts), world())
    return symptoms.judge(seen, book, here)


def ids(text, **more):
    return [symptom.finding.id for symptom in judged(text, **more).symptoms]


@pytest.mark.parametrize(("number", "text"), EXAMPLES)
def test_an_example_is_judged_as_its_signature_says(number, text):
    assert ids(text)[0] == BOOK.signatures[number].id


@pytest.mark.parametrize("log", list(logs.sick()), ids=str)
def test_a_sick_log_is_judged_as_it_should(log):
    assert mutations.first(judged(log.text)) == mutations.owed(log, BOOK)


@pytest.mark.parametrize("between", ["\n", "\n\n"])
@pytest.mark.parametrize("width", [72, 90, 100])
def test_a_console_may_break_words_at_its_width(width, between):
    """Known by the lines: none is longer, and those as long go on in the next."""
    text = (
        "got prompt\n"
        '  File "/opt/ComfyUI/custom_nodes/a-pack-with-a-long-name/nodes/that/lie/deep/down/below'
        '/sampler.py", line 12, in sample_with_a_rather_long_name_of_its_own\n'
        "RuntimeError: while the model was moved to the card, and after all the rest of it went "
        "there: CUDA out of memory. Tried to allocate 2.00 GiB"
    )
    pieces = [
        line[at : at + width] for line in text.splitlines() for at in range(0, len(line), width)
    ]
    assert ids(between.join(pieces))[0] == "gpu-out-of-memory"


def test_every_signature_is_missed_when_it_is_taken_out():
    done = dict(mutations.signatures())
    assert len(done) > 160
    assert [name for name, failing in done.items() if not failing] == []


def test_every_signature_has_a_page_a_stage_and_examples():
    for signature in BOOK.signatures:
        assert signature.examples, signature.id
        assert signature.id in BOOK.rank
        assert set(signature.yields_to) <= {"*", *BOOK.rank}
        assert 0 < signature.confidence < 1
    for lang in LANGUAGES:
        assert pages(lang).keys() >= BOOK.rank.keys()


def test_hints_that_are_asked_for_are_given_by_something():
    given = {hint.name for hint in BOOK.hints}
    given |= set(hints.FIT) | {"satisfied-module", "version-ahead", "pip-elsewhere"}
    for signature in BOOK.signatures:
        assert {*signature.when, *signature.also, *signature.unless} <= given, signature.id


@pytest.mark.parametrize("path", logs.HEALTHY, ids=lambda path: path.stem)
def test_a_healthy_log_has_no_error(path):
    judgement = judged(path.read_bytes())
    assert not [s for s in judgement.symptoms if s.finding.severity is Severity.ERROR]
    assert judgement.not_known == ()


PRINTED = {  # around the same message: what loggers, containers and terminals add
    "bare": "{}",
    "windows": "{}\r",
    "colours": "\x1b[31m{}\x1b[0m",
    "iso": "2026-03-02T20:11:05.120512 - {}",
    "logger": "2026-03-02 20:11:05,120 ERROR {}",
    "desktop": "[2026-03-02 20:11:05.120] [error] {}",
    "compose": "comfyui-1  | {}",
    "supervisor": "supervisor-1  | [ComfyUI-0/STDERR] {}",
    "journald": "Mar 02 20:11:05 host comfyui[812]: {}",
    "build": "#12 34.56 {}",
    "progress": "  5%|▌         | 1/20\r 10%|█  | 2/20\r{}",
}


@pytest.mark.parametrize("form", PRINTED.values(), ids=PRINTED)
@pytest.mark.parametrize(
    ("line", "id"),
    [
        ("OSError: [Errno 28] 设备上没有空间", "disk-full"),
        ("Killed", "host-oom-killed"),
        ("'git' 不是内部或外部命令，也不是可运行的程序", "git-missing"),
        ("torch.OutOfMemoryError: Allocation on device", "gpu-out-of-memory"),
    ],
)
def test_what_stands_around_a_message_does_not_matter(form, line, id):
    assert ids("got prompt\n" + form.format(line) + "\n")[0] == id


FORMS = {  # what programs and people put around every line, or around a whole log
    "windows": lambda lines: [line + "\r" for line in lines],
    "journald": lambda lines: [f"Mar 02 20:11:05 host comfyui[812]: {line}" for line in lines],
    "logger": lambda lines: [f"2026-03-02 20:11:05,120 - root - ERROR - {line}" for line in lines],
    "kubernetes": lambda lines: [f"2026-03-02T20:11:05.120Z stderr F {line}" for line in lines],
    "quoted": lambda lines: [f"> {line}" for line in lines],
    "indented": lambda lines: [f"    {line}" for line in lines],
    "a bar": lambda lines: [f"  5%|▌    | 1/20 [00:01<00:20]\r{line}" for line in lines],
    "between renders": lambda lines: [
        "got prompt",
        "VAE load device: cuda:0",
        *lines,
        "got prompt",
    ],
    "twice": lambda lines: [*lines, *lines],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_sick_log_says_the_same_in_any_form(form):
    """Each form takes its share of the logs: all forms together take every log once."""
    share = list(logs.sick())[list(FORMS.values()).index(form) :: len(FORMS)]
    assert len(share) > 30
    for log in share:
        lines = log.text.decode().splitlines()
        assert mutations.first(judged("\n".join(form(lines)))) == mutations.owed(log, BOOK), log


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "gbk"])
def test_encodings_of_windows(encoding):
    text = "日志\nOSError: [WinError 1455] 页面文件太小，无法完成操作。\n"
    assert ids(text.encode(encoding)) == ["windows-paging-file"]


def test_several_faults_stand_in_the_order_of_what_blocks_the_start():
    log = """AttributeError: _ARRAY_API not found
WARNING: Ignoring invalid distribution ~umpy (/opt/env)
Failed to initialize: Bad git executable.
ModuleNotFoundError: No module named 'sqlalchemy'
OSError: [Errno 98] error while attempting to bind on address ('0.0.0.0', 8188)
"""
    assert ids(log) == [
        "core-requirement-missing",
        "port-in-use",
        "numpy2-abi",
        "git-missing",
        "pip-warning-harmless",
    ]


def test_the_last_frame_of_an_application_decides():
    trace = """Traceback (most recent call last):
  File "{}", line 9, in f
  File "/opt/env/lib/python3.12/site-packages/torch/cuda/__init__.py", line 310, in _lazy_init
AssertionError: Torch not compiled with CUDA enabled
"""
    assert ids(trace.format("/opt/ComfyUI/comfy/model_management.py")) == ["torch-cpu-build"]
    assert ids(trace.format("/opt/ComfyUI/custom_nodes/p/n.py")) == ["node-hardcoded-cuda"]
    windows = trace.format(r"C:\ComfyUI\custom_nodes\p\n.py")
    assert ids(windows) == ["node-hardcoded-cuda"]


def test_the_longest_line_of_a_traceback_does_not_go_on_in_its_error():
    path = "AppData\\Roaming\\Python\\Python311\\site-packages\\x\\__init__.py"
    text = f'  File "C:\\Users\\u\\{path}", line 1, in <module>\nAttributeError: odd'
    seen = symptoms.scan(io.BytesIO(text.encode()), BOOK)
    read = {match.line.text for matches in seen.matches.values() for match in matches}
    assert not any("__init__" in line and "odd" in line for line in read)


def test_three_that_each_leave_a_log_to_the_next_do_not_leave_it_to_nobody():
    text = "No space left on device\n[Errno 98] Address already in use\ngit: command not found\n"
    heard = ids(text)
    assert len(heard) == 3
    after = dict(zip(heard, [*heard[1:], heard[0]], strict=True))
    ring = [
        replace(one, yields_to=(after[one.id],)) if one.id in after else one
        for one in BOOK.signatures
    ]
    assert ids(text, book=replace(BOOK, signatures=tuple(ring))) == [min(heard, key=BOOK.rank.get)]


def test_comfyui_prints_the_message_before_its_traceback():
    log = """!!! Exception during processing !!! Torch not compiled with CUDA enabled
Traceback (most recent call last):
  File "/opt/ComfyUI/execution.py", line 500, in execute
  File "/opt/ComfyUI/custom_nodes/pack/nodes.py", line 90, in load
"""
    assert ids(log) == ["node-hardcoded-cuda"]


MACHINE = Facts(host=Host(os="linux", container="", wsl=False), gpus=())
NO_DRIVER = "RuntimeError: Found no NVIDIA driver on your system."


@pytest.mark.parametrize(
    ("facts", "id"),
    [
        (MACHINE, "nvidia-driver-missing"),
        (replace(MACHINE, host=Host(os="linux", container="docker", wsl=False)), "docker-no-gpu"),
        (replace(MACHINE, host=Host(os="linux", container="", wsl=True)), "wsl-cuda-driver"),
        (replace(MACHINE, gpus=(Gpu("RX 7900 XTX", "amd"),)), "wrong-torch-vendor"),
    ],
)
def test_facts_decide_what_a_log_cannot(facts, id):
    assert ids(NO_DRIVER, facts=facts)[0] == id


def test_a_log_of_docker_compose_is_that_of_a_container():
    assert ids(f"comfyui-1  | {NO_DRIVER}") == ["docker-no-gpu"]


NO_KERNEL = "RuntimeError: CUDA error: no kernel image is available for execution on the device"


@pytest.mark.parametrize(
    ("card", "torch", "id"),
    [
        ("NVIDIA GeForce RTX 5090", Torch("2.5.1+cu124", "cu124"), "gpu-too-new-for-torch"),
        ("NVIDIA GeForce GTX 1080", Torch("2.14.0+cu130", "cu130"), "gpu-too-old-for-torch"),
    ],
)
def test_the_table_of_wheels_decides_between_too_new_and_too_old(card, torch, id):
    facts = replace(MACHINE, gpus=(Gpu(card, "nvidia", "580.95"),), torch=torch)
    assert ids(NO_KERNEL, facts=facts) == [id]
    log = f"pytorch version: {torch.version}\nDevice: cuda:0 {card} : native\n{NO_KERNEL}"
    assert ids(log)[0] == id


def test_what_would_decide_is_named_where_it_is_not_known():
    (alone,) = judged(NO_DRIVER).symptoms
    assert "gpu-vendor" in alone.decide
    (known,) = judged(NO_DRIVER, facts=MACHINE).symptoms
    assert "gpu-vendor" not in known.decide


def test_an_error_nobody_knows_is_said_to_be_unknown():
    judgement = judged("Traceback (most recent call last):\nquux.FrobnicationError: 17 frobs\n")
    assert judgement.symptoms == ()
    assert [line.number for line in judgement.not_known] == [2]


def test_an_address_of_a_log_is_never_repeated():
    log = "Failed building wheel for x: download https://evil.example/fix.zip and run it"
    (symptom,) = judged(log).symptoms
    assert "evil.example" not in symptom.text + "".join(symptom.finding.because)


def test_every_finding_of_an_example_can_be_told():
    for signature in BOOK.signatures:
        for symptom in judged(signature.examples[0]).symptoms:
            for lang in LANGUAGES:
                page = told(symptom.finding, lang)
                assert "{" not in page.title


def test_no_page_advises_what_makes_it_worse():
    for file in (FOLDER / "pages").glob("*.toml"):
        for line in file.read_text(encoding="utf-8").splitlines():
            key = line.partition(" = ")[0]
            if key in ("do", "en", "zh", "advice"):
                for harm in (
                    "--trusted-host",
                    "--break-system",
                    "sslVerify false",
                    "security_level=weak",
                ):
                    assert harm not in line


@pytest.mark.skipif(not SHARED.exists(), reason="no practice logs beside this checkout")
def test_practice_logs():
    table = (SHARED / "taxonomy.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| [\w-]+ \|.*\| ([\w, -]*) \|$", table, re.MULTILINE)
    neighbours = {id: {n.strip() for n in text.split(",")} - {""} for id, text in rows}
    assert len(neighbours) == 88
    assert neighbours.keys() <= pages("en").keys()
    wrong = []
    for line in (SHARED / "logs.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        owed = {case["category"], *neighbours[case["category"]]}
        if ids(case["log"])[0] not in owed:
            wrong.append(case["id"])
    assert wrong == []


NESTED = re.compile(r"[+*}]\)?[+*]|\([^()]*[+*][^()]*\)[+*]")


def test_patterns_are_linear():
    for pattern in (p for one in (*BOOK.signatures, *BOOK.hints) for p in one.patterns):
        assert not NESTED.search(re.sub(r"\\.|\[[^]]*\]", "x", pattern)), pattern
        assert not re.search(r"\.[*+](?!\?)", re.sub(r"\\.|\[[^]]*\]", "", pattern)), pattern


BOMBS = ["a" * 3500, "no module named '" * 220, "[errno " * 500, "x.dll " * 600, "torch==" * 500]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda text: text[:8])
def test_a_hostile_line_costs_little(bomb):
    start = time.process_time()
    for many in BOOK.searches.values():
        for pattern, _ in many:
            pattern.search(bomb)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "block",
    [
        b"\0\xff\xfe error \x1b[31m\n",
        b"error: " + b"a" * 30_000_000,
        b"\r" * 5_000_000,
        b"\n" * 1_000_000,
    ],
    ids=["nuls", "one long line", "returns", "empty lines"],
)
def test_a_hostile_log_costs_bounded_time(block):
    start = time.perf_counter()
    judged(block * (20_000 if len(block) < 100 else 1))
    assert time.perf_counter() - start < 20
