"""Downloads that break, lie, hang and lead away: resumed where that is sound, else nothing."""

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from doctor.download import download, read
from doctor.mirrors import Unreachable
from tests import internet
from tests.internet import Answer, Fault, Host, Visit

DATA = os.urandom(300_000)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "f").write_bytes(DATA)
    opened = []

    def start(**faults: Fault) -> Host:
        opened.append(Host(tmp_path / "www", **faults))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_its_progress_is_told(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    into = tmp_path / "new" / "f"
    assert download(f"{host().url}/f", into, progress=lambda *two: seen.append(two)) == into
    assert into.read_bytes() == DATA
    assert left(into.parent) == ["f"]
    assert seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(seen)


# What is wrong, with which reason it ends, and whether a .part may stay.
WRONG: dict[str, tuple[Fault, str]] = {
    "a missing file": (internet.status(404), "http-404"),
    "a broken server": (internet.status(500), "http-500"),
    "a refusal": (internet.status(403), "http-403"),
    "a reset": (internet.reset, "reset"),
    "silence": (internet.hang, "timeout"),
    "a stall": (internet.stall(1000), "timeout"),
    "drops without end": (internet.drip(0.05), "timeout"),
    "a cut": (internet.cut(1000), "truncated"),
    "a length too short": (internet.lie(-50), "hash"),
    "other bytes": (internet.bytes_instead(lambda data: data[::-1]), "hash"),
    "a page": (internet.page, "hash"),
    "away from http": (internet.redirect("ftp://x.example/f"), "scheme"),
    "a file of this machine": (internet.redirect("file:///etc/passwd"), "scheme"),
    "a circle": (internet.redirect("/f"), "redirect"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_goes_wrong_has_a_reason(host: Callable[..., Host], tmp_path: Path, what: str) -> None:
    fault, reason = WRONG[what]
    into, start = tmp_path / "new" / "f", time.monotonic()
    with pytest.raises(Unreachable) as gone:
        download(f"{host(all=fault).url}/f", into, sha256=SHA, timeout=2, stall=0.5)
    assert gone.value.reason == reason
    assert gone.value.why
    assert left(into.parent) in ([], ["f.part"])
    assert time.monotonic() - start < 3
    if (part := into.with_name("f.part")).exists():
        assert DATA.startswith(part.read_bytes())


def test_a_length_too_long_is_noticed(host: Callable[..., Host], tmp_path: Path) -> None:
    server = host(all=internet.lie(50))
    with pytest.raises(Unreachable) as gone:
        download(f"{server.url}/f", tmp_path / "f", timeout=5)
    assert gone.value.reason == "truncated"
    assert len(server.asked) <= 5
    assert not (tmp_path / "f").exists()
    download(f"{server.url}/f", tmp_path / "f", sha256=SHA)  # the hash knows better


def test_silence_is_not_asked_again(host: Callable[..., Host], tmp_path: Path) -> None:
    server = host(all=internet.hang)
    with pytest.raises(Unreachable):
        download(f"{server.url}/f", tmp_path / "f", timeout=5, stall=0.3)
    assert len(server.asked) == 1


def test_a_late_answer_writes_nothing(host: Callable[..., Host], tmp_path: Path) -> None:
    def late(visit: Visit, answer: Answer) -> None:
        time.sleep(0.6)
        internet.whole(visit, answer)

    with pytest.raises(Unreachable):
        download(f"{host(all=late).url}/f", tmp_path / "f", timeout=0.3, stall=5)
    time.sleep(0.6)
    assert left(tmp_path) == ["www"]


def test_a_slow_answer_writes_no_more_when_its_time_is_over(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    def slow(visit: Visit, answer: Answer) -> None:
        visit.start(answer, len(answer.body))
        for place in range(0, len(DATA), 40_000):
            visit.wfile.write(DATA[place : place + 40_000])
            visit.wfile.flush()
            time.sleep(0.15)

    with pytest.raises(Unreachable):
        download(f"{host(all=slow).url}/f", tmp_path / "f", timeout=0.4, stall=5)
    size = (tmp_path / "f.part").stat().st_size
    time.sleep(0.5)
    assert 0 < (tmp_path / "f.part").stat().st_size <= size + 16_384


def test_used_up_questions_are_named(host: Callable[..., Host], tmp_path: Path) -> None:
    used_up = Answer(403, {"X-RateLimit-Remaining": "0"})
    server = host(all=internet.instead(lambda answer: used_up))
    with pytest.raises(Unreachable, match="per hour"):
        read(f"{server.url}/f")


def test_nobody_there_and_no_such_name(tmp_path: Path) -> None:
    for url, reason in ((internet.nobody(), "refused"), ("http://no.invalid", "dns")):
        with pytest.raises(Unreachable) as gone:
            download(f"{url}/f", tmp_path / "f", timeout=5, stall=2)
        assert gone.value.reason == reason
    assert left(tmp_path) == []


def test_offline_asks_nobody(host: Callable[..., Host], tmp_path: Path) -> None:
    server = host()
    with pytest.raises(Unreachable) as gone:
        download(f"{server.url}/f", tmp_path / "f", offline=True)
    assert gone.value.reason == "offline"
    assert server.asked == []


@pytest.mark.parametrize("hard", [False, True])
def test_a_broken_transfer_continues_where_it_broke(
    host: Callable[..., Host], tmp_path: Path, hard: bool
) -> None:
    server = host(all=internet.first(2, internet.cut(100_000, hard)))
    download(f"{server.url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    ranges = [headers.get("range") for headers in server.headers]
    assert ranges[0] is None
    assert all(asked and asked != "bytes=0-" for asked in ranges[1:])
    assert all("if-range" in headers for headers in server.headers[1:])


def test_a_later_call_continues_where_the_hash_is_known(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    (tmp_path / "f.part").write_bytes(DATA[:200_000])
    server = host()
    download(f"{server.url}/f", tmp_path / "f", sha256=SHA)
    assert server.headers[0]["range"] == "bytes=200000-"
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_part_that_is_whole_is_not_asked_for(host: Callable[..., Host], tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(DATA)
    server = host()
    download(f"{server.url}/f", tmp_path / "f", sha256=SHA)
    assert server.asked == []


@pytest.mark.parametrize("old", [b"x" * 1000, b"x" * 400_000])
def test_a_part_of_something_else_is_thrown_away(
    host: Callable[..., Host], tmp_path: Path, old: bytes
) -> None:
    (tmp_path / "f.part").write_bytes(old)
    download(f"{host().url}/f", tmp_path / "f", sha256=SHA)
    assert (tmp_path / "f").read_bytes() == DATA


def test_without_a_hash_an_old_part_is_not_trusted(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    (tmp_path / "f.part").write_bytes(b"x" * 1000)
    download(f"{host().url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_file_that_changed_between_two_tries_is_taken_anew(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    def change(visit: Visit, answer: Answer) -> None:
        internet.cut(100_000)(visit, answer)
        (tmp_path / "www" / "f").write_bytes(DATA[::-1])

    download(f"{host(all=internet.first(1, change)).url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA[::-1]


def test_a_server_that_ignores_ranges_starts_anew(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    def ignore(visit: Visit, answer: Answer) -> None:
        internet.whole(visit, Answer(200, {}, DATA))

    (tmp_path / "f.part").write_bytes(DATA[:1000])
    download(f"{host(all=ignore).url}/f", tmp_path / "f", sha256=SHA)
    assert (tmp_path / "f").read_bytes() == DATA


@pytest.mark.parametrize("sha256", [SHA, ""], ids=["known", "unknown"])
def test_another_range_than_asked_for_is_not_appended(
    host: Callable[..., Host], tmp_path: Path, sha256: str
) -> None:
    def shifted(visit: Visit, answer: Answer) -> None:
        told = {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"}
        partial = "range" in {name.lower() for name in visit.headers}
        internet.whole(visit, Answer(206 if partial else 200, told if partial else {}, DATA))

    server = host(all=internet.first(1, internet.cut(100_000), shifted))
    download(f"{server.url}/f", tmp_path / "f", sha256=sha256)
    assert (tmp_path / "f").read_bytes() == DATA


def test_more_than_the_limit_is_not_taken(host: Callable[..., Host], tmp_path: Path) -> None:
    def untold(visit: Visit, answer: Answer) -> None:
        visit.start(answer, None)
        visit.wfile.write(answer.body)

    for fault in (untold, internet.stall(0)):  # nothing needs to come where the length tells it
        with pytest.raises(Unreachable) as gone:
            download(f"{host(all=fault).url}/f", tmp_path / "f", limit=1000, stall=1)
        assert gone.value.reason == "size"
        assert left(tmp_path) == ["www"]


def test_redirects_are_followed(host: Callable[..., Host], tmp_path: Path) -> None:
    server = host(all=internet.redirect(host().url))
    download(f"{server.url}/f", tmp_path / "f", sha256=SHA)


def test_compressed_answers_are_kept_as_they_are(host: Callable[..., Host], tmp_path: Path) -> None:
    def labeled(visit: Visit, answer: Answer) -> None:
        internet.whole(visit, Answer(200, {"Content-Encoding": "gzip"}, DATA))

    server = host(all=labeled)
    download(f"{server.url}/f", tmp_path / "f", sha256=SHA)
    assert server.headers[0]["accept-encoding"] == "identity"


def test_files_and_paths_are_copied(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(DATA)
    for url in (str(tmp_path / "a b"), (tmp_path / "a b").as_uri()):
        download(url, tmp_path / "f", sha256=SHA, offline=True)
        assert (tmp_path / "f").read_bytes() == DATA
    with pytest.raises(Unreachable):
        download(str(tmp_path / "none"), tmp_path / "g")
    with pytest.raises(Unreachable) as gone:
        download(str(tmp_path / "a b"), tmp_path / "g", sha256="0" * 64)
    assert gone.value.reason == "hash"
    assert left(tmp_path) == ["a b", "f"]


def test_an_existing_file_stays_until_the_new_one_is_whole(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("old")
    with pytest.raises(Unreachable):
        download(f"{host(all=internet.page).url}/f", tmp_path / "f", sha256=SHA)
    assert (tmp_path / "f").read_text() == "old"


def test_a_proxy_that_is_not_there_is_named(
    host: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", internet.nobody().replace("//", "//me:secret@"))
    with pytest.raises(Unreachable) as gone:
        download(f"{host().url}/f", tmp_path / "f", timeout=5)
    assert gone.value.reason == "proxy"
    assert "HTTP_PROXY" in gone.value.why
    assert "secret" not in str(gone.value)


def test_a_proxy_is_used(
    host: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = host()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    download("http://no.invalid/f", tmp_path / "f", sha256=SHA)
    assert proxy.asked == ["file"]


def test_passwords_of_netrc_are_not_sent(
    host: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server = host()
    download(f"{server.url}/f", tmp_path / "f")
    assert "authorization" not in server.headers[0]


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate that nobody signed, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not there to make a certificate")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(made, capture_output=True, check=True)
    return cert, key


def secure(server: Host, certificate: tuple[Path, Path]) -> Host:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
    server.scheme = "https"
    return server


def test_a_certificate_of_nobody_is_refused_and_one_of_the_users_bundle_taken(
    host: Callable[..., Host],
    tmp_path: Path,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = secure(host(), certificate)
    with pytest.raises(Unreachable) as gone:
        download(f"{server.url}/f", tmp_path / "f", timeout=5)
    assert gone.value.reason == "tls"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    download(f"{server.url}/f", tmp_path / "f", sha256=SHA, timeout=5)


def test_tls_is_not_given_up_by_a_redirect(
    host: Callable[..., Host],
    tmp_path: Path,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = "http://x.example/f"
    server = secure(host(all=internet.redirect(plain)), certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    with pytest.raises(Unreachable) as gone:
        download(f"{server.url}/f", tmp_path / "f", timeout=5)
    assert gone.value.reason == "redirect"


def test_a_small_answer_is_bounded(host: Callable[..., Host]) -> None:
    assert read(f"{host().url}/f") == DATA
    with pytest.raises(Unreachable) as gone:
        read(f"{host().url}/f", limit=100)
    assert gone.value.reason == "size"
    with pytest.raises(Unreachable) as gone:
        read(f"{host(all=internet.drip(0.05)).url}/f", timeout=0.5)
    assert gone.value.reason == "timeout"


def test_a_port_that_speaks_something_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/f"
        with pytest.raises(Unreachable) as gone:
            download(url, tmp_path / "f", timeout=1, stall=0.4)
    assert gone.value.reason == "timeout"
