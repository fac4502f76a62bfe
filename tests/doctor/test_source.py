"""What people type and paste: taken for what they mean, or refused with advice."""

from pathlib import Path

import pytest

from doctor.source import BadSource, Source
from doctor.words import sentence

SHA = "0123456789abcdef0123456789abcdef01234567"
HOME = "https://github.com/o/pack"


@pytest.mark.parametrize(
    ("text", "url", "ref"),
    [
        (HOME, HOME, ""),
        (f" {HOME}/ ", HOME, ""),
        (f"{HOME}.git", HOME, ""),
        (f"git+{HOME}.git@v1.2", HOME, "v1.2"),
        (f"{HOME}@{SHA}", HOME, SHA),
        (f"{HOME}@feature/x", HOME, "feature/x"),
        ("HTTP://www.GitHub.com/o/pack?tab=readme#usage", HOME, ""),
        (f"{HOME}/tree/dev", HOME, "dev"),
        (f"{HOME}/tree/feature/x/", HOME, "feature/x"),
        (f"{HOME}/commit/{SHA}", HOME, SHA),
        (f"{HOME}/archive/refs/heads/main.zip", HOME, "main"),
        (f"{HOME}/archive/{SHA}.tar.gz", HOME, SHA),
        (f"{HOME}/zipball/refs/tags/v1", HOME, "v1"),
        (f"{HOME}/issues", HOME, ""),
        ("https://git.example:8443/a/b/c.git", "https://git.example:8443/a/b/c.git", ""),
        ("git@github.com:o/pack.git", HOME, ""),
        ("git@GitHub.com:o/pack@v1", HOME, "v1"),
        ("ssh://git@github.com/o/pack", HOME, ""),
        ("ssh://github.com/o/pack", HOME, ""),
        ("ssh://git@git.example:2222/a/b.git", "https://git.example/a/b.git", ""),
        ("git@git.example:a/b/c.git", "https://git.example/a/b/c.git", ""),
        ("https://me:secret@github.com/o/pack", "https://me:secret@github.com/o/pack", ""),
    ],
)
def test_repositories(text: str, url: str, ref: str) -> None:
    assert Source.parse(text) == Source("repository", url, ref)


def test_archives_by_address() -> None:
    url = "https://x.example/a/pack-1.zip"
    assert Source.parse(url) == Source("archive", url)
    assert Source.parse(f"{url}#sha256={'AB' * 32}") == Source("archive", url, sha256="ab" * 32)
    assert Source.parse(url).name == "pack-1"


def test_what_lies_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "pack.tar.gz").touch()
    (tmp_path / "@folder with space").mkdir()
    assert Source.parse(str(tmp_path / "pack.tar.gz")).kind == "archive"
    assert Source.parse((tmp_path / "pack.tar.gz").as_uri()).kind == "archive"
    assert Source.parse(str(tmp_path / "@folder with space")).kind == "folder"
    assert Source.parse((tmp_path / "@folder with space").as_uri()).kind == "folder"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "o/pack",
        "-uexec",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c touch% /tmp/x",
        "file::/etc",
        "git+ext::sh",
        "fd::17",
        "git@github.com:o/pack=x.git",
        "git@github.com:-oProxyCommand=touch",
        "git@-oProxyCommand=touch:o/pack",
        "git@github.com:../../etc",
        "other@x.example:o/pack",
        "ssh://-oProxyCommand=x/o/pack",
        "git://github.com/o/pack",
        "ftp://x.example/a.zip",
        "https://",
        "https:///o/pack",
        "https://github.com",
        "https://github.com/../..",
        "https://x.example/a b",
        "https://x.example/a\\b",
        "https://x.example/o/p\nack",
        "https://x.example/o/p\u202eack",
        "https://x.example/o/p=q",
        "https://x.example/o/$(touch x)",
        f"{HOME}@--upload-pack=x",
        f"{HOME}@a..b",
        f"{HOME}@a@{{1}}",
        f"{HOME}@a b",
        f"{HOME}@refs/heads/x.lock",
        "/no/such/folder",
    ],
)
def test_everything_else_is_refused_with_advice(text: str) -> None:
    with pytest.raises(BadSource) as refused:
        Source.parse(text)
    english, chinese = (sentence(refused.value, lang) for lang in ("en", "zh"))
    assert english == str(refused.value) != chinese
    assert english.count(".") >= 1


def test_a_file_that_looks_like_an_option_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "-x.zip").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadSource):
        Source.parse("-x.zip")
    assert Source.parse("./-x.zip").kind == "archive"


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(BadSource) as refused:
        Source.parse("https://me:secret@x.example/a b")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("last", ["..", ".git", "-x", "a;b", "%2e%2e", "é"])
def test_a_name_is_never_a_path(last: str) -> None:
    name = Source("repository", f"https://x.example/o/{last}").name
    assert name not in ("", ".", "..")
    assert not name.startswith(("-", "."))
    assert all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in name)
