"""Fetching over a little internet that misbehaves: whole and proved, or nothing, and told why."""

import hashlib
import os
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import psutil
import pytest

from doctor import intact, lfs, remember, tree
from doctor.fetch import Arrived, NotObtained, Patience, Route, Source, obtain
from doctor.manifest import Mirror, World
from doctor.tree import tree_hash
from tests import internet
from tests.internet import Fault, Host, git

PATIENT = Patience(ask=10.0, stall=5.0, route=20.0, total=40.0, archive=20 << 20)
HURRIED = Patience(ask=1.5, stall=1.0, route=2.5, total=6.0, archive=20 << 20)  # where hosts hang


@dataclass(frozen=True)
class Made:
    """Repositories that stand on the origin, and one that lies under the same name elsewhere."""

    root: Path
    forged: Path
    commits: dict[str, str] = field(default_factory=dict)
    trees: dict[str, str] = field(default_factory=dict)


def make(root: Path, name: str, files: dict[str, str], *after: tuple[str, ...]) -> tuple[str, str]:
    """A bare repository ROOT/o/NAME.git with these files; its commit and its tree."""
    work = root / "work" / name
    work.mkdir(parents=True)
    git("init", "-q", "-b", "main", cwd=work)
    for path, text in files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text)
    if (work / "run.sh").exists():
        (work / "run.sh").chmod(0o755)
        (work / "link").symlink_to("nodes/a.py")
    for command in after:
        git(*command, cwd=work)
    git("add", "-A", cwd=work)
    git("commit", "-qm", name, cwd=work)
    git("tag", "-am", "one", "v1", cwd=work)
    git("branch", "dev/x", cwd=work)
    (root / "o").mkdir(exist_ok=True)
    git("clone", "-q", "--bare", str(work), str(root / "o" / f"{name}.git"), cwd=root)
    git("config", "uploadpack.allowFilter", "true", cwd=root / "o" / f"{name}.git")
    return git("rev-parse", "HEAD", cwd=work), git("rev-parse", "HEAD^{tree}", cwd=work)


PACK = {
    "__init__.py": "NODE_CLASS_MAPPINGS = {}\n",
    "nodes/a.py": "a = 1\r\n",
    "节点.py": "b = 2\n",
    "run.sh": "#!/bin/sh\n",
}
HEAVY = b"the weights\n"
OID = hashlib.sha256(HEAVY).hexdigest()
LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize {len(HEAVY)}\n"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("origin")
    forged = tmp_path_factory.mktemp("forged")
    found = Made(root, forged)
    packs = {
        "pack": PACK,
        "ignores": {**PACK, ".gitattributes": "docs export-ignore\n", "docs/x.md": "x"},
        "subst": {**PACK, ".gitattributes": "v.py export-subst\n", "v.py": "$Format:%H$\n"},
        "lfs": {**PACK, ".gitattributes": "*.bin filter=lfs -text\n", "m.bin": LFS},
        "middle": {**PACK, "middle.bin": os.urandom(50_000).hex()},
        "big": {**PACK, "big.bin": os.urandom(2_500_000).hex()},
    }
    for name, files in packs.items():
        found.commits[name], found.trees[name] = make(root, name, files)
    make(forged, "pack", {**PACK, "__init__.py": "import evil\n"})
    return found


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the machine that runs the tests stands in between."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "GITHUB_ENDPOINT":
            monkeypatch.delenv(name)


@pytest.fixture
def hosts() -> Iterator[Callable[..., Host]]:
    opened = []

    def start(root: Path, **faults: Fault) -> Host:
        opened.append(Host(root, **faults))
        return opened[-1]

    yield start
    for host in opened:
        host.close()


def evil_zip(data: bytes) -> bytes:
    """The same archive, name, label and all, with one line more in one file."""
    packed = BytesIO()
    with ZipFile(BytesIO(data)) as old, ZipFile(packed, "w", ZIP_DEFLATED) as new:
        new.comment = old.comment
        for info in old.infolist():
            more = b"import evil\n" if info.filename.endswith("__init__.py") else b""
            new.writestr(info, old.read(info) + more)
    return packed.getvalue()


def climbing_zip(data: bytes) -> bytes:
    packed = BytesIO(data)
    with ZipFile(packed, "a") as file:
        file.writestr("../evil.py", "evil")
    return packed.getvalue()


def relabeled_zip(data: bytes) -> bytes:
    packed = BytesIO(data)
    with ZipFile(packed, "a") as file:
        file.comment = b"b" * 40
    return packed.getvalue()


down = internet.status(500)
silent: dict[str, Fault] = {"all": internet.hang}
no_git = dict.fromkeys(("transfer", "claim"), down)


@dataclass(frozen=True)
class Scene:
    """What goes wrong where, and what is owed: a route and proof, or the reason of a refusal."""

    owed: str  # the name of the route it came by, or what NotObtained refers to
    told: tuple[str, ...] = ()  # each in some line that was said, or in the refusal
    origin: dict[str, Fault] = field(default_factory=dict)
    mirrors: tuple[dict[str, Fault], ...] = ()
    forged: tuple[int, ...] = ()  # which mirrors serve the forged repository
    closed: bool = False  # nobody listens where the origin was
    pack: str = "pack"
    ref: str = ""
    git: bool = True
    allow: bool = False
    offline: bool = False
    proven: bool = True


BY_COMMIT = "COMMIT"  # stands for the full commit id, named by the user
first = "mirror 0"
second = "mirror 1"
third = "mirror 2"
SCENES = {
    # all is well
    "the origin answers": Scene("origin", ("proved",), mirrors=({},)),
    "a tag": Scene("origin", ref="v1"),
    "a branch with a slash": Scene("origin", ref="dev/x"),
    "a commit": Scene("origin", ref=BY_COMMIT),
    "a ref that is not there": Scene("no-such-ref", ("'nope'",), ref="nope", mirrors=({},)),
    "a repository that is not there": Scene("no-such-repository", ("404",), pack="nope"),
    # git on the origin fails, a mirror has it
    "a transfer that breaks": Scene(
        first, ("origin", "reset"), {"transfer": internet.reset}, ({},)
    ),
    "a transfer that is cut": Scene(first, (), {"transfer": internet.cut(300)}, ({},)),
    "a transfer that hangs": Scene(first, ("origin", "silent"), {"transfer": internet.hang}, ({},)),
    "a transfer that stalls": Scene(
        first, ("origin", "silent"), {"transfer": internet.stall(300)}, ({},)
    ),
    "a transfer that drips": Scene(
        first, ("origin", "silent"), {"transfer": internet.drip(0.05)}, ({},)
    ),
    "a transfer at 20 kB/s": Scene(
        first,
        ("origin", "mirror 0 was faster"),
        {"transfer": internet.trickle(20_000)},
        ({},),
        pack="big",
    ),
    "an archive at 20 kB/s, no git": Scene(
        first,
        ("origin", "mirror 0 was faster"),
        {"archive": internet.trickle(20_000)},
        ({},),
        pack="big",
        git=False,
    ),
    "a transfer that breaks once": Scene(
        "origin", (), {"transfer": internet.first(1, internet.reset)}, ({},)
    ),
    "a server error": Scene(first, ("http-500",), {"transfer": down}, ({},)),
    "other objects than asked for": Scene(
        first, (), {"transfer": internet.bytes_instead(lambda data: data[:-40] + bytes(40))}, ({},)
    ),
    "the origin gone, its commit known": Scene(
        first, ("refused",), closed=True, mirrors=({},), ref=BY_COMMIT
    ),
    "the origin hangs, its commit known": Scene(
        first, ("timeout",), {"all": internet.hang}, ({},), ref=BY_COMMIT
    ),
    "git of the origin silent, its API not": Scene(
        first, (), {"ask": internet.hang, "transfer": down}, ({},)
    ),
    # mirrors that fail or lie
    "the first mirror gone": Scene(
        second, ("mirror 0", "http-404"), no_git, ({"all": internet.status(404)}, {})
    ),
    "the first mirror shows a page": Scene(second, (), no_git, ({"all": internet.page}, {})),
    "the first mirror hangs": Scene(second, ("mirror 1",), no_git, ({"all": internet.hang}, {})),
    "the first mirror has another commit": Scene(
        second, ("mirror 0", "the origin names"), no_git, ({}, {}), forged=(0,)
    ),
    "all mirrors have another commit": Scene(
        "github-unreachable",
        ("commit",),
        {**no_git, "archive": down},
        ({"archive": down}, {"archive": down}),
        forged=(0, 1),
    ),
    "nobody names the commit": Scene("commit-unknown", ("@COMMIT",), closed=True, mirrors=({},)),
    "nobody names it, and that is allowed": Scene(
        first,
        ("mirror 0", "not by the origin"),
        closed=True,
        mirrors=({},),
        allow=True,
        proven=False,
    ),
    # by archive, since no clone works
    "the origin's archive": Scene("origin", ("archive", "proved"), {"transfer": down}),
    "a mirror's archive": Scene(
        first, ("proved",), {"transfer": down, "archive": internet.reset}, ({"transfer": down},)
    ),
    "a mirror's archive, tampered with": Scene(
        "unproven",
        ("__init__.py has other bytes",),
        {"transfer": down, "archive": internet.reset},
        ({"transfer": down, "archive": internet.bytes_instead(evil_zip)},),
    ),
    "one tampered with, then a good one, unproved allowed": Scene(
        second,
        ("__init__.py has other bytes", "mirror 1"),
        {"transfer": down, "archive": internet.reset},
        ({"transfer": down, "archive": internet.bytes_instead(evil_zip)}, {"transfer": down}),
        allow=True,
    ),
    "an archive of another commit": Scene(
        "github-unreachable",
        ("sent bbbbbbbbbbbb",),
        {"transfer": down, "archive": internet.bytes_instead(relabeled_zip)},
    ),
    "an archive that climbs": Scene(
        second,
        ("dots",),
        {"transfer": down, "archive": internet.status(404)},
        (
            {"transfer": down, "archive": internet.bytes_instead(climbing_zip)},
            {"transfer": down},
        ),
    ),
    "an archive that is a page": Scene(
        "github-unreachable", ("a web page",), {"transfer": down, "archive": internet.page}
    ),
    "an archive shorter than told": Scene(
        first,
        ("truncated",),
        {"transfer": down, "archive": internet.lie(50)},
        ({"transfer": down},),
    ),
    "an archive in a loop": Scene(
        first,
        ("redirect",),
        {"transfer": down, "archive": internet.redirect("/o/pack/archive/loop.zip")},
        ({"transfer": down},),
    ),
    "an archive that cannot be compared": Scene(
        "unproven", ("no route gave the commit",), {**no_git, "api": down}
    ),
    "an archive compared by the API": Scene("origin", ("proved",), no_git),
    "export-ignore": Scene(
        "unproven", ("docs/x.md is missing",), {"transfer": down}, pack="ignores"
    ),
    "export-ignore, allowed": Scene(
        "origin", ("docs/x.md",), {"transfer": down}, pack="ignores", allow=True, proven=False
    ),
    "export-subst": Scene("unproven", ("v.py has other",), {"transfer": down}, pack="subst"),
    "LFS by clone": Scene("origin", (), pack="lfs"),
    # without git
    "no git": Scene("origin", ("git is not there", "proved"), git=False),
    "no git, a branch": Scene("origin", ("proved",), git=False, ref="dev/x"),
    "no git, export-ignore": Scene(
        "unproven", ("docs/x.md is missing",), git=False, pack="ignores"
    ),
    "no git, a tampered mirror": Scene(
        "unproven",
        ("other bytes",),
        {"archive": internet.reset},
        ({"archive": internet.bytes_instead(evil_zip)},),
        git=False,
    ),
    "no git, the archive hangs": Scene(
        first, ("timeout",), {"archive": internet.hang}, ({},), git=False
    ),
    "no git, the archive breaks once": Scene(
        "origin", (), {"archive": internet.first(1, internet.cut(300))}, git=False, pack="middle"
    ),
    "no git, no API": Scene("commit-unknown", ("http-500",), {"api": down}, git=False),
    # three mirrors
    "only the third has it": Scene(
        third,
        ("mirror 0", "mirror 1", "http-404"),
        no_git,
        ({"all": internet.status(404)}, {"all": internet.status(503)}, {}),
    ),
    "one hangs, one resets, one serves": Scene(
        third, ("reset",), no_git, ({"all": internet.hang}, {"all": internet.reset}, {})
    ),
    "one is forged, one shows a page, one serves": Scene(
        third, ("the origin names",), no_git, ({}, {"all": internet.page}, {}), forged=(0,)
    ),
    "two are forged, the third serves": Scene(
        third, ("the origin names",), no_git, ({}, {}, {}), forged=(0, 1)
    ),
    "all three limit the rate": Scene(
        "origin",
        ("http-429", "archive"),
        {"transfer": down},
        ({"all": internet.status(429)},) * 3,
    ),
    "all three are cut, the origin's archive serves": Scene(
        "origin",
        ("truncated", "archive"),
        {"transfer": down},
        ({"transfer": internet.cut(99)},) * 3,
    ),
    "three archives, one tampered with, one cut, one good": Scene(
        third,
        ("__init__.py has other bytes",),
        {"transfer": down, "archive": internet.reset},
        (
            {"transfer": down, "archive": internet.bytes_instead(evil_zip)},
            {"transfer": down, "archive": internet.cut(99)},
            {"transfer": down},
        ),
    ),
    "three archives, all of another commit": Scene(
        "github-unreachable",
        ("sent bbbbbbbbbbbb",),
        {"transfer": down, "archive": internet.reset},
        ({"transfer": down, "archive": internet.bytes_instead(relabeled_zip)},) * 3,
    ),
    "a mirror leads away in a loop": Scene(
        second,
        ("redirect",),
        {"transfer": down, "archive": internet.reset},
        (
            {"transfer": down, "archive": internet.redirect("/o/pack/archive/loop.zip")},
            {"transfer": down},
        ),
    ),
    "a mirror whose length lies": Scene(
        second,
        ("truncated",),
        {"transfer": down, "archive": internet.reset},
        ({"transfer": down, "archive": internet.lie(50)}, {"transfer": down}),
    ),
    "an archive that hangs at its middle": Scene(
        second,
        ("mirror 0",),
        {"transfer": down, "archive": internet.reset},
        ({"transfer": down, "archive": internet.stall(99)}, {"transfer": down}),
    ),
    "a tag by a mirror": Scene(first, (), no_git, ({},), ref="v1"),
    "a branch by the second mirror": Scene(second, (), no_git, ({"all": down}, {}), ref="dev/x"),
    "no git, three mirrors, the third good": Scene(
        third,
        ("git is not there",),
        {"archive": down},
        ({"all": internet.status(404)}, {"all": internet.page}, {}),
        git=False,
    ),
    # nothing works
    "all hang": Scene(
        "commit-unknown", ("timeout",), {"all": internet.hang}, (silent, silent, silent)
    ),
    "all hang, the commit known": Scene(
        "github-unreachable",
        ("timeout",),
        {"all": internet.hang},
        (silent, silent, silent),
        ref=BY_COMMIT,
    ),
    "all gone": Scene("github-unreachable", ("refused",), closed=True, ref=BY_COMMIT),
    "offline": Scene("offline", ("offline",), offline=True),
}


def world_of(origin: str, mirrors: list[Host]) -> World:
    """Rows as in the manifest; every second mirror is a prefix proxy."""
    rows = []
    for number, host in enumerate(mirrors):
        for kind in ("clone", "archive"):
            at = host.url + ("/{url}" if number % 2 else "/{path}")
            about: Any = {"why": "a test", "source": ("here",), "checked": "now", "region": ""}
            name = f"mirror {number}"
            rows.append(Mirror(name=name, of=f"{origin}/", at=at, kind=kind, **about))
    return World(mirrors=tuple(rows))


def surroundings(home: Path, with_git: bool = True) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    path = os.environ["PATH"] if with_git else str(home)
    return {"PATH": path, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}


@pytest.mark.parametrize("name", SCENES)
def test_scenes(name: str, made: Made, hosts: Callable[..., Host], tmp_path: Path) -> None:
    scene = SCENES[name]
    origin = hosts(made.root, **scene.origin)
    roots = [made.forged if n in scene.forged else made.root for n in range(len(scene.mirrors))]
    mirrors = [hosts(root, **faults) for root, faults in zip(roots, scene.mirrors, strict=True)]
    base = internet.nobody() if scene.closed else origin.url
    ref = made.commits[scene.pack] if scene.ref == BY_COMMIT else scene.ref
    source = Source.parse(f"{base}/o/{scene.pack}" + (f"@{ref}" if ref else ""))
    patience = HURRIED if re.search("hang|stall|drip|silent", name) else PATIENT
    said: list[str] = []
    staging, start = tmp_path / "staging", time.monotonic()

    def go() -> Arrived:
        return obtain(
            source,
            staging,
            world_of(base, mirrors),
            environ=surroundings(tmp_path / "home", scene.git),
            offline=scene.offline,
            allow_unproven=scene.allow,
            say=said.append,
            timeout=patience,
        )

    if "-" in scene.owed or scene.owed in ("unproven", "offline"):
        with pytest.raises(NotObtained) as gone:
            go()
        tried = gone.value.tried
        said += [str(gone.value), *(f"{one.route} {one.reason} {one.why}" for one in tried)]
        assert gone.value.reference == scene.owed, said
        assert list(staging.iterdir()) == []
    else:
        check_arrival(go(), scene, made, staging, said)
    for words in scene.told:
        assert any(words in line for line in said), said
    assert time.monotonic() - start < patience.total + 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "staging"]


def check_arrival(arrived: Arrived, scene: Scene, made: Made, staging: Path, said: object) -> None:
    """Exactly what was named, by the route that was owed, and nothing beside it."""
    assert arrived.route.name == scene.owed, said
    assert arrived.proven == scene.proven
    assert list(staging.iterdir()) == [arrived.path]
    assert arrived.commit == made.commits[scene.pack]
    if arrived.proven:
        assert tree_hash(arrived.path) == made.trees[scene.pack]


def bring(url: str, tmp_path: Path, world: World | None = None, **more: Any) -> Arrived:
    environ = {**surroundings(tmp_path / "home"), **more.pop("environ", {})}
    patience = more.pop("timeout", PATIENT)
    source, world = Source.parse(url), world or World()
    return obtain(source, tmp_path / "staging", world, environ=environ, timeout=patience, **more)


@pytest.mark.parametrize("by", ["clone", "archive"])
def test_what_lfs_keeps_elsewhere_comes_along_and_is_proved_by_its_pointer(
    made: Made, hosts: Callable[..., Host], tmp_path: Path, by: str
) -> None:
    """The origin has lost it, the first mirror lies, the second has it."""
    shelf = tmp_path / "mirror"
    shutil.copytree(made.root / "o", shelf / "o")
    (shelf / "lfs").mkdir()
    (shelf / "lfs" / OID).write_bytes(HEAVY)
    liar, good = hosts(shelf), hosts(shelf)
    liar.faults["file"] = internet.bytes_instead(lambda data: data[::-1])
    origin = hosts(made.root, **({"transfer": down} if by == "archive" else {}))
    liar.faults["transfer"] = good.faults["transfer"] = down
    said: list[str] = []
    world = world_of(origin.url, [liar, good])
    arrived = bring(f"{origin.url}/o/lfs", tmp_path, world, say=said.append)
    assert (arrived.route.name, arrived.proven) == ("origin", True)
    assert (arrived.path / "m.bin").read_bytes() == HEAVY
    assert any("mirror 0" in line and "hash" in line for line in said), said
    assert any(headers.get("x-key") == "of LFS" for headers in good.headers)
    assert lfs.pointers(arrived.path) == []
    claimed = {"m.bin": (tree.FILE, tree.blob(LFS.encode()))}
    assert intact.compared(arrived.path, claimed).edited == ()
    (arrived.path / "m.bin").write_bytes(b"other")
    assert intact.compared(arrived.path, claimed).edited == ("m.bin",)


def test_an_archive_that_holds_what_lfs_keeps_is_proved_by_the_pointers(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    """GitHub can pack the content in the place of the pointers."""

    def with_content(data: bytes, content: bytes = HEAVY) -> bytes:
        packed = BytesIO()
        with ZipFile(BytesIO(data)) as old, ZipFile(packed, "w", ZIP_DEFLATED) as new:
            for info in old.infolist():
                heavy = info.filename.endswith("m.bin")
                new.writestr(info, content if heavy else old.read(info))
        return packed.getvalue()

    archive = internet.bytes_instead(with_content)
    origin = hosts(made.root, transfer=down, archive=archive)
    arrived = bring(f"{origin.url}/o/lfs", tmp_path)
    assert (arrived.proven, (arrived.path / "m.bin").read_bytes()) == (True, HEAVY)
    origin.faults["archive"] = internet.bytes_instead(lambda data: with_content(data, b"evil"))
    with pytest.raises(NotObtained) as gone:
        bring(f"{origin.url}/o/lfs", tmp_path)
    assert "m.bin has other bytes" in gone.value.why


def test_a_clone_by_a_mirror_remembers_the_origin_and_can_go_on(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    origin = hosts(made.root, transfer=internet.first(1, down))
    mirror = hosts(made.root)
    arrived = bring(f"{origin.url}/o/pack", tmp_path, world_of(origin.url, [mirror]))
    assert arrived.route.name == "mirror 0"
    assert arrived.ref == "refs/heads/main"
    assert mirror.url not in (arrived.path / ".git" / "config").read_text()
    assert git("status", "--porcelain", "--branch", cwd=arrived.path) == "## main...origin/main"
    assert git("remote", "get-url", "origin", cwd=arrived.path) == f"{origin.url}/o/pack"
    git("fsck", "--full", "--strict", cwd=arrived.path)
    git("pull", "-q", cwd=arrived.path)


def test_a_tag_and_a_commit_are_checked_out_without_a_branch(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    origin = hosts(made.root)
    arrived = bring(f"{origin.url}/o/pack.git@v1", tmp_path)
    assert arrived.ref == "refs/tags/v1"
    assert git("status", "--porcelain", "--branch", cwd=arrived.path) == "## HEAD (no branch)"
    assert git("describe", "--tags", cwd=arrived.path) == "v1"


def test_nothing_of_the_user_runs_or_leaks(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    """Hooks, templates, askpass and odd variables stay out; headers and helpers stay at home."""
    origin, mirror = hosts(made.root, transfer=down), hosts(made.root)
    home = tmp_path / "home"
    trap = home / "trap"
    (home / "hooks").mkdir(parents=True)
    for name in ("post-checkout", "askpass", "helper"):
        (home / "hooks" / name).write_text(f"#!/bin/sh\ntouch {trap}-{name}\n")
        (home / "hooks" / name).chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {home}/hooks\n\taskPass = {home}/hooks/askpass\n"
        f"\tautocrlf = true\n[init]\n\ttemplateDir = {home}\n"
        f"[credential]\n\thelper = {home}/hooks/helper\n"
        "[http]\n\textraHeader = X-Secret: token\n\tsslVerify = false\n"
    )
    environ = {"GIT_DIR": str(home / "elsewhere"), "GIT_TEMPLATE_DIR": str(home / "hooks")}
    world = world_of(origin.url, [mirror])
    arrived = bring(f"{origin.url}/o/pack", tmp_path, world, environ=environ)
    assert arrived.route.name == "mirror 0"
    assert tree_hash(arrived.path) == made.trees["pack"]
    assert list(home.glob("trap-*")) == []
    assert not (home / "elsewhere").exists()
    assert any("x-secret" in headers for headers in origin.headers)
    assert not any("x-secret" in headers for headers in mirror.headers)


def test_what_git_is_told_to_ask_instead_is_a_route_and_no_authority(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    """insteadOf leads to a host with another commit: named, dropped, and the origin believed."""
    origin, other = hosts(made.root), hosts(made.forged)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[url "{other.url}/"]\n\tinsteadOf = {origin.url}/\n')
    said: list[str] = []
    arrived = bring(f"{origin.url}/o/pack", tmp_path, say=said.append)
    assert arrived.route.name == "origin"
    assert arrived.commit == made.commits["pack"]
    assert any("git's insteadOf" in line and "commit" in line for line in said)
    other.root = made.root
    shutil.rmtree(tmp_path / "staging")
    assert bring(f"{origin.url}/o/pack", tmp_path).route.name == "git's insteadOf"


def test_credentials_in_an_address_stay_with_the_origin(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    origin, mirror = hosts(made.root, all=down), hosts(made.root)
    said: list[str] = []
    url = f"{origin.url}/o/pack@{made.commits['pack']}".replace("//", "//me:secret@")
    world = world_of(origin.url, [mirror])
    with pytest.raises(NotObtained) as gone:
        bring(url, tmp_path, world, say=said.append)
    assert mirror.asked == []
    assert "secret" not in f"{gone.value} {gone.value.tried} {said}"


@pytest.fixture
def nested(made: Made, hosts: Callable[..., Host], tmp_path: Path) -> Host:
    """An origin with a pack that has another repository within it."""
    root = tmp_path / "nested"
    (root / "work").mkdir(parents=True)
    shutil.copytree(made.root / "o", root / "o")
    host = hosts(root)
    add = ("submodule", "add", "-q", f"{host.url}/o/pack", "inner")
    made.commits["outer"], made.trees["outer"] = make(root, "outer", PACK, add)
    return host


def test_submodules_come_along(made: Made, nested: Host, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text("[core]\n\tautocrlf = true\n")
    arrived = bring(f"{nested.url}/o/outer", tmp_path)
    assert arrived.proven
    assert (arrived.path / "inner" / "nodes" / "a.py").read_bytes() == b"a = 1\r\n"
    assert b"\r" not in (arrived.path / "inner" / "__init__.py").read_bytes()


def test_submodules_come_by_the_mirror_of_their_pack(
    made: Made, nested: Host, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    nested.faults["transfer"] = down
    world = world_of(nested.url, [hosts(nested.root)])
    arrived = bring(f"{nested.url}/o/outer", tmp_path, world)
    assert arrived.route.name == "mirror 0"
    assert arrived.proven
    assert (arrived.path / "inner" / "__init__.py").exists()


def test_a_submodule_that_does_not_arrive_is_named(
    made: Made, nested: Host, tmp_path: Path
) -> None:
    shutil.rmtree(nested.root / "o" / "pack.git")
    with pytest.raises(NotObtained) as gone:
        bring(f"{nested.url}/o/outer", tmp_path)
    assert gone.value.reference == "unproven"
    assert "inner" in gone.value.why
    arrived = bring(f"{nested.url}/o/outer", tmp_path, allow_unproven=True)
    assert not arrived.proven
    assert (arrived.path / "__init__.py").exists()


def test_an_archive_without_its_submodule_is_not_proved(
    made: Made, nested: Host, tmp_path: Path
) -> None:
    nested.faults["transfer"] = down
    with pytest.raises(NotObtained) as gone:
        bring(f"{nested.url}/o/outer", tmp_path)
    assert "inner is a submodule" in gone.value.why


def test_a_submodule_cannot_name_a_file_or_a_program(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "work").mkdir(parents=True)
    add = ("submodule", "add", "-q", "--name", "inner", str(made.root / "o" / "pack.git"), "inner")
    make(root, "outer", PACK, add)
    with pytest.raises(NotObtained) as gone:
        bring(f"{hosts(root).url}/o/outer", tmp_path)
    assert gone.value.reference == "unproven"


def test_archives_and_folders_of_the_user(made: Made, tmp_path: Path) -> None:
    bare = made.root / "o" / "pack.git"
    made_zip = ("archive", "--prefix=pack-main/", "-o", str(tmp_path / "pack-main.zip"), "main")
    git(*made_zip, cwd=bare)
    arrived = bring(str(tmp_path / "pack-main.zip"), tmp_path, offline=True)
    assert (arrived.proven, arrived.commit) == (True, "")
    again = bring(str(arrived.path), tmp_path, offline=True)
    assert tree_hash(again.path) == tree_hash(arrived.path) == made.trees["pack"]


def test_an_archive_by_address_needs_its_hash_where_a_mirror_gave_it(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    zips = tmp_path / "zips"
    zips.mkdir()
    git("archive", "-o", str(zips / "p.zip"), "main", cwd=made.root / "o" / "pack.git")
    sha = hashlib.sha256((zips / "p.zip").read_bytes()).hexdigest()
    origin, mirror = hosts(zips), hosts(zips)
    world = world_of(origin.url, [mirror])
    assert bring(f"{origin.url}/p.zip", tmp_path, world).route.name == "origin"
    origin.faults["all"] = internet.reset
    with pytest.raises(NotObtained) as gone:
        bring(f"{origin.url}/p.zip", tmp_path, world)
    assert gone.value.reference == "unproven"
    arrived = bring(f"{origin.url}/p.zip#sha256={sha}", tmp_path, world)
    assert (arrived.route.name, arrived.proven) == ("mirror 0", True)
    mirror.faults["all"] = internet.bytes_instead(evil_zip)
    with pytest.raises(NotObtained):
        bring(f"{origin.url}/p.zip#sha256={sha}", tmp_path, world)


def test_a_commit_named_over_plain_http_is_not_proved(
    made: Made, hosts: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doctor.mirrors.LOOPBACK", ())
    with pytest.raises(NotObtained) as gone:
        bring(f"{hosts(made.root).url}/o/pack", tmp_path)
    assert gone.value.reference == "unproven"
    assert "plain http" in gone.value.why


def test_no_git_outlives_an_errand(made: Made, hosts: Callable[..., Host], tmp_path: Path) -> None:
    origin = hosts(made.root, all=internet.hang)
    with pytest.raises(NotObtained):
        bring(f"{origin.url}/o/pack", tmp_path, timeout=replace(HURRIED, ask=0.5, total=2))
    lines = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if origin.url in line]


def test_a_host_that_nobody_reaches_is_asked_once(made: Made, tmp_path: Path) -> None:
    with pytest.raises(NotObtained) as gone:
        bring(f"{internet.nobody()}/o/pack@{made.commits['pack']}", tmp_path)
    assert [one.reason for one in gone.value.tried] == ["refused"]


@pytest.mark.parametrize("fault", ["all", "transfer"])
def test_five_megabytes_from_the_second_mirror_while_the_origin_hangs(
    made: Made, hosts: Callable[..., Host], tmp_path: Path, fault: str
) -> None:
    """With the patience that the command has; the second time nobody waits for the silent ones."""
    origin = hosts(made.root, **{fault: internet.hang})
    mirrors = [hosts(made.root, all=internet.hang), hosts(made.root)]
    url, world = f"{origin.url}/o/big@{made.commits['big']}", world_of(origin.url, mirrors)
    start = time.monotonic()
    arrived = bring(url, tmp_path, world, timeout=None)
    assert (arrived.route.name, arrived.proven) == ("mirror 1", True)
    assert time.monotonic() - start < 5
    said: list[str] = []
    start = time.monotonic()
    assert bring(url, tmp_path, world, timeout=None, say=said.append).route.name == "mirror 1"
    assert time.monotonic() - start < 2.5
    assert any("origin" in line and "asked last" in line for line in said), said


def expired(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that ended in 2020, and its key."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    request, config = folder / "request.pem", folder / "ca.cnf"
    (folder / "index.txt").touch()
    lines = (
        "[ca]",
        "default_ca=x",
        "[x]",
        f"database={folder}/index.txt",
        "policy=p",
        f"serial={folder}/serial",
        "[p]",
    )
    (folder / "serial").write_text("01\n")
    more = ("commonName=supplied", "[e]", "subjectAltName=IP:127.0.0.1", "")
    config.write_text("\n".join((*lines, *more)))
    made = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    made += ["-keyout", str(key), "-out", str(request)]
    signed = ["openssl", "ca", "-batch", "-selfsign", "-config", str(config), "-md", "sha256"]
    signed += ["-keyfile", str(key), "-in", str(request), "-out", str(cert)]
    signed += ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-notext"]
    signed += ["-outdir", str(folder), "-extensions", "e"]
    for words in (made, signed):
        subprocess.run(words, check=True, capture_output=True)
    return cert, key


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate")
def test_a_mirror_whose_certificate_has_ended(
    made: Made, hosts: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = expired(tmp_path)
    origin, ended, good = hosts(made.root, **no_git), hosts(made.root), hosts(made.root)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    ended.server.socket = context.wrap_socket(ended.server.socket, server_side=True)
    ended.scheme = "https"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cert))
    said: list[str] = []
    environ = {"GIT_SSL_CAINFO": str(cert)}
    world = world_of(origin.url, [ended, good])
    arrived = bring(f"{origin.url}/o/pack", tmp_path, world, environ=environ, say=said.append)
    assert (arrived.route.name, arrived.proven) == ("mirror 1", True)
    assert any("mirror 0" in line and "tls" in line for line in said), said


def test_a_host_that_failed_lately_is_still_asked_where_nobody_else_is_left(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    origin = hosts(made.root, all=down)
    url = f"{origin.url}/o/pack@{made.commits['pack']}"
    with pytest.raises(NotObtained):
        bring(url, tmp_path)
    del origin.faults["all"]
    mirror = hosts(made.root, all=internet.status(404))
    assert bring(url, tmp_path, world_of(origin.url, [mirror])).route.name == "origin"


def test_mirrors_are_not_told_what_the_origin_serves(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    origin, mirror = hosts(made.root), hosts(made.root)
    bring(f"{origin.url}/o/pack", tmp_path, world_of(origin.url, [mirror]))
    assert mirror.asked == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"clone x": 3}', '{"x": {"good": 1}}'])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, text: str) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    place = remember.path(environ)
    assert place
    place.parent.mkdir()
    place.write_text(text)
    assert remember.load(environ) == {}
    remember.note(environ, Route("mirror", "https://m.example/x", "clone"), "timeout")
    assert remember.load(environ)["clone m.example"]["good"] is False


def test_what_says_nothing_of_a_host_is_not_remembered(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    for why in ("commit", "http-404", "hash", "disk", "offline"):
        remember.note(environ, Route("mirror", "https://m.example/x", "clone"), why)
    assert remember.load(environ) == {}


@pytest.mark.parametrize("script", ["#!/bin/sh\necho no tools >&2; exit 1\n", "not a program"])
def test_a_git_that_does_not_run_is_done_without(
    made: Made, hosts: Callable[..., Host], tmp_path: Path, script: str
) -> None:
    broken = tmp_path / "home" / "git"
    broken.parent.mkdir()
    broken.write_text(script)
    broken.chmod(0o755)
    environ = {"PATH": str(broken.parent)}
    arrived = bring(f"{hosts(made.root).url}/o/pack", tmp_path, environ=environ)
    assert arrived.proven
    assert not (arrived.path / ".git").exists()


def test_broken_settings_of_git_are_done_without(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text("[broken\n")
    said: list[str] = []
    arrived = bring(f"{hosts(made.root).url}/o/pack", tmp_path, say=said.append)
    assert arrived.proven
    assert any("bad config" in line for line in said)


def test_an_interruption_leaves_nothing(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    def interrupt(line: str) -> None:
        if "archive of" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring(f"{hosts(made.root, transfer=down).url}/o/pack", tmp_path, say=interrupt)
    assert list((tmp_path / "staging").iterdir()) == []


def test_ten_at_once_into_one_staging_folder(
    made: Made, hosts: Callable[..., Host], tmp_path: Path
) -> None:
    origin = hosts(made.root)
    source, environ = Source.parse(f"{origin.url}/o/pack"), surroundings(tmp_path / "home")

    def go(number: int) -> Arrived:
        return obtain(source, tmp_path / "staging", World(), environ=environ, timeout=PATIENT)

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(go, range(10)))
    assert sorted((tmp_path / "staging").iterdir()) == sorted(arrived.path for arrived in found)
    assert {tree_hash(arrived.path) for arrived in found} == {made.trees["pack"]}
