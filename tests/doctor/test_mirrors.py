"""Routes: whose address is asked, in which order, and who never learns of it."""

from typing import Any

import pytest

from doctor.manifest import Mirror, World, world
from doctor.mirrors import Route, api, archives, private, redacted, routes, secret

PACK = "https://github.com/o/pack"
REASON: Any = {"why": "a test", "source": ("here",), "checked": "2026-01-01"}


def mirror(name: str, at: str, kind: str, of: str = "https://github.com/") -> Mirror:
    return Mirror(name=name, of=of, at=at, kind=kind, region="", **REASON)


WORLD = World(
    mirrors=(
        mirror("prefix", "https://a.example/{url}", "clone"),
        mirror("other host", "https://b.example/{path}", "clone"),
        mirror("archives", "https://a.example/{url}", "archive"),
        mirror("loads", "https://c.example/{path}", "archive", "https://codeload.github.com/"),
        mirror("raw", "https://a.example/{url}", "raw", "https://raw.githubusercontent.com/"),
    )
)


def urls(found: object) -> list[str]:
    return [route.url for route in found]  # type: ignore[attr-defined]


def test_the_origin_comes_before_the_mirrors_of_its_kind() -> None:
    assert routes(PACK, "clone", WORLD, {}) == (
        Route("origin", PACK, "clone"),
        Route("prefix", "https://a.example/https://github.com/o/pack", "clone"),
        Route("other host", "https://b.example/o/pack", "clone"),
    )


def test_the_users_own_comes_first() -> None:
    environ = {"GITHUB_ENDPOINT": "https://mine.example/https://github.com/"}
    found = routes(PACK, "clone", WORLD, environ)
    first = Route("GITHUB_ENDPOINT", "https://mine.example/https://github.com/o/pack", "clone")
    assert found[0] == first
    assert urls(found[1:]) == urls(routes(PACK, "clone", WORLD, {}))


def test_an_endpoint_that_is_github_itself_is_no_route_of_its_own() -> None:
    assert routes(PACK, "clone", WORLD, {"GITHUB_ENDPOINT": "https://github.com"})[0].own


def test_raw_files_have_their_own_mirrors_and_no_endpoint() -> None:
    url = "https://raw.githubusercontent.com/o/pack/main/x.json"
    found = routes(url, "raw", WORLD, {"GITHUB_ENDPOINT": "https://mine.example"})
    assert urls(found) == [url, f"https://a.example/{url}"]


def test_a_host_without_mirrors_has_one_route() -> None:
    assert urls(routes("https://gitee.example/o/p", "clone", WORLD, {})) == [
        "https://gitee.example/o/p"
    ]


def test_an_address_with_a_password_is_shown_to_nobody_else() -> None:
    url = "https://me:token@github.com/o/pack"
    everybody = World(mirrors=(mirror("all", "https://a.example/{url}", "clone", "https://"),))
    assert secret(url)
    assert urls(routes(url, "clone", everybody, {"GITHUB_ENDPOINT": "https://x"})) == [url]
    assert redacted(f"at {url} and") == "at https://github.com/o/pack and"
    assert "token" not in str(Route("origin", url, "clone"))


def test_archives_of_github_are_asked_at_both_its_hosts_and_at_mirrors_of_both() -> None:
    sha = "a" * 40
    assert urls(archives(PACK, sha, WORLD, {})) == [
        f"https://codeload.github.com/o/pack/zip/{sha}",
        f"https://c.example/o/pack/zip/{sha}",
        f"https://github.com/o/pack/archive/{sha}.zip",
        f"https://a.example/https://github.com/o/pack/archive/{sha}.zip",
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (PACK, "https://api.github.com/repos/o/pack"),
        ("https://git.example:8443/o/pack", "https://git.example:8443/api/v3/repos/o/pack"),
    ],
)
def test_the_api_of_github_and_of_its_enterprise_edition(url: str, expected: str) -> None:
    assert api(url) == expected


@pytest.mark.parametrize(
    ("url", "answer"),
    [("https://x.example/", True), ("http://127.0.0.1:9/", True), ("http://x.example/", False)],
)
def test_plain_http_is_private_on_this_machine_only(url: str, answer: bool) -> None:
    assert private(url) is answer


def test_every_mirror_of_the_manifest_makes_a_clean_address() -> None:
    starts = {"clone": PACK, "archive": f"{PACK}/archive/{'a' * 40}.zip"}
    starts["raw"] = "https://raw.githubusercontent.com/o/pack/main/x.json"
    for kind, url in starts.items():
        found = routes(url, kind, world(), {})
        assert len(found) > 1, kind
        for route in found:
            assert route.url.startswith("https://"), route
            assert route.url.count("{") == 0, route
            assert "=" not in route.url, route
