"""What is within reach: asked all at once, within a fixed time, of hosts that misbehave."""

import json
import time
from dataclasses import replace

import pytest

from doctor import network
from doctor.check import CHECKS
from doctor.diagnose import diagnose
from doctor.facts import Facts, build, plain
from doctor.manifest import Place, World, world
from tests import internet
from tests.doctor.test_nodes import doctor, host
from tests.doctor.test_verbs import comfyui, online, shop

__all__ = ["comfyui", "host", "online", "shop"]
ABOUT = {"why": "a test", "source": ("here",), "checked": "now"}


def places(**urls: str) -> World:
    return World(places=tuple(Place(name=n, url=u, **ABOUT) for n, u in urls.items()))


def asked(host, environ=None, **urls):
    index = {"PIP_INDEX_URL": f"{host.url}/simple"}
    return network.look(places(**urls), {**index, **(environ or {})})


def findings(found):
    diagnosis = diagnose(replace(Facts(), network=found, world=world()))
    return [finding.id for finding in diagnosis.findings]


def test_all_is_well(host):
    (host.root / "simple").write_text("x")
    found = asked(host, github=f"{host.url}/simple", models=f"{host.url}/not-there")
    assert [(one.name, one.reason) for one in found.asked] == [
        ("index", ""),
        ("github", ""),
        ("models", ""),
    ]
    assert found.asked[0].by == "PIP_INDEX_URL"
    assert findings(found) == []


@pytest.mark.parametrize(
    ("fault", "reason", "id"),
    [
        (internet.reset, "reset", "github-unreachable"),
        (internet.status(500), "http-500", "github-unreachable"),
        (internet.status(429), "http-429", "network-rate-limited"),
        (internet.status(403), "http-403", "network-rate-limited"),
        (internet.status(407), "proxy", "proxy-wrong"),
    ],
)
def test_one_host_alone(host, fault, reason, id):
    (host.root / "simple").write_text("x")
    other = internet.Host(host.root, all=fault)
    try:
        found = asked(host, github=f"{other.url}/x")
    finally:
        other.close()
    assert {one.name: one.reason for one in found.asked} == {"index": "", "github": reason}
    assert findings(found) == [id]


def test_a_line_that_is_slow_and_one_that_is_not(host):
    """By how much comes; a page of a few bytes says nothing of a line."""
    (host.root / "simple").write_text("x" * 400_000)
    (host.root / "small").write_text("x")
    other = internet.Host(host.root, all=internet.trickle(30_000))
    found = asked(host, raw=f"{other.url}/simple", models=f"{host.url}/small")
    other.close()
    rates = {one.name: one.rate for one in found.asked}
    assert 10_000 < rates["raw"] < 60_000
    assert rates["index"] > 200_000
    assert rates["models"] == 0
    assert findings(found) == ["network-slow"]


def test_silent_hosts_take_no_longer_together_than_one(host, monkeypatch):
    monkeypatch.setattr(network, "EACH", 0.7)
    host.faults["all"] = internet.hang
    start = time.monotonic()
    names = ("torch-index", "github", "archive", "raw", "registry", "models")
    found = asked(host, **{name: f"{host.url}/{name}" for name in names})
    assert time.monotonic() - start < 3
    assert {one.reason for one in found.asked} == {"timeout"}
    assert findings(found) == ["network-down"]


def test_what_is_not_ready_in_time_is_left_out_and_not_bad(host, monkeypatch):
    monkeypatch.setattr(network, "ALL", 0.3)
    host.faults["all"] = internet.hang
    found = asked(host)
    assert (found.asked, findings(found)) == ((), [])


def test_a_proxy_that_is_gone_and_the_variable_that_names_it(host, monkeypatch):
    gone = internet.nobody().replace("http://", "http://me:secret@")
    monkeypatch.setenv("http_proxy", gone)
    monkeypatch.setenv("no_proxy", "")
    found = asked(host, {"http_proxy": gone}, models="http://huggingface.example/")
    assert {one.reason for one in found.asked} == {"proxy"}
    assert "secret" not in json.dumps(plain(found))
    assert list(found.proxies) == ["http_proxy"]
    assert findings(found) == ["proxy-wrong"]


def test_names_that_nobody_finds(host):
    found = asked(host, {"PIP_INDEX_URL": "http://nowhere.invalid/simple"})
    assert [one.reason for one in found.asked] == ["dns"]
    assert findings(replace(found, way_out=True)) == ["dns-broken"]
    assert findings(replace(found, way_out=False)) == ["network-down"]


def test_variables_name_other_places(host):
    (host.root / "api").write_text("x")
    place = Place(name="models", url="https://x.invalid/", variables=("HF_ENDPOINT",), **ABOUT)
    found = network.look(
        World(places=(place,)), {"HF_ENDPOINT": f"{host.url}/api/", "PIP_INDEX_URL": host.url}
    )
    assert (found.asked[1].by, found.asked[1].reason) == ("HF_ENDPOINT", "")


def test_facts_of_the_network_survive_json(host):
    facts = Facts(network=asked(host))
    assert build(Facts, json.loads(json.dumps(plain(facts)))) == facts


def test_unasked_and_offline_say_nothing_bad(comfyui, monkeypatch):
    for more in ((), ("--network", "--offline")):
        ids = [id for id, run in CHECKS.items() if run.__module__.endswith(".network")]
        code, out, _ = doctor("check", "--comfyui", comfyui, "--json", "--only", *ids, *more)
        said = json.loads(out)
        assert (code, said["findings"]) == (0, [])
        assert all(one["skipped"] for one in said["not_judged"])


def test_the_command_asks_when_it_is_asked(comfyui, host, monkeypatch):
    (host.root / "simple").write_text("x")
    monkeypatch.setattr("doctor.verbs.check.world", lambda: places(models=internet.nobody()))
    words = ("check", "--comfyui", comfyui, "--level", "1", "--network", "--json")
    _, out, _ = doctor(*words, PIP_INDEX_URL=f"{host.url}/simple")
    ids = [one["id"] for one in json.loads(out)["findings"]]
    assert "huggingface-unreachable" in ids
    assert "network-down" not in ids
