"""Suspicion: what in a pack deserves a look before it goes live, with file and line.

Only what is known to be malicious (manifests/suspects.toml) is a reason to refuse. The rest is
told: many honest packs do such things, and somebody who hides well is not found this way.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from doctor import tree, wishes
from doctor.examine import text
from doctor.facts import Facts, Package, Unknown
from doctor.finding import Finding, Severity
from doctor.manifest import World
from doctor.wishes import Wish

LARGEST, MOST = 2 << 20, 5_000  # bytes of a source file, and files, that are read
SHOWN = 8  # places that are named of one kind
KNOWN = "node-known-malware"
SCRIPTS = {"install.py", "prestartup_script.py", "setup.py"}
PROGRAMS = (".exe", ".scr", ".msi", ".com", ".vbs", ".pif", ".hta")
TORCH = ("torch", "torchvision", "torchaudio", "xformers", "triton")
DECODERS = {
    *("b64decode", "b32decode", "b16decode", "b85decode", "a85decode", "urlsafe_b64decode"),
    *("decompress", "unhexlify", "fromhex", "decodebytes", "urlopen", "urlretrieve"),
}
EXECUTES = {"exec", "eval", "compile"}
STARTS = {"run", "call", "check_call", "check_output", "Popen", "system", "popen", "main"}


def found(pack: Path, name: str, url: str, facts: Facts) -> tuple[Finding, ...]:
    """Everything worth telling of an unpacked pack, worst first, one finding for each kind."""
    world, places = facts.world, list(tree.files(pack))[:MOST]
    told: dict[str, list[tuple[Severity, str]]] = {}
    for id, severity, where in (
        *known(places, pack, name, url, world),
        *asked(pack, facts),
        *scripts(places, pack),
        *code(places, pack),
    ):
        told.setdefault(id, []).append((severity, where))
    findings = (one(id, said, name) for id, said in told.items())
    return tuple(sorted(findings, key=lambda finding: -finding.severity))


Said = tuple[str, Severity, str]  # id of a finding, how bad, where


def one(id: str, said: Sequence[tuple[Severity, str]], name: str) -> Finding:
    places = [where for _, where in said]
    more = (f"and {len(places) - SHOWN} more",) if len(places) > SHOWN else ()
    worst = max(severity for severity, _ in said)
    return Finding(worst, (*places[:SHOWN], *more), {"name": name}, id=id)


def known(places: Sequence[Path], pack: Path, name: str, url: str, world: World) -> Iterator[Said]:
    """Packs, hosts and files that somebody has found to be malicious."""
    last = urlsplit(url).path.rstrip("/").removesuffix(".git").rpartition("/")[2]
    for row in world.bad_packs:
        if {name.lower(), last.lower()} & {bad.lower() for bad in row.names}:
            yield KNOWN, Severity.ERROR, f"{name}: {row.why} ({row.source[0]})"
    for host in world.bad_hosts:
        if (urlsplit(url).hostname or "").endswith(host.host):
            yield KNOWN, Severity.ERROR, f"{url}: {host.why} ({host.source[0]})"
    for path in places:
        for file in world.bad_files:
            if fnmatchcase(path.name.lower(), file.pattern.lower()):
                where = path.relative_to(pack).as_posix()
                yield KNOWN, Severity.ERROR, f"{where}: {file.why} ({file.source[0]})"


def asked(pack: Path, facts: Facts) -> Iterator[Said]:
    """What a pack's requirements.txt asks for."""
    for wish in wishes.read(text(pack / "requirements.txt"), "requirements.txt"):
        where = f"{wish.where}: {wish.text}"
        if wish.kind == "option" and ("index-url" in wish.text or "find-links" in wish.text):
            yield "node-direct-url", Severity.WARNING, where
        if wish.kind == "address" or (wish.requirement and wish.requirement.url):
            plain = "https://" not in wish.text or wish.text.lower().endswith(PROGRAMS)
            yield "node-direct-url", Severity.WARNING if plain else Severity.INFO, where
        if wish.requirement:
            yield from judged(wish, wish.requirement, where, facts)


def judged(wish: Wish, asked: Requirement, where: str, facts: Facts) -> Iterator[Said]:
    why = known_bad(
        wish.name, [s.version for s in asked.specifier if s.operator in ("==", "===")], facts.world
    )
    if why:
        yield KNOWN, Severity.ERROR, f"{where}: {why}"
    if like := imitated(wish.name, facts.world):
        yield "node-typosquat", Severity.WARNING, f"{where} (one letter off {like})"
    there = {} if isinstance(facts.packages, Unknown) else facts.packages
    if wish.name in TORCH and not suits(asked, there.get(wish.name)):
        has = f"{wish.name} {there[wish.name].version} is installed" if wish.name in there else ""
        yield "node-wants-another-torch", Severity.WARNING, f"{where} ({has or 'not installed'})"


def known_bad(name: str, versions: Sequence[str], world: World) -> str:
    """Why one of these versions of a distribution is known to be malicious; "" for none."""
    for row in world.bad_packages:
        if canonicalize_name(row.name) == name and (
            "*" in row.versions or set(versions) & set(row.versions)
        ):
            return f"{row.why} ({row.source[0]})"
    return ""


def suits(asked: Requirement, package: Package | None) -> bool:
    try:
        return bool(package) and asked.specifier.contains(
            Version(package.version).public if package else "", prereleases=True
        )
    except InvalidVersion:
        return False


def imitated(name: str, world: World) -> str:
    """The popular name that this one is a single slip of the finger away from; "" for none."""
    names = {name for row in world.popular for name in row.names}
    if name in names or len(name) < 5:
        return ""
    return next((other for other in sorted(names) if slip(name, other)), "")


def slip(name: str, other: str) -> bool:
    """One letter more, less, other, or two exchanged."""
    if abs(len(name) - len(other)) > 1:
        return False
    same = next((i for i, (a, b) in enumerate(zip(name, other, strict=False)) if a != b), -1)
    if same < 0:
        return name[-1:] not in "0123456789" and other[-1:] not in "0123456789"
    mine, theirs = name[same:], other[same:]
    exchanged = mine[:2] == theirs[:2][::-1] and mine[2:] == theirs[2:]
    return exchanged or mine[1:] == theirs[1:] or mine[1:] == theirs or mine == theirs[1:]


def scripts(places: Sequence[Path], pack: Path) -> Iterator[Said]:
    """What runs by itself, or would be run by others at install time; and programs."""
    for path in places:
        where = path.relative_to(pack).as_posix()
        if where in SCRIPTS:
            yield "node-install-script", Severity.INFO, f"{where}: {size(path)}"
        if path.name.lower().endswith(PROGRAMS):
            yield "node-programs", Severity.WARNING, f"{where}: {size(path)}"


def size(path: Path) -> str:
    return f"{path.lstat().st_size} bytes"


def code(places: Sequence[Path], pack: Path) -> Iterator[Said]:
    for path in places:
        if path.suffix != ".py" or path.is_symlink() or path.stat().st_size > LARGEST:
            continue
        where = path.relative_to(pack).as_posix()
        for id, line, what in calls(text(path)):
            yield id, Severity.WARNING, f"{where}:{line}: {what}"


def calls(source: str) -> Iterator[tuple[str, int, str]]:
    """(finding, line, what) of the calls in a source file that deserve a look."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    hidden = {name for node in ast.walk(module) for name in decoded_names(node)}
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        if called(node) in EXECUTES and any(is_decoded(arg, hidden) for arg in node.args):
            yield "node-decodes-and-executes", node.lineno, f"{called(node)}() of decoded data"
        if called(node) in STARTS and installs(node):
            yield "node-installs-packages", node.lineno, f"{called(node)}() of pip install"


def called(node: ast.AST) -> str:
    """The last name of what is called: "b64decode" of base64.b64decode(x)."""
    if not isinstance(node, ast.Call):
        return ""
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(args=[_, ast.Constant(value=str(name)), *_]):  # getattr(builtins, "exec")
            return name
    return ""


def decodes(node: ast.AST) -> bool:
    if called(node) == "loads" and isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and "marshal" in ast.dump(node.func.value)
    return called(node) in DECODERS


def decoded_names(node: ast.AST) -> Iterator[str]:
    """Variables that hold something decoded."""
    if isinstance(node, ast.Assign) and any(decodes(one) for one in ast.walk(node.value)):
        yield from (one.id for one in node.targets if isinstance(one, ast.Name))


def is_decoded(arg: ast.AST, hidden: set[str]) -> bool:
    return any(
        decodes(one) or (isinstance(one, ast.Name) and one.id in hidden) for one in ast.walk(arg)
    )


def installs(node: ast.Call) -> bool:
    words = " ".join(
        one.value
        for arg in node.args
        for one in ast.walk(arg)
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    ).split()
    return "install" in words and any(word in ("pip", "pip3", "uv", "-mpip") for word in words)


def among_wheels(names: Sequence[tuple[str, str]], world: World) -> tuple[Finding, ...]:
    """(name, version) of what a resolver would bring, as far as it is known to be malicious."""
    bad = [
        f"{name} {version}: {why}"
        for name, version in names
        if (why := known_bad(canonicalize_name(name), [version], world))
    ]
    finding = Finding(
        Severity.ERROR, tuple(bad), {"name": ", ".join(n for n, _ in names)}, id=KNOWN
    )
    return (replace(finding, values={"name": bad[0].partition(":")[0]}),) if bad else ()
