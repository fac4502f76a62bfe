"""Suspicion: what is told of a pack before it goes live, with file and line; and what is not."""

from dataclasses import replace

import pytest

from doctor.facts import Facts, Package
from doctor.manifest import world
from doctor.suspicion import among_wheels, found, imitated, slip
from tests.doctor.test_nodes import host, install, live, publish, release
from tests.doctor.test_verbs import comfyui, online, shop
from tests.doctor.wheels import wheel

__all__ = ["comfyui", "host", "online", "shop"]
FACTS = Facts(packages={"torch": Package("2.13.0+cpu")}, world=world())
B64 = "import base64\nexec(base64.b64decode('cHJpbnQoMSk='))\n"
NAMED = "import zlib\n\n\nhidden = zlib.decompress(b'x')\ncode = compile(hidden, 'x', 'exec')\n"

TOLD = {  # files -> (finding, severity, where)
    "base64": ({"a.py": B64}, ("node-decodes-and-executes", "warning", "a.py:2:")),
    "by a name": ({"a.py": NAMED}, ("node-decodes-and-executes", "warning", "a.py:5:")),
    "marshal": (
        {"b/a.py": "import marshal\nexec(marshal.loads(b'x'))"},
        ("node-decodes-and-executes", "warning", "b/a.py:2:"),
    ),
    "by getattr": (
        {"a.py": "getattr(__builtins__, 'exec')(bytes.fromhex('00'))"},
        ("node-decodes-and-executes", "warning", "a.py:1:"),
    ),
    "from the network": (
        {"a.py": "exec(urllib.request.urlopen('https://x.example').read())"},
        ("node-decodes-and-executes", "warning", "a.py:1:"),
    ),
    "pip by subprocess": (
        {"a.py": "subprocess.check_call([sys.executable, '-m', 'pip', 'install', 'x'])"},
        ("node-installs-packages", "warning", "a.py:1:"),
    ),
    "pip by system": (
        {"a.py": "os.system('pip install x')"},
        ("node-installs-packages", "warning", "a.py:1:"),
    ),
    "a slip": (
        {"requirements.txt": "numpy\n\nrequestss\n"},
        ("node-typosquat", "warning", "requirements.txt:3: requestss (one letter off requests)"),
    ),
    "another torch": (
        {"requirements.txt": "torch==2.1.0"},
        ("node-wants-another-torch", "warning", "requirements.txt:1: torch==2.1.0"),
    ),
    "an executable by address": (
        {"requirements.txt": "tool @ https://x.example/tool.exe"},
        ("node-direct-url", "warning", "requirements.txt:1:"),
    ),
    "plain http": (
        {"requirements.txt": "tool @ http://x.example/tool.whl"},
        ("node-direct-url", "warning", "requirements.txt:1:"),
    ),
    "an index": (
        {"requirements.txt": "--extra-index-url https://x.example/simple"},
        ("node-direct-url", "warning", "requirements.txt:1:"),
    ),
    "git": (
        {"requirements.txt": "git+https://github.com/o/r"},
        ("node-direct-url", "info", "requirements.txt:1:"),
    ),
    "a script": ({"install.py": ""}, ("node-install-script", "info", "install.py:")),
    "a program": ({"bin/Tool.EXE": ""}, ("node-programs", "warning", "bin/Tool.EXE:")),
    "a miner": ({"bin/lolMiner.bin": ""}, ("node-known-malware", "error", "bin/lolMiner.bin:")),
    "a bad version": (
        {"requirements.txt": "ultralytics==8.3.41"},
        ("node-known-malware", "error", "requirements.txt:1:"),
    ),
}


def pack(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", TOLD)
def test_what_is_told(tmp_path, name):
    files, (id, severity, where) = TOLD[name]
    (finding,) = found(pack(tmp_path, files), "Pack", "https://github.com/o/Pack", FACTS)
    assert (finding.id, finding.severity.word) == (id, severity)
    assert finding.because[0].startswith(where)


QUIET = {
    "base64 of a picture": {"a.py": "import base64\nimage = base64.b64decode(text)\n"},
    "eval of a formula": {"a.py": "value = eval(formula, {}, {})\nmodel.eval()\n"},
    "another subprocess": {"a.py": "subprocess.run(['ffmpeg', '-i', 'install', 'x'])\n"},
    "words about pip": {"a.py": "print('please run pip install x')\n"},
    "plain requirements": {"requirements.txt": "numpy>=1.25\ntorch\ntorch>=2\nopencv-python # x\n"},
    "no Python": {"a.py": "this is (no Python", "b.py": "\0", "c.py": "(" * 5000},
    "a safe version": {"requirements.txt": "ultralytics>=8.3.43\nlitellm==1.83.0"},
}


@pytest.mark.parametrize("name", QUIET)
def test_what_is_not_told(tmp_path, name):
    assert found(pack(tmp_path, QUIET[name]), "Pack", "https://github.com/o/Pack", FACTS) == ()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("ComfyUI_LLMVISION", ""),
        ("x", "https://github.com/EliseiBorisov/ComfyUI-Upscaler-4K.git"),
        ("x", "https://comfyregistry.org/x.zip"),
    ],
)
def test_known_names_and_hosts(tmp_path, name, url):
    (finding,) = found(tmp_path, name, url, FACTS)
    assert (finding.id, finding.severity.word) == ("node-known-malware", "error")


def test_slips():
    assert all(
        slip("requests", other) for other in ("request", "requestss", "reqeusts", "requ3sts")
    )
    assert not any(slip("requests", other) for other in ("reqests2", "urllib3", "quests"))
    assert imitated("numpy", world()) == imitated("sam2", world()) == ""
    assert imitated("nunpy", world()) == "numpy"


def test_unknown_packages_are_no_obstacle(tmp_path):
    facts = replace(FACTS, packages=Facts().packages)
    (finding,) = found(pack(tmp_path, {"requirements.txt": "torch==2.1"}), "P", "", facts)
    assert "not installed" in finding.because[0]


def test_many_places_are_counted(tmp_path):
    files = {f"a{number}.py": B64 for number in range(20)}
    (finding,) = found(pack(tmp_path, files), "P", "", FACTS)
    assert len(finding.because) == 9
    assert finding.because[-1] == "and 12 more"


def test_wheels_that_are_known():
    assert among_wheels([("litellm", "1.83.0")], world()) == ()
    (finding,) = among_wheels([("numpy", "2.0"), ("litellm", "1.82.8")], world())
    assert (finding.values["name"], finding.because[0][:14]) == ("litellm 1.82.8", "litellm 1.82.8")


# The whole command


def test_only_what_is_known_is_blocked(comfyui, host, online):
    publish(host.root, "Odd", {"a.py": B64, "requirements.txt": "requestss\ntorch==1.0\nbeta\n"})
    publish(host.root, "Bad", {"bin/lolMiner.exe": ""})
    code, said = install(comfyui, f"{host.url}/o/Odd", f"{host.url}/o/Bad", **online)
    assert (code, live(comfyui)) == (1, [])
    assert "miner" in said["failed"][f"{host.url}/o/Bad"]
    assert "requestss" in said["failed"]["Odd"], "nobody has such a package here"
    (host.root / "work/Odd/requirements.txt").write_text("torch==1.0\n")
    publish(host.root, "Odd", {})
    code, said = install(comfyui, f"{host.url}/o/Odd", **online)
    assert (code, live(comfyui)) == (0, ["Odd"])
    told = {finding["id"] for finding in said["packs"][0]["findings"]}
    assert told == {"node-decodes-and-executes", "node-wants-another-torch"}
    assert install(comfyui, f"{host.url}/o/Bad", "--allow-malware", **online)[0] == 0


def test_a_dependency_that_is_known_to_steal_is_blocked(comfyui, host, online, tmp_path):
    wheel(tmp_path / "shelf", "litellm", "1.82.8")
    publish(host.root, "Pack", {"requirements.txt": "litellm\n"})
    more = online | {"PIP_FIND_LINKS": str(tmp_path / "shelf")}
    code, said = install(comfyui, f"{host.url}/o/Pack", **more)
    assert (code, live(comfyui)) == (1, [])
    assert "steals credentials" in said["failed"]["Pack"]


def test_a_registry_archive_is_looked_over_too(comfyui, host, online):
    release(host, "reg", "1.0", {"lolMiner": ""})
    code, said = install(comfyui, "reg", COMFY_REGISTRY=host.url, **online)
    assert (code, live(comfyui)) == (1, [])
    assert "miner" in said["failed"]["reg"]
