"""Whatever happens to a treatment, the tree is as before it or as after it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import venv
from pathlib import Path

import pytest

from doctor import installer, journal
from doctor.facts import Flag
from doctor.journal import Undoable, pack, unpack
from doctor.plan import Treatment
from doctor.receipts import Busy, Journal, locked
from doctor.step import (
    KeepFlags,
    MakeVenv,
    Move,
    Packages,
    Place,
    PutBack,
    StepFailed,
    Write,
)
from tests.doctor.test_snapshot import tree
from tests.doctor.wheels import wheel


def silent(_):
    """A progress that nobody watches."""


@pytest.fixture
def book(tmp_path):
    return Journal(tmp_path / "home")


def treat(book, *steps):
    receipt = journal.treat(book, Treatment("a-fix", ("a-finding",), steps), silent)
    journal.commit(book, receipt)
    return receipt


def test_undo_puts_files_back_with_their_modes(book, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (place / "kept").write_text("before")
    (place / "kept").chmod(0o600)
    before = tree(place)
    steps = [Write(str(place / name), "after") for name in ("kept", "new", "deep/new")]
    treat(book, *steps, Move(str(place / "new"), str(place / "moved")))
    assert (place / "moved").read_text() == "after"
    journal.undo(book, None, silent)
    assert tree(place) == before


def test_a_failing_step_takes_the_ones_before_it_back(book, tmp_path):
    here, mine, taken = (tmp_path / name for name in ("here", "mine", "taken"))
    mine.write_text("mine")
    taken.write_text("taken")
    steps = (Write(str(here), "x"), Move(str(mine), str(taken)))
    with pytest.raises(StepFailed, match="is there already"):
        journal.treat(book, Treatment("a-fix", (), steps), silent)
    assert not here.exists()
    assert (mine.read_text(), taken.read_text()) == ("mine", "taken")
    assert [r.state for r in book.history()] == ["rolled-back"]


def test_history_tells_what_and_why_and_later_ones_are_undone_first(book, tmp_path):
    first = treat(book, Write(str(tmp_path / "a"), "1"))
    treat(book, Write(str(tmp_path / "b"), "2"))
    assert [(r.fix, r.cures, r.state) for r in book.history()] == [
        ("a-fix", ("a-finding",), "done")
    ] * 2
    with pytest.raises(Undoable, match="came later"):
        journal.undo(book, first, silent)
    journal.undo(book, None, silent)
    journal.undo(book, None, silent)
    assert not (tmp_path / "a").exists()
    with pytest.raises(Undoable, match="Nothing"):
        journal.undo(book, None, silent)


def test_a_torn_last_line_is_as_if_it_was_never_written(book, tmp_path):
    treat(book, Write(str(tmp_path / "a"), "1"))
    with book.path.open("a") as paper:
        paper.write('{"event": "begin", "receipt": "x", "wh')
    assert len(book.history()) == 1
    treat(book, Write(str(tmp_path / "b"), "2"))
    assert [r.state for r in book.history()] == ["done", "done"]
    for line in book.path.read_text().splitlines():
        json.loads(line)


def test_undo_is_exact_where_a_file_is_no_plain_text(book, tmp_path):
    """Line ends of Windows, bytes of no encoding, a link, a time: what was there comes back."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "windows").write_bytes(b"a\r\nb\r\n")
    (place / "bytes").write_bytes(b"\xff\xfe\x00")
    os.utime(place / "bytes", ns=(10**18, 10**18))
    (place / "link").symlink_to("windows")
    (place / "dangling").symlink_to("nowhere")
    before = tree(place)
    names = ("windows", "bytes", "link", "dangling", "deep/deeper/new")
    treat(book, *(Write(str(place / name), "x\n") for name in names))
    assert {(place / name).read_bytes() for name in names} == {b"x\n"}
    journal.undo(book, None, silent)
    assert tree(place) == before
    assert (place / "bytes").stat().st_mtime_ns == 10**18


def test_the_journal_cut_at_any_byte_leaves_all_or_nothing(tmp_path):
    """Power loss takes the end of the journal; the copies beside it still know the way back."""
    place = tmp_path / "place"

    def begun(home):
        place.mkdir()
        (place / "a").write_text("before")
        steps = (Write(str(place / "a"), "after"), Move(str(place / "a"), str(place / "d/b")))
        journal.treat(home, Treatment("f", (), steps), silent)
        return home.path.read_bytes()

    book = Journal(tmp_path / "home")
    data = begun(book)
    last = data[:-1].rfind(b"\n") + 1
    for cut in (last, last + 1, last + (len(data) - last) // 2, len(data) - 1, len(data)):
        book.path.write_bytes(data[:cut])
        assert [r.state for r in journal.recover(book, silent)] == ["rolled-back"]
        assert {path: row[-1] for path, row in tree(place).items()} == {"a": b"before"}
        assert not journal.recover(book, silent), "once is enough"
        shutil.rmtree(place)
        shutil.rmtree(book.home)
        data = begun(book)
        last = data[:-1].rfind(b"\n") + 1


def test_one_doctor_at_a_time(tmp_path):
    with locked(tmp_path / "home"), pytest.raises(Busy), locked(tmp_path / "home"):
        pass
    with locked(tmp_path / "home"):
        pass


@pytest.mark.parametrize(
    "step",
    [
        Write("a", "text"),
        PutBack(("a", "b"), "kept"),
        KeepFlags("a", {"--cpu": Flag("x", "1", ("y",), "z", {"gpu": ""})}, ("--x",)),
        Move("a", "b"),
        Place("a", "b", "https://x.example"),
        MakeVenv("a", "py"),
        Packages("py", ("numpy",), wheels=(installer.Wheel("numpy", "2.0", "file:///x", "ab", 7),)),
    ],
    ids=lambda step: type(step).__name__,
)
def test_every_step_survives_the_journal(step):
    assert unpack(json.loads(json.dumps(pack(step)))) == step


def test_place_merges_folders_and_never_replaces_a_file(book, tmp_path):
    source, into = tmp_path / "source", tmp_path / "into"
    for path in (source / "models/readme", source / "main.py", into / "models/mine", into / "x"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    before = tree(into)
    treat(book, Place(str(source), str(into)))
    assert (into / "models/readme").exists()
    assert (into / "models/mine").exists()
    journal.undo(book, None, silent)
    assert tree(into) == before
    (source / "x").parent.mkdir(exist_ok=True)
    (source / "x").write_text("theirs")
    with pytest.raises(StepFailed, match="there already"):
        journal.treat(book, Treatment("f", (), (Place(str(source), str(into)),)), silent)
    assert (into / "x").read_text() == "x"


def test_old_snapshots_are_removed_by_the_rule_and_never_the_last_one(book, tmp_path):
    receipts = []
    for number in range(7):
        receipts.append(treat(book, Write(str(tmp_path / "a"), str(number))))
        kept = book.kept(receipts[-1], 0)
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "file").write_text("x" * 100)
    journal.prune(book)
    there = [receipt for receipt in receipts if (book.home / "kept" / receipt).exists()]
    assert there == receipts[-journal.UNDOABLE :]
    assert book.history()[-1].kept >= 100
    journal.undo(book, None, silent)
    journal.prune(book)
    assert not (book.home / "kept" / receipts[-1]).exists()
    assert (book.home / "kept" / receipts[-2]).exists()


def test_a_python_without_venv_names_the_command_that_brings_it(book, tmp_path):
    """What Debian's python3 says, whose ensurepip is a package of its own."""
    fake = tmp_path / "python3"
    fake.write_text(
        "#!/bin/sh\necho 'The virtual environment was not created successfully because ensurepip"
        " is not\navailable.\n\n    apt install python3.12-venv\n\nFailing command: x'\nexit 1\n"
    )
    fake.chmod(0o755)
    step = MakeVenv(str(tmp_path / "env"), str(fake))
    with pytest.raises(StepFailed, match=r"apt install python3\.12-venv$"):
        journal.treat(book, Treatment("f", (), (step,)), silent)


# Packages, in a real environment with a real pip


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Two releases of a package, one with a file of another package's, and what it needs."""
    folder = tmp_path_factory.mktemp("shop")
    wheel(folder, "alpha", "1.0", files={"shared/common.py": "one\n", "alpha/old.py": "old\n"})
    wheel(folder, "alpha", "2.0", "beta>=1", files={"shared/common.py": "two\n"})
    wheel(folder, "beta", "1.0")
    return folder


@pytest.fixture
def env(tmp_path, shop):
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = str(tmp_path / "env" / "bin" / "python")
    words = [*installer.pip(python), "install", "--quiet", "--no-index", "--find-links", str(shop)]
    subprocess.run([*words, "alpha==1.0"], check=True)
    return python


def upgrade(python, shop):
    def one(name, version):
        path = shop / f"{name}-{version}-py3-none-any.whl"
        return installer.Wheel(name, version, path.as_uri())

    return Packages(python, wants=("alpha>=2",), wheels=(one("alpha", "2.0"), one("beta", "1.0")))


def test_packages_are_replaced_and_undo_brings_every_byte_back(book, env, shop):
    root = Path(env).parent.parent
    before = tree(root)
    treat(book, upgrade(env, shop))
    asked = subprocess.run(
        [env, "-c", "import alpha, beta; print(alpha.__version__)"], capture_output=True, text=True
    )
    assert asked.stdout.strip() == "2.0"
    assert not list(root.rglob("direct_url.json")), "pip freeze would name a file of ours"
    journal.undo(book, None, silent)
    assert tree(root) == before


def test_a_damaged_snapshot_gives_back_what_it_can_and_blocks_nothing(book, env, shop):
    """A copy that is gone costs that file, not the use of the doctor."""
    root = Path(env).parent.parent
    before = tree(root)
    journal.treat(book, Treatment("f", (), (upgrade(env, shop),)), silent)  # killed here, say
    (kept,) = (book.home / "kept").glob("*/0/files")
    copies = [path for path in kept.rglob("*.py") if path.name == "old.py"]
    copies[0].unlink()
    (receipt,) = journal.recover(book, silent)
    assert receipt.state == "damaged"
    assert [Path(path).name for path in receipt.lost] == ["old.py"]
    after = tree(root)
    assert {path for path in before if before[path] != after.get(path)} == set(receipt.lost)
    assert not after.keys() - before.keys()
    assert not journal.recover(book, silent)
    treat(book, upgrade(env, shop))
    assert [r.state for r in book.history()] == ["damaged", "done"]


def test_what_others_did_between_a_kill_and_the_next_start_stays(book, env, shop):
    """An edit elsewhere is no part of the treatment, and no reason to refuse to take it back."""
    root = Path(env).parent.parent
    site = next(root.glob("lib/python*/site-packages"))
    (site / "theirs.py").write_text("x = 1")
    before = tree(root)
    step = upgrade(env, shop)
    undo = step.inverse(book.kept("r", 0), silent)
    shutil.rmtree(site / "alpha")  # cut in the middle
    (site / "~lpha").mkdir()
    (site / "theirs.py").write_text("x = 2")
    (site / "new.py").write_text("new")
    undo.do(silent)
    after = tree(root)
    changed = {Path(path).name for path in after if after[path] != before.get(path)}
    assert changed == {"theirs.py", "new.py"}
    assert not before.keys() - after.keys()


def test_removing_a_package_is_undone_too(book, env):
    root = Path(env).parent.parent
    before = tree(root)
    treat(book, Packages(env, removes=("alpha",), wheels=()))
    assert not list(root.rglob("alpha-1.0.dist-info"))
    journal.undo(book, None, silent)
    assert tree(root) == before


def test_a_wheel_that_is_not_what_its_index_named_changes_nothing(book, env, shop):
    root = Path(env).parent.parent
    before = tree(root)
    step = upgrade(env, shop)
    bad = installer.Wheel("alpha", "2.0", step.wheels[0].url, sha256="0" * 64)
    with pytest.raises(StepFailed, match="sha256"):
        journal.treat(book, Treatment("f", (), (Packages(env, wheels=(bad,)),)), silent)
    assert tree(root) == before
    assert [r.state for r in book.history()] == ["rolled-back"]


KILLED = """
    import sys
    from pathlib import Path
    from doctor import journal
    from doctor.plan import Treatment
    from doctor.receipts import locked
    from tests.doctor.test_journal import silent, upgrade

    python, shop = sys.argv[2], Path(sys.argv[3])
    with locked(Path(sys.argv[1])) as book:
        print("go", flush=True)
        receipt = journal.treat(book, Treatment("f", (), (upgrade(python, shop),)), silent)
        journal.commit(book, receipt)
"""


def when_free(home):
    """The lock is held by what the killed one had started, until that has ended."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return locked(home).__enter__()
        except Busy:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("seed", range(10))
def test_a_kill_at_any_instant_leaves_the_tree_as_before_or_as_after(tmp_path, env, shop, seed):
    root, home = Path(env).parent.parent, tmp_path / "home"
    before = tree(root)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(home), env, str(shop)]
    victim = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    victim.stdout.readline()
    time.sleep(random.Random(seed).uniform(0, 1.6))
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    book = when_free(home)
    finished = [r.state for r in book.history()] == ["done"]
    journal.recover(book, silent)
    if finished:
        assert list(root.rglob("alpha-2.0.dist-info"))
        journal.undo(book, None, silent)
    assert tree(root) == before
