import json

import pytest

from doctor.redact import redact
from tests.doctor.command import doctor
from tests.doctor.test_machines import MACHINES


@pytest.mark.parametrize(
    ("text", "kept", "what"),
    [
        ("/home/alice/ComfyUI/main.py", "/home/USER/ComfyUI/main.py", "home"),
        (r"C:\Users\Alice B\ComfyUI", r"C:\Users\USER\ComfyUI", "home"),
        ("/Users/alice/venv/bin/python", "/Users/USER/venv/bin/python", "home"),
        ("HF hf_abcdefghijklmnopqrst end", "HF TOKEN end", "token"),
        ("https://x.example/a?token=abcdef", "https://x.example/a?token=TOKEN", "token"),
        ("https://bob:pw@proxy.example:3128", "https://LOGIN@proxy.example:3128", "login"),
        ("connect to 192.168.7.20 failed", "connect to ADDRESS failed", "address"),
        ("bob@firm.example wrote", "MAIL wrote", "mail"),
        ("/media/alice/models", "/media/USER/models", "home"),
        (r"c:\users\alice\comfyui", r"c:\users\USER\comfyui", "home"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer TOKEN", "token"),
        ('"api_key": "0123456789abcdef"', '"api_key": "TOKEN"', "token"),
        ("--hf-token=abcdefgh", "--hf-token=TOKEN", "token"),
        ("x eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc y", "x TOKEN y", "token"),
        ("proxy.firm.corp refused", "HOST refused", "host"),
        ("owner S-1-5-21-1-2-3-1001", "owner HOST", "host"),
        ("greetings from alice-pc", "greetings from NAME", "name"),
    ],
)
def test_what_is_taken_out_is_counted(text, kept, what):
    done = redact({"x": text}, ("alice", "alice-pc"))
    assert done.data == {"x": kept}
    assert done.counts[what] == 1


@pytest.mark.parametrize(
    "text",
    [
        "token: none",
        "secret sauce",
        "files.localhost",
        "torch 2.9.1+cu130",
        "127.0.0.1",
        "0.0.0.0",
        "560.94",
        "/opt/ComfyUI",
        "sk-learn",
    ],
)
def test_what_a_check_needs_stays(text):
    assert redact({"x": text}, ("root", "alice")).data == {"x": text}


def test_who_has_a_home_folder_has_a_name_elsewhere_too():
    done = redact({"a": "/home/carol/ComfyUI", "b": [r"DESKTOP\carol", "/home/ubuntu/x, ubuntu"]})
    assert done.data == {
        "a": "/home/USER/ComfyUI",
        "b": [r"DESKTOP\NAME", "/home/USER/x, ubuntu"],
    }
    assert done.counts["name"] == 1


def test_variables_lose_hosts_and_secrets():
    facts = {
        "environment": {
            "https_proxy": "http://10.1.2.3:3128",
            "PIP_INDEX_URL": "https://pip.firm.example/simple",
            "HF_TOKEN": "x",
            "UV_INDEX": "https://download.pytorch.org/whl/cu130",
        }
    }
    kept = redact(facts).data["environment"]
    assert kept["PIP_INDEX_URL"] == "https://HOST/simple"
    assert kept["HF_TOKEN"] == "TOKEN"
    assert kept["UV_INDEX"] == "https://download.pytorch.org/whl/cu130"
    assert "10.1.2.3" not in kept["https_proxy"]


def test_versions_of_four_numbers_are_no_addresses():
    facts = {"packages": {"opencv-python": {"version": "4.11.0.86"}}, "version": "10.0.26100.1"}
    assert redact(facts).data == facts


@pytest.mark.parametrize("name", ["two-opencvs-that-work", "cuda-visible-devices-all"])
def test_redacted_facts_say_the_same(name, tmp_path):
    path = tmp_path / "facts.json"
    whole = json.loads((MACHINES / "healthy-cuda.json").read_text(encoding="utf-8"))
    own = json.loads((MACHINES / f"{name}.json").read_text(encoding="utf-8"))
    whole["facts"] |= {k: v for k, v in own["facts"].items() if k not in ("packages",)}
    path.write_text(json.dumps(redact(whole, ("srv",)).data), encoding="utf-8")
    code, out, _ = doctor("check", "--facts", path, "--json")
    assert "error/1" not in out, out
    assert code in (0, 1)


@pytest.mark.parametrize(
    "key", ["HF_TOKEN", "accessToken", "tokenValue", "OPENAI_API_KEY", "apikey"]
)
def test_what_a_key_calls_a_secret_is_taken_out(key):
    assert redact({key: "0.22.1"}).data == {key: "TOKEN"}


@pytest.mark.parametrize(
    "key", ["tokenizers", "TOKENIZERS_PARALLELISM", "secretstorage", "keyring"]
)
def test_a_package_is_no_secret_by_its_name(key):
    assert redact({key: "0.22.1"}).data == {key: "0.22.1"}
