"""Archives: what is harmless is unpacked to the letter, everything else refused with a reason."""

import gzip
import io
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from doctor.archive import Limits, Refused, tree_hash, unpack
from doctor.tree import differences, listing
from tests.internet import git

LINK, FIFO, DEVICE = stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644, stat.S_IFCHR | 0o644
SMALL = Limits(files=50, size=1 << 20, ratio=20, small=1 << 16, headers=1 << 16)
Entries = Iterable[tuple[str, bytes | str, int]]


def zipped(path: Path, entries: Entries) -> Path:
    """A zip with these names, as they are; text is a link's target."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data, mode in entries:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, data)
    return path


def tarred(path: Path, entries: Entries) -> Path:
    """The same as a tar, by its own kinds of entries."""
    kinds = {stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFIFO: tarfile.FIFOTYPE}
    kinds |= {stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFDIR: tarfile.DIRTYPE}
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as file:
        for name, data, mode in entries:
            info = tarfile.TarInfo(name)
            info.type = kinds.get(stat.S_IFMT(mode), tarfile.REGTYPE)
            info.mode = mode & 0o777 or 0o644
            info.linkname = data if isinstance(data, str) else ""
            info.size = len(data) if isinstance(data, bytes) else 0
            file.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return path


def hostile(*entries: tuple[str, bytes | str, int]) -> list[tuple[str, bytes | str, int]]:
    return [("pack/ok.py", b"ok", 0), *entries]


def plain(name: str) -> list[tuple[str, bytes | str, int]]:
    return hostile((name, b"evil", 0))


# What is in it, and the word it is refused with; each as zip and as tar.gz.
HOSTILE: dict[str, tuple[Entries, str]] = {
    "climbs": (plain("pack/../../evil.py"), "dots"),
    "climbs at once": (plain("../evil.py"), "dots"),
    "climbs at the end": (plain("pack/.."), "dots"),
    "absolute": (plain("/tmp/evil.py"), "absolute"),
    "drive": (plain("C:evil.py"), "drive"),
    "backslash": (plain("pack\\..\\evil.py"), "backslash"),
    "stream": (plain("pack/ok.py:evil"), "colon"),
    "control": (plain("pack/a\rb.py"), "hidden"),
    "right to left": (plain("pack/\u202eyp.exe"), "hidden"),
    "zero width": (plain("pack/.g\u200bit/config"), "hidden"),
    "git's folder": (plain("pack/.git/hooks/post-checkout"), "git"),
    "git's folder in capitals": (plain("pack/.GIT/config"), "git"),
    "git's folder by its short name": (plain("pack/GIT~1/config"), "git"),
    "dot at the end": (plain("pack/evil."), "trailing"),
    "empty part": (plain("pack//evil.py"), "empty"),
    "long": (plain("pack/" + "x" * 300), "long"),
    "deep": (plain("x/" * 100 + "evil.py"), "deep"),
    "twice": (plain("pack/ok.py"), "duplicate"),
    "case": (plain("pack/OK.py"), "clash"),
    "case of a folder": (plain("Pack/other.py"), "clash"),
    "composed letters": (
        hostile(("pack/é.py", b"1", 0), ("pack/e\u0301.py", b"2", 0)),
        "clash",
    ),
    "composed in another order": (
        hostile(("pack/\u1fb7.py", b"1", 0), ("pack/\u03b1\u0345\u0342.py", b"2", 0)),
        "clash",
    ),
    "below a file": (plain("pack/ok.py/evil.py"), "below"),
    "below a link": (hostile(("pack/a", "/tmp", LINK), ("pack/a/evil", b"x", 0)), "below"),
    "link out": (hostile(("pack/a", "../../etc/passwd", LINK)), "link"),
    "link out of the pack only": (hostile(("pack/a", "../ok.py", LINK)), "link"),
    "link to the root": (hostile(("pack/a", "/etc/passwd", LINK)), "link"),
    "link through a link": (
        hostile(("pack/x/y/up", "../..", LINK), ("pack/x/y/out", "up/../z", LINK)),
        "link",
    ),
    "link to nothing": (hostile(("pack/a", "", LINK)), "link"),
    "link with a drive": (hostile(("pack/a", "C:/x", LINK)), "link"),
    "link into git's folder": (hostile(("pack/a", ".git/config", LINK)), "link"),
    "pipe": (hostile(("pack/pipe", b"", FIFO)), "device"),
    "device": (hostile(("pack/zero", b"", DEVICE)), "device"),
    "bomb": (hostile(("pack/big", bytes(300_000), 0)), "ratio"),
    "large": (hostile(("pack/big", os.urandom(1_100_000), 0)), "size"),
    "many": ([(f"pack/{n}", b"", 0) for n in range(60)], "count"),
    "nothing": ([("pack/", b"", stat.S_IFDIR | 0o755)], "empty"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives_are_refused_and_leave_nothing(
    tmp_path: Path, what: str, pack: Callable[[Path, Entries], Path]
) -> None:
    entries, reason = HOSTILE[what]
    staging = tmp_path / "staging"
    staging.mkdir()
    with pytest.raises(Refused) as refused:
        unpack(pack(tmp_path / "evil", entries), staging / "into", SMALL)
    assert refused.value.reason == reason
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["evil", "staging"]


def evil_nul(path: Path) -> None:
    zipped(path, plain("pack/evil.pyXtxt"))
    path.write_bytes(path.read_bytes().replace(b"pyXtxt", b"py\0txt"))


def evil_encrypted(path: Path) -> None:
    zipped(path, plain("pack/a.py"))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(bytes(data))


def evil_other_name_inside(path: Path) -> None:
    zipped(path, plain("pack/a.py"))
    path.write_bytes(path.read_bytes().replace(b"pack/a.py", b"pack/b.py", 1))


def evil_longer_than_told(path: Path) -> None:
    zipped(path, plain("pack/a.py"))
    data = path.read_bytes()
    path.write_bytes(data.replace((4).to_bytes(4, "little"), (2).to_bytes(4, "little")))


def evil_hard_link(path: Path) -> None:
    with tarfile.open(path, "w:gz") as file:
        info = tarfile.TarInfo("pack/passwd")
        info.type, info.linkname = tarfile.LNKTYPE, "/etc/passwd"
        file.addfile(info)


def evil_headers(path: Path) -> None:
    """A pax header of many megabytes, which tarfile would read into memory."""
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("pack/a.py")
        info.pax_headers = {"comment": "x" * 5_000_000}
        file.addfile(info)


def evil_listing(path: Path) -> None:
    """More names than there is room for; the count comes too late to save memory."""
    zipped(path, [(f"pack/{n:06}", b"", 0) for n in range(3000)])


def evil_claimed_size(path: Path) -> None:
    """A header of 8 GB, and zeros without end behind it."""
    info = tarfile.TarInfo("pack/a.py")
    info.size = 8 << 30
    path.write_bytes(gzip.compress(info.tobuf() + bytes(100_000)))


def evil_truncated(path: Path) -> None:
    tarred(path, hostile(("pack/big", os.urandom(50_000), 0)))
    path.write_bytes(path.read_bytes()[:20_000])


def evil_truncated_zip(path: Path) -> None:
    zipped(path, hostile(("pack/big", os.urandom(50_000), 0)))
    path.write_bytes(path.read_bytes()[:20_000])


def evil_bits(path: Path) -> None:
    zipped(path, hostile(("pack/big", os.urandom(50_000), 0)))
    data = bytearray(path.read_bytes())
    data[9_000] ^= 1
    path.write_bytes(bytes(data))


def evil_page(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html><html>Please log in</html>")


MADE: dict[Callable[[Path], None], str] = {
    evil_nul: "nul",
    evil_encrypted: "encrypted",
    evil_other_name_inside: "damaged",
    evil_longer_than_told: "damaged",
    evil_hard_link: "hardlink",
    evil_headers: "headers",
    evil_listing: "headers",
    evil_claimed_size: "size",
    evil_truncated: "damaged",
    evil_truncated_zip: "damaged",
    evil_bits: "damaged",
    evil_page: "kind",
}


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_archives_made_by_hand_are_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "evil")
    with pytest.raises(Refused) as refused:
        unpack(tmp_path / "evil", tmp_path / "into", SMALL)
    assert refused.value.reason == MADE[make]
    assert [path.name for path in tmp_path.iterdir()] == ["evil"]


def test_an_existing_folder_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "mine").write_text("mine")
    with pytest.raises(FileExistsError):
        unpack(zipped(tmp_path / "a.zip", plain("pack/a.py")), tmp_path / "into")
    assert (tmp_path / "into" / "mine").read_text() == "mine"


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("p-main/__init__.py", "p-main/a/b.py"), ("__init__.py", "a/b.py")),
        (("p-main/p-main/__init__.py", "p-main/p-main/b.py"), ("__init__.py", "b.py")),
        (("p-main/inner/__init__.py",), ("inner/__init__.py",)),
        (("__init__.py", "a/b.py"), ("__init__.py", "a/b.py")),
        (("./p/__init__.py",), ("__init__.py",)),
        (("p/__init__.py", "__MACOSX/p/._x"), ("__init__.py",)),
        (("p/p/p/__init__.py",), ("p/__init__.py",)),
    ],
)
def test_one_folder_around_everything_is_peeled(
    tmp_path: Path,
    names: tuple[str, ...],
    found: tuple[str, ...],
    pack: Callable[[Path, Entries], Path],
) -> None:
    archive = pack(tmp_path / "a", [(name, b"x", 0) for name in names])
    unpack(archive, tmp_path / "into")
    assert tuple(sorted(listing(tmp_path / "into"))) == found


def repository(folder: Path) -> str:
    """A repository with what makes trees hard: modes, links, letters, sorting; its tree's id."""
    folder.mkdir()
    git("init", "-q", cwd=folder)
    names = ("a.py", "a/b.py", "a0", "a-b", "节点/é.py", "empty", "deep/er/still/x")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("" if name == "empty" else f"{name}\r\n\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "deep" / "link").symlink_to("../a.py")
    git("add", "-A", cwd=folder)
    git("commit", "-qm", "one", cwd=folder)
    return git("rev-parse", "HEAD^{tree}", cwd=folder)


def test_the_tree_hash_is_gits_own(tmp_path: Path) -> None:
    tree = repository(tmp_path / "repo")
    assert tree_hash(tmp_path / "repo") == tree


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
def test_gits_archives_come_out_as_the_tree_that_went_in(tmp_path: Path, form: str) -> None:
    tree = repository(tmp_path / "repo")
    made = ("archive", f"--format={form}", "--prefix=repo-1/", "-o", str(tmp_path / "a"), "HEAD")
    git(*made, cwd=tmp_path / "repo")
    found = unpack(tmp_path / "a", tmp_path / "into")
    assert tree_hash(found.path, found.modes) == tree
    assert found.label == git("rev-parse", "HEAD", cwd=tmp_path / "repo")
    assert os.access(found.path / "run.sh", os.X_OK)
    assert os.readlink(found.path / "deep" / "link") == "../a.py"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda root: (root / "a.py").write_text("other"), "a.py has other bytes"),
        (lambda root: (root / "a.py").unlink(), "a.py is missing"),
        (lambda root: (root / "new").write_text("x"), "new is not in the commit"),
        (lambda root: (root / "run.sh").chmod(0o644), "run.sh has mode 100644, not 100755"),
        (
            lambda root: ((root / "deep/link").unlink(), (root / "deep/link").symlink_to("../a0")),
            "deep/link has other bytes",
        ),
    ],
)
def test_every_change_changes_the_hash_and_is_named(
    tmp_path: Path, change: Callable[[Path], object], line: str
) -> None:
    tree = repository(tmp_path / "repo")
    before = listing(tmp_path / "repo")
    change(tmp_path / "repo")
    assert tree_hash(tmp_path / "repo") != tree
    assert list(differences(before, listing(tmp_path / "repo"))) == [line]


def test_modes_of_the_archive_win_over_a_disk_that_keeps_none(tmp_path: Path) -> None:
    tree = repository(tmp_path / "repo")
    modes = {name: mode for name, (mode, _) in listing(tmp_path / "repo").items()}
    (tmp_path / "repo" / "run.sh").chmod(0o644)
    (tmp_path / "repo" / "deep" / "link").unlink()
    (tmp_path / "repo" / "deep" / "link").write_text("../a.py")
    assert tree_hash(tmp_path / "repo", modes) == tree


def test_many_small_headers_are_not_read_for_ever(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a", [(f"pack/{n}", b"", 0) for n in range(500)])
    with pytest.raises(Refused) as refused:
        unpack(archive, tmp_path / "into", Limits(headers=1 << 16))
    assert refused.value.reason == "headers"


@pytest.mark.parametrize(
    ("kind", "reason"), [(tarfile.REGTYPE, "ratio"), (tarfile.XHDTYPE, "headers")]
)
def test_a_bomb_costs_neither_memory_nor_time(tmp_path: Path, kind: bytes, reason: str) -> None:
    """A gigabyte of zeros in a megabyte, unpacked in a process with little memory."""
    bomb = tmp_path / "bomb.tar.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        info = tarfile.TarInfo("pack/zeros")
        info.type, info.size = kind, 1 << 30
        file.write(info.tobuf())
        for _ in range(1024):
            file.write(bytes(1 << 20))
    code = (
        "import resource, sys; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))\n"
        "from doctor.archive import Refused, unpack\n"
        "try: unpack(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except Refused as refused: print(refused.reason)\n"
    )
    command = [sys.executable, "-c", code, str(bomb), str(tmp_path / "into")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout.strip() == reason, done.stderr
