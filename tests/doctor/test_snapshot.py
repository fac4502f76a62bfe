import base64
import hashlib
import os
import random
from pathlib import Path

import pytest

from doctor import snapshot
from doctor.snapshot import Scope, SnapshotDamaged


def tree(root):
    """Everything below, byte for byte: what undo owes."""
    found = {}
    for path in sorted(Path(root).rglob("*")):
        name = str(path.relative_to(root))
        if snapshot.CACHE in path.parts:
            continue
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("folder", path.stat().st_mode)
        else:
            found[name] = ("file", path.stat().st_mode, path.read_bytes())
    return found


@pytest.fixture
def env(tmp_path):
    root = tmp_path / "env"
    for name in ("site/alpha/a.py", "site/alpha/sub/b.py", "site/beta/c.so", "bin/tool", "x.cfg"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}")
    (root / "bin/tool").chmod(0o755)
    (root / "site/alias").symlink_to("alpha/a.py")
    return root


def held(env, tmp_path, *paths):
    kept = tmp_path / "kept"
    snapshot.keep(Scope(str(env), ("",)), paths, kept, lambda what: None)
    return kept


def ruin(env):
    """What replacing a distribution does to a tree: gone, new, other, elsewhere, another mode."""
    (env / "site/alpha/a.py").unlink()
    (env / "site/alpha/sub/b.py").write_text("another b")
    (env / "site/alpha/new").mkdir()
    (env / "site/alpha/new/d.py").write_text("new")
    (env / "site/alpha/new/__pycache__").mkdir()
    (env / "site/alpha/new/__pycache__/d.pyc").write_text("cache")
    (env / "site/alias").unlink()
    (env / "bin/tool").chmod(0o700)


def test_going_back_restores_every_byte_mode_and_link(env, tmp_path):
    before = tree(env)
    kept = held(env, tmp_path, "site/alpha/a.py", "site/alpha/sub/b.py", "bin/tool")
    ruin(env)
    snapshot.settle(kept)
    assert tree(env) != before
    snapshot.go_back(kept)
    assert tree(env) == before
    snapshot.go_back(kept)  # a second time, as after a kill in the middle
    assert tree(env) == before


def test_going_back_from_a_change_cut_short_needs_no_record_of_it(env, tmp_path):
    before = tree(env)
    kept = held(env, tmp_path, "site/alpha/a.py", "site/alpha/sub/b.py", "bin/tool")
    ruin(env)
    snapshot.go_back(kept)
    assert tree(env) == before


def test_the_doctors_own_notes_in_a_venv_are_not_held(env, tmp_path):
    kept = held(env, tmp_path, "site/alpha/a.py")
    (env / ".comfy-doctor").mkdir()
    (env / ".comfy-doctor" / "journal.jsonl").write_text("{}")
    assert not snapshot.settle(kept)


def test_what_somebody_did_afterwards_elsewhere_is_left_alone(env, tmp_path):
    kept = held(env, tmp_path, "site/alpha/a.py")
    (env / "site/alpha/a.py").write_text("treated")
    snapshot.settle(kept)
    (env / "site/beta/c.so").write_text("the user's own edit")
    (env / "site/gamma.py").write_text("the user's own file")
    snapshot.go_back(kept)
    assert (env / "site/alpha/a.py").read_text() == "this is site/alpha/a.py"
    assert (env / "site/beta/c.so").read_text() == "the user's own edit"
    assert (env / "site/gamma.py").exists()


def test_a_change_of_something_that_was_not_copied_is_noticed(env, tmp_path):
    kept = held(env, tmp_path, "site/alpha/a.py")
    (env / "site/beta/c.so").write_text("nobody expected this")
    with pytest.raises(SnapshotDamaged, match=r"c\.so"):
        snapshot.settle(kept)
    with pytest.raises(SnapshotDamaged, match=r"c\.so"):
        snapshot.go_back(kept)


def test_a_library_costs_no_room_and_comes_back_after_it_was_replaced(env, tmp_path):
    library = env / "site/beta/c.so"
    before = tree(env)
    kept = held(env, tmp_path, "site/beta/c.so")
    assert (kept / "files/site/beta/c.so").samefile(library)
    library.unlink()  # as installers do: a new file in place of the old one
    library.write_text("another build")
    snapshot.settle(kept)
    snapshot.go_back(kept)
    assert tree(env) == before


def test_somebody_who_wrote_through_a_link_is_noticed(env, tmp_path):
    kept = held(env, tmp_path, "site/beta/c.so")
    (env / "site/beta/c.so").write_text("written into, in place")
    with pytest.raises(SnapshotDamaged, match=r"c\.so"):
        snapshot.settle(kept)


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_noticed(env, tmp_path):
    kept = held(env, tmp_path, "site/alpha/a.py")
    path = env / "site/beta/c.so"
    was = path.stat()
    (env / "other").write_text("tihs is site/beta/c.so")
    os.utime(env / "other", ns=(was.st_atime_ns, was.st_mtime_ns))
    os.replace(env / "other", path)
    assert path.stat().st_size == was.st_size
    with pytest.raises(SnapshotDamaged, match=r"c\.so"):
        snapshot.settle(kept)


def test_a_file_that_its_record_vouches_for_did_not_change(env, tmp_path):
    """Touched, or brought back by a backup: another time, another inode, the same bytes."""
    path = env / "site/beta/c.so"
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
    (env / "site/beta-1.dist-info").mkdir()
    record = env / "site/beta-1.dist-info/RECORD"
    record.write_text(f"beta/c.so,sha256={digest.rstrip('=')},{path.stat().st_size}\n")
    kept = tmp_path / "kept"
    snapshot.keep(Scope(str(env), ("",), "site"), ["site/alpha/a.py"], kept, lambda what: None)
    os.utime(path)
    assert not snapshot.settle(kept)
    path.write_text("not those bytes")
    with pytest.raises(SnapshotDamaged, match=r"c\.so"):
        snapshot.settle(kept)


def test_a_snapshot_that_was_not_finished_is_not_trusted(env, tmp_path):
    kept = held(env, tmp_path, "site/alpha/a.py")
    (kept / "listing.json").unlink()
    with pytest.raises(SnapshotDamaged):
        snapshot.go_back(kept)


def replace(path):
    """As installers do: the old one goes, a new one comes."""
    path.unlink()
    path.write_text("x")
    path.chmod(0o600)


@pytest.mark.parametrize("seed", range(20))
def test_any_change_of_copied_files_is_taken_back(env, tmp_path, seed):
    dice = random.Random(seed)
    before = tree(env)
    files = [path for path in before if before[path][0] == "file"]
    kept = held(env, tmp_path, *files)
    for path in dice.sample(files, 3):
        dice.choice([lambda p: p.unlink(), replace, lambda p: p.rename(p.with_suffix(".away"))])(
            env / path
        )
    (env / f"site/added{seed}").write_text("new")
    snapshot.settle(kept)
    snapshot.go_back(kept)
    assert tree(env) == before
