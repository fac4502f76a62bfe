"""A fleet: what many answers come to, who stands out, and a folder of pictures that loses none.

Ray itself is in tests/lab/test_fleet.py; here the cluster is a list of what its nodes would reply.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest
from PIL import Image

from doctor.fleet import cluster, hand, ledger, parcel, told
from doctor.fleet.album import Album, Done
from doctor.fleet.places import CRASHED, DEAD, LATE, Lost, Node, Reply, Slot, Work, devices
from doctor.fleet.rounds import Patience, rounds
from doctor.fleet.sheet import html
from doctor.fleet.verdict import fleet, outcome, to_json
from doctor.receipts import Busy, locked
from doctor.words import LANGUAGES, pages
from tests.doctor.command import ROOT, answer, doctor

WORK = Work("check", ("fleet", "here", "check"), 10.0)


def node(name, gpus=0):
    return Node(f"id-{name}", name, gpus=gpus)


def part(code=0, **answer):
    said = {"schema": "comfy-doctor.fleet-part/1", "act": "check", **answer}
    return Reply(code, json.dumps(said), "", 1.0)


def finding(id, severity="error"):
    words = {lang: {"title": pages(lang)[id].title, "advice": "…"} for lang in LANGUAGES}
    row = {"id": id, "severity": severity, "because": ["a <b>fact</b>"], "commands": []}
    return row | {"told": words, "title": "…", "advice": "…", "fix": None}


def timing(rate, device="H100", machine="cuda"):
    there = {
        "device": machine,
        "device_name": device,
        "cpu": "EPYC",
        "torch": "2.9",
        "capability": "a",
    }
    return {"machine": there, "settings": {"size": 512}, "steps_per_second": rate}


def judged(replies):
    """name -> reply, as one fleet."""
    slots = {name: Slot(node(name)) for name in replies}
    return fleet("check", "now", [outcome(slots[n], WORK, r) for n, r in replies.items()])


@pytest.mark.parametrize(
    ("replies", "code"),
    [
        ([part(0), part(0)], 0),
        ([part(0), part(1)], 1),
        ([part(0), part(4)], 4),
        ([part(1), Lost(DEAD, "the node died")], 1),
        ([part(0), Lost(DEAD, "the node died")], 4),
        ([part(0), Lost(LATE, "…")], 4),
        ([part(0), Reply(-9, "", "Killed", 1.0)], 4),
        ([part(0), Reply(0, "not JSON", "", 1.0)], 4),
        ([part(0), Reply(0, '{"schema": "another/1"}', "", 1.0)], 4),
        ([part(0), Reply(-15, "", "", 9.0, late=True)], 4),
        ([part(1), Reply(3, "{}", "KeyError", 1.0)], 3),
        ([part(0), Reply(2, '{"error": {"message": "no folder"}}', "", 1.0)], 4),
        ([Reply(2, '{"error": {"message": "no folder"}}', "", 1.0)] * 2, 2),
        ([], 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst_and_what_was_not_judged_is_never_healthy(replies, code):
    whole = judged({f"n{n}": reply for n, reply in enumerate(replies)})
    said = to_json(whole)
    assert (whole.code, said["exit"], said["healthy"]) == (code, code, code == 0)
    assert len(said["parts"]) == len(replies), "nobody is missing"


def test_a_finding_is_told_once_with_all_who_have_it():
    names = [f"n{n:02}" for n in range(9)]
    whole = judged({n: part(1, findings=[finding("torch-missing")]) for n in names})
    (group,) = whole.groups
    assert group.slots == tuple(names)
    lines = list(told.lines(whole, "en"))
    assert "    on       n00, n01, n02, n03, n04, n05 and 3 more" in lines
    assert lines[-1] == "✗ 9 asked: 0 healthy, 9 with errors, 0 not judged."


def test_a_card_eight_per_cent_below_its_siblings_is_named_and_one_above_that_is_not():
    rates = {"a": 10.0, "b": 10.1, "c": 9.9, "d": 9.1, "e": 9.3}
    replies = {name: part(0, bench=timing(rate)) for name, rate in rates.items()}
    replies["other"] = part(0, bench=timing(3.0, device="T4"))
    (slow,) = [one for one in judged(replies).outliers if one.kind == "slow"]
    assert (slow.slots, slow.value, slow.usual, slow.siblings) == (("d",), "9.1", "9.9", 5)


def test_a_driver_that_differs_and_pixels_that_differ_are_named():
    def proof(pixels, driver):
        render = {"recipe": {"seed": 1}, "checkpoint": "c", "dtype": "float16", "threads": 1}
        render["sha256"] = {"output": pixels}
        return part(0, render=render, bench=timing(10.0), facts={"driver": driver, "torch": "?"})

    replies = {n: proof("aaaa", "580.1") for n in "abc"} | {"d": proof("bbbb", "570.2")}
    found = {one.kind: one for one in judged(replies).outliers}
    assert found["pixels"].slots == ("d",)
    assert (found["differs"].name, found["differs"].slots) == ("driver", ("d",))
    assert set(found) == {"pixels", "differs"}, "what nobody knows differs from nothing"


def test_a_gpu_that_torch_did_not_use_is_an_error_unless_the_cpu_was_asked_for():
    slot = Slot(node("a", gpus=1), 0)
    reply = part(0, bench=timing(1.0, device="", machine="cpu"))
    assert outcome(slot, WORK, reply).bad
    asked = Work("bench", ("fleet", "here", "bench", "--device=cpu"), 10.0)
    assert outcome(slot, asked, reply).good


def test_one_card_that_ray_gave_twice_is_judged_once():
    slots = devices([node("a", gpus=2)])
    replies = [Reply(0, part(0).out, "", 1.0, device="0") for _ in slots]
    whole = fleet("bench", "now", map(outcome, slots, [WORK] * 2, replies))
    assert [one.state for one in whole.outcomes] == ["answered", "refused"]
    assert whole.code == 4


def test_the_page_is_in_both_languages_and_lets_nothing_in():
    bad = finding("torch-missing") | {"because": ["<script>alert(1)</script>"]}
    replies = {"<b>n</b>": part(1, findings=[bad], bench=timing(1.0))}
    replies |= {"late": Reply(-15, "", "", 9.0, late=True), "gone": Lost(DEAD, "the node died")}
    page = html(judged(replies), "zh")
    assert "<script" not in page
    assert "<b>n" not in page
    assert "已失联" in page
    assert "dead: the node died" in page
    assert "stopped after 10 s" in page


class Pretended:
    """A cluster whose nodes reply what a function says; None is a node that never does."""

    def __init__(self, reply):
        self.reply, self.started, self.cancelled, self.gone = reply, [], [], set()

    def start(self, slot, work):
        self.started.append((slot, work))
        return len(self.started) - 1

    def ended(self, handles, seconds):
        done = [h for h in handles if self.result(h) is not None]
        if not done:
            time.sleep(0.01)
        return done[:1]

    def result(self, handle):
        return self.reply(*self.started[handle])

    def cancel(self, handle):
        self.cancelled.append(handle)

    def dead(self, node):
        return node.name in self.gone


def test_no_more_is_under_way_than_may_be_and_every_slot_has_its_end():
    slots = [Slot(node(f"n{n}")) for n in range(50)]
    todo = dict.fromkeys(slots, WORK)
    most = []

    def reply(slot, work):
        most.append(len(there.started))
        return part(0)

    there = Pretended(reply)
    ends = list(rounds(there, slots, lambda s: todo.pop(s, None), Patience(at_once=7)))
    assert len(ends) == 50
    assert most[0] == 7, "only so many were begun before the first had ended"


def test_a_node_that_says_nothing_is_late_and_one_that_died_is_dead(monkeypatch):
    monkeypatch.setattr("doctor.fleet.rounds.GRACE", 0.0)
    monkeypatch.setattr("doctor.fleet.rounds.LOOK", 0.0)
    silent, dead = Slot(node("silent")), Slot(node("dead"))
    todo = dict.fromkeys((silent, dead), Work("w", (), 0.1))
    there = Pretended(lambda slot, work: None)
    there.gone = {"dead"}
    ends = rounds(there, (silent, dead), lambda s: todo.pop(s, None), Patience(wait=0.1))
    assert {end.slot: end.result.state for end in ends} == {silent: LATE, dead: DEAD}
    assert sorted(there.cancelled) == [0, 1]


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "in" / "below").mkdir(parents=True)
    for n in range(20):
        Image.new("RGB", (8, 8), (n, 0, 0)).save(tmp_path / "in" / f"p{n:02}.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "below" / "p00.png")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    return tmp_path


def drawn(slot, work):
    """What the runner on a node says of a portion, and the files that come back."""
    names = [name.removeprefix("in/") for name in work.files]
    rows = [{"image": f"/x/in/{n}", "finite": True, "seconds": {"total": 1.0}} for n in names]
    said = part(0, many={"pictures": rows}).out
    return Reply(0, said, "", 1.0, files={f"out/{n}.png": b"PNG " + n.encode() for n in names})


def spread(photos, reply, slots, settings=None):
    """All of render but Ray: what was kept, and what failed."""
    found = ledger.pictures(photos / "in")
    there, failed = Pretended(reply), []
    with ledger.opened(photos / "out", settings or {"seed": 1}) as book:
        left = [one for one in found if not book.done(one)]
        album = Album(lambda files: tuple(files), deque(left), len(slots), 10.0)
        for end in rounds(there, slots, album.take, Patience(wait=1)):
            for one in album.ended(end):
                if isinstance(one, Done):
                    book.keep(one.picture, one.png)
                else:
                    failed.append(one)
        return len(left), sum(map(book.done, found)), [*failed, *album.left], there


def test_nothing_is_lost_when_nodes_die_hang_or_fail(photos):
    """A node that dies after its first portion, one that fails at once, one that is refused."""
    slots = [Slot(node(name)) for name in ("good", "dies", "breaks", "refuses")]
    seen = []

    def reply(slot, work):
        name = slot.node.name
        seen.append(name) if work.key not in seen else None
        if name == "dies" and seen.count("dies") > 40:
            return Lost(DEAD, "the node died")
        if name == "breaks":
            return Reply(1, "", "Traceback", 1.0)
        if name == "refuses":
            return Reply(2, '{"error": {"message": "no checkpoint"}}', "", 1.0)
        return drawn(slot, work)

    left, done, failed, _ = spread(photos, reply, slots)
    assert (left, done, failed) == (21, 21, [])
    assert sorted(p.name for p in (photos / "out").glob("*.png"))[0] == "p00.png.png"
    assert (photos / "out" / "below" / "p00.png.png").read_bytes() == b"PNG p00.png"


def test_a_node_that_was_never_right_costs_no_picture_its_tries(photos):
    slots = [Slot(node("breaks")), Slot(node("good"))]
    order = iter(range(99))

    def reply(slot, work):
        if slot.node.name == "good":
            return drawn(slot, work) if next(order) > 3 else None
        return Lost(CRASHED, "WorkerCrashedError: …")

    left, done, failed, there = spread(photos, reply, slots)
    assert (left, done, failed) == (21, 21, [])
    assert sum(slot.node.name == "breaks" for slot, _ in there.started) == 1, "it gets no second"


def test_a_picture_that_takes_nodes_down_is_named_and_the_others_are_done(photos):
    slots = [Slot(node(f"n{n}")) for n in range(6)]

    def reply(slot, work):
        deadly = "in/p07.png" in work.files
        return Lost(DEAD, "the node died") if deadly else drawn(slot, work)

    _, done, failed, _ = spread(photos, reply, slots)
    assert (done, [one.picture.name for one in failed]) == (20, ["p07.png"])


def test_when_no_node_is_left_the_rest_is_left_and_a_second_start_does_only_that(photos):
    slots = [Slot(node("only"))]
    portions = []

    def reply(slot, work):
        if work.key not in portions:
            portions.append(work.key)
        return Lost(DEAD, "…") if len(portions) > 1 else drawn(slot, work)

    _, done, undone, _ = spread(photos, reply, slots)
    assert 0 < done < 21
    assert len(undone) == 21 - done
    again, all_of_them, failed, _ = spread(photos, drawn, slots)
    assert (again, all_of_them, failed) == (21 - done, 21, [])
    assert spread(photos, drawn, slots)[0] == 0


def test_a_torn_line_a_changed_picture_and_a_lost_result_are_done_again(photos):
    slots = [Slot(node("only"))]
    spread(photos, drawn, slots)
    book = photos / "out" / ledger.NAME
    book.write_bytes(book.read_bytes()[:-20])
    Image.new("RGB", (9, 9)).save(photos / "in" / "p03.png")
    (photos / "out" / "p05.png.png").unlink()
    left, done, _, _ = spread(photos, drawn, slots)
    assert (left, done) == (3, 21)
    rows = [json.loads(line) for line in book.read_text().splitlines()]
    assert len(rows) == 1 + 20 + 3, "what was torn is gone, and no other line"


def test_other_settings_do_not_mix_in_one_folder_and_two_drivers_neither(photos):
    spread(photos, drawn, [Slot(node("only"))])
    with pytest.raises(ledger.NotThisFolder, match="other settings"):
        spread(photos, drawn, [Slot(node("only"))], {"seed": 2})
    code = "import sys; from pathlib import Path; from doctor.fleet import ledger\n"
    code += "with ledger.opened(Path(sys.argv[1]), {'seed': 1}): print('in', flush=True); input()"
    words = [sys.executable, "-c", code, str(photos / "out")]
    with subprocess.Popen(words, stdin=-1, stdout=-1, cwd=ROOT) as other:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(ledger.NotThisFolder, match="Another comfy-doctor"):
            spread(photos, drawn, [Slot(node("only"))])
        other.kill()


def served(tmp_path, script, limit=10.0, **more):
    """A doctor that is a script, started by the hand as on a node."""
    home = tmp_path / "doctor"
    home.mkdir(exist_ok=True)
    (home / "__main__.py").write_text(script)
    work = Work("w", ("word",), limit, **more)
    before, hand.ROOT = hand.ROOT, home
    try:
        return hand.serve(work, "", ["2"])
    finally:
        hand.ROOT = before


def test_the_hand_brings_back_what_the_child_said_and_wrote(tmp_path):
    script = (
        "import os, sys; print(sys.argv[1], os.environ['CUDA_VISIBLE_DEVICES'],"
        " 'PYTHONPATH' in os.environ); sys.exit(4)"
    )
    reply = served(tmp_path, script, files={"in/a": b"x"}, bring=("in/a", "none"))
    assert (reply.code, reply.out.split(), reply.late) == (4, ["word", "2", "False"], False)
    assert (reply.files, reply.device) == ({"in/a": b"x"}, "2")


def test_a_crash_is_told_by_its_signal(tmp_path):
    reply = served(tmp_path, "import os; os.kill(os.getpid(), 11)")
    assert reply.code == -11
    assert "signal 11" in outcome(Slot(node("a")), WORK, reply).why


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_child_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    note = tmp_path / "pid"
    script = (
        "import subprocess, sys, time\n"
        "one = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        f"open({str(note)!r}, 'w').write(str(one.pid)); time.sleep(1000)"
    )
    reply = served(tmp_path, script, limit=1.5)
    assert reply.late
    until(lambda: not command(note.read_text()), 5.0)


def command(pid):
    """What a process runs; nothing of one that has ended, or waits to be reaped."""
    file = Path(f"/proc/{pid}/cmdline")
    return file.read_bytes() if file.exists() else b""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_when_the_worker_is_killed_the_child_is_asked_to_end(tmp_path):
    """Ray kills a worker's own children at once: the guard is one, the doctor is none."""
    home, note = tmp_path / "doctor", tmp_path / "note"
    home.mkdir()
    script = "import sys, os, signal, time, threading\n"
    script += f"def end(*_): open({str(note)!r}, 'w').write('ended'); os._exit(0)\n"
    script += "signal.signal(signal.SIGTERM, end)\n"
    script += "from doctor.verbs.here import lifeline\n"
    script += "threading.Thread(target=lifeline, daemon=True).start()\n"
    script += f"open({str(note)!r}, 'w').write('began'); time.sleep(60)"
    (home / "__main__.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{script}")
    code = "import sys; from pathlib import Path; from doctor.fleet import hand, places\n"
    code += f"hand.ROOT = Path({str(home)!r}); hand.serve(places.Work('w', (), 60.0), '', [])"
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    until(lambda: note.exists() and note.read_text() == "began")
    (guard,) = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    worker.kill()
    os.kill(int(guard), signal.SIGKILL)
    worker.wait()
    until(lambda: note.read_text() == "ended")


def until(what, seconds=20.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_what_travels_starts_alone(tmp_path):
    """Neither the checkout nor any other package is needed where the parcel is."""
    parcel.packed(tmp_path / "parcel", False, parcel.INSTALLERS | parcel.PICTURES)
    words = [sys.executable, "-I", "-S", "-B", str(tmp_path / "parcel"), "fleet", "here", "check"]
    words += ["--json", "--level=1", f"--python={sys.executable}", "--only=numpy-missing"]
    run = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    said = json.loads(run.stdout)
    assert (run.returncode, said["schema"], said["findings"]) == (
        0,
        "comfy-doctor.fleet-part/1",
        [],
    )
    size = sum(path.stat().st_size for path in (tmp_path / "parcel").rglob("*"))
    assert size < 25e6, "what travels to a thousand nodes is small"


def test_without_ray_one_sentence_says_how_to_get_it(tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('No module named ray')")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    code = f"import sys; sys.path[:0] = {path.split(os.pathsep)!r}; from doctor.cli import main\n"
    code += "sys.exit(main(sys.argv[1:]))"
    for lang, words in (("en", "A fleet needs Ray"), ("zh", "管理多台机器需要 Ray")):
        run = subprocess.run(
            [sys.executable, "-c", code, "fleet", "check", "--local", "1", "--lang", lang],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert (run.returncode, run.stdout) == (2, "")
        assert words in run.stderr
        assert "-m pip install 'ray>=2.9'" in run.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("check", "--local", "0"), "--local 0 is not between 1 and 16"),
        (("check", "--local", "2", "--address", "x"), "give one of them"),
        (("check", "--limit", "nan"), "--limit nan is not a number"),
        (("check", "--retries", "-1"), "--retries -1 is not a number"),
        (("render", "--images", "nowhere", "--out", "x"), "there is no such folder"),
    ],
)
def test_bad_usage_is_told_before_anything_is_started(words, told, tmp_path):
    code, said = answer("fleet", *words, cwd=tmp_path)
    assert code == 2
    assert told in said["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_part_can_be_done_by_hand(tmp_path):
    code, out, _ = doctor(
        "fleet", "here", "check", "--level", 1, "--python", sys.executable, "--json",
        "--only", "numpy-missing",
    )  # fmt: skip
    said = json.loads(out)
    assert (code, said["act"], said["target"]["python"]) == (0, "check", sys.executable)


def test_parts_of_one_machine_treat_an_installation_in_turn(tmp_path):
    """Each GPU of a node is a part of its own, and all of them belong to one installation."""
    code = "import sys, time; from pathlib import Path; from doctor.receipts import locked\n"
    code += "with locked(Path(sys.argv[1])): print('in', flush=True); time.sleep(0.5)"
    words = [sys.executable, "-c", code, str(tmp_path / "home")]
    with subprocess.Popen(words, stdout=-1, cwd=ROOT) as other:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(Busy), locked(tmp_path / "home"):
            pass
        with locked(tmp_path / "home", 20.0) as book:
            assert book.waited
    with locked(tmp_path / "home", 20.0) as book:
        assert not book.waited


def test_names_of_one_machine_are_told_apart():
    rows = [
        {"NodeID": id, "NodeManagerHostname": "vm", "NodeManagerAddress": "x", "Resources": {}}
        for id in ("aaaaaaaa", "bbbbbbbb")
    ]
    from doctor.fleet.places import named_apart

    names = [one.name for one in named_apart(list(map(cluster.node, rows)))]
    assert names == ["vm#aaaaaa", "vm#bbbbbb"]
