"""Redirect URIs: what may be registered, and what a request's URI must equal."""

import pytest

from authserver.oauth.redirect_uris import (
    InvalidRedirect,
    authorization_response_url,
    check_registrable,
    display_target,
    is_local_application,
    matches,
)

WEB = "https://client.example.com/cb"
V4, V6, NAME = "http://127.0.0.1/cb", "http://[::1]/cb", "http://localhost/cb"


@pytest.mark.parametrize(
    "uri",
    [
        WEB,
        "https://client.example.com",
        "https://client.example.com:8443/cb?tenant=1",
        "https://claude.ai/api/mcp/auth_callback",
        V4,
        V6,
        NAME,
        "http://127.0.0.1:6276/oauth/callback",
        "http://localhost:6274/oauth/callback",
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "com.example.app:/oauth",
        "https://client.example.com/" + "a" * 2021,
    ],
)
def test_redirect_uris_of_real_clients_can_be_registered(uri: str) -> None:
    check_registrable(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "javascript:alert(1)",
        "javascript://client.example.com/%0aalert(1)",
        "javascript:/alert(1)",
        "data:text/html,hello",
        "data:/text",
        "file:///etc/passwd",
        "vbscript:/x",
        "blob:/x",
        "about:/blank",
        "view-source:/x",
        "intent://x#Intent;end",
        "app:",
        "app:cb",
        "//evil.example",
        "https:client.example.com",
        "https:/client.example.com",
        "https:///cb",
        "http://client.example.com/cb",
        "ftp://client.example.com/cb",
        "http://127.0.0.1.evil.example/cb",
        "http://localhost.evil.example/cb",
        "http://localhost./cb",
        "http://LOCALHOST/cb",
        "http://127.1/cb",
        "http://127.0.0.2/cb",
        "http://2130706433/cb",
        "http://0x7f.1/cb",
        "http://[::ffff:127.0.0.1]/cb",
        "http://127.0.0.1:1@evil.example/cb",
        "http://127.0.0.1:123456/cb",
        "http://127.0.0.1:1a/cb",
        "https://user@client.example.com/cb",
        "https://user:word@client.example.com/cb",
        "app://user@host/cb",
        "https://client.example.com/cb#fragment",
        "https://client.example.com/cb#",
        "https://client.example.com/cb\n",
        "https://client.example.com/cb\r\nSet-Cookie: a=b",
        " https://client.example.com/cb",
        "https://client.example.com/a b",
        "https://client.example.com\\@evil.example/",
        "https://client.example.com/\\evil.example",
        "app:/\\evil.example",
        "https://client.example.com/\x00",
        "https://ünï.example/cb",
        "http://127.0.0.\uff11/cb",
        "https://client.example.com/" + "a" * 2022,
    ],
)
def test_other_redirect_uris_cannot_be_registered(uri: str) -> None:
    with pytest.raises(InvalidRedirect):
        check_registrable(uri)


@pytest.mark.parametrize("uri", [WEB, V4, V6, NAME, "cursor://anysphere.cursor-mcp/cb"])
def test_a_registered_uri_matches_itself_and_no_variation(uri: str) -> None:
    assert matches(uri, [uri])
    variations = [
        uri.upper(),
        uri.capitalize(),
        f"{uri}/",
        f"{uri}?",
        f"{uri}?added=1",
        f"{uri}#",
        f"{uri}#fragment",
        f"{uri}\n",
        f" {uri}",
        f"{uri} ",
        f"{uri}x",
        uri[:-1],
        uri[:-2],
        uri.replace("/cb", "/%63b"),
        uri.replace("/cb", "//cb"),
        uri.replace("/cb", "/x/../cb"),
        uri.replace("/cb", "%2fcb"),
        uri.replace("/cb", "\\cb"),
        "",
    ]
    assert [variation for variation in variations if matches(variation, [uri])] == []


@pytest.mark.parametrize(
    "uri",
    [
        "https://client.example.com:443/cb",
        "https://client.example.com:8443/cb",
        "https://client.example.com./cb",
        "https://sub.client.example.com/cb",
        "https://client.example.com@evil.example/cb",
        "http://client.example.com/cb",
        "//client.example.com/cb",
    ],
)
def test_a_web_redirect_has_no_slack_at_all(uri: str) -> None:
    assert not matches(uri, [WEB])


@pytest.mark.parametrize("registered", [V4, V6, NAME])
@pytest.mark.parametrize("fixed", ["", ":3000"])
@pytest.mark.parametrize("port", ["", ":1", ":3000", ":65535"])
def test_a_loopback_redirect_may_come_with_any_port(registered: str, fixed: str, port: str) -> None:
    host = registered.removesuffix("/cb")
    assert matches(f"{host}{port}/cb", [WEB, f"{host}{fixed}/cb"])


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:1@evil.example/cb",
        "http://127.0.0.1:1/cb@evil.example",
        "http://127.0.0.1.evil.example/cb",
        "http://127.0.0.1:80.evil.example/cb",
        "http://127.1/cb",
        "http://127.0.0.2/cb",
        "http://2130706433/cb",
        "http://0x7f.1/cb",
        "http://[::ffff:127.0.0.1]/cb",
        "http://12\t7.0.0.1/cb",
        "http://127.0.0.\uff11/cb",
        "http://127.0.0.1:\uff11/cb",
        "https://127.0.0.1/cb",
        "http://127.0.0.1/other",
        "http://127.0.0.1:3000/cb?added=1",
        "http://127.0.0.1:3000/cb#",
        "http://127.0.0.1:3000/cb\n",
        "http://127.0.0.1:0/cb",
        "http://127.0.0.1:65536/cb",
        "http://127.0.0.1:/cb",
        "http://127.0.0.1:-1/cb",
        "http://localhost:3000/cb",
        "http://localhost.:3000/cb",
        "http://[::1]:3000/cb",
    ],
)
def test_nothing_but_the_port_of_a_loopback_redirect_may_differ(uri: str) -> None:
    assert not matches(uri, [V4])


def test_a_query_registered_on_loopback_is_part_of_the_match() -> None:
    assert matches("http://127.0.0.1:9/cb?a=1", ["http://127.0.0.1/cb?a=1"])
    assert not matches("http://127.0.0.1:9/cb", ["http://127.0.0.1/cb?a=1"])


def test_the_answer_keeps_the_clients_query_and_always_names_the_issuer() -> None:
    plain = authorization_response_url(
        "https://c.example/cb", issuer="https://as.example", state=None, code="a b"
    )
    assert plain == "https://c.example/cb?code=a%20b&iss=https%3A%2F%2Fas.example"
    queried = authorization_response_url(
        "https://c.example/cb?t=1", issuer="https://as.example", state="+/=&"
    )
    assert queried == "https://c.example/cb?t=1&state=%2B%2F%3D%26&iss=https%3A%2F%2Fas.example"


@pytest.mark.parametrize(
    ("uri", "target", "local"),
    [
        (WEB, "client.example.com", False),
        ("HTTPS://client.example.com/cb", "client.example.com", False),
        ("https://client.example.com?x=/", "client.example.com", False),
        ("http://127.0.0.1:9999/cb", "127.0.0.1:9999", True),
        ("cursor://anysphere.cursor-mcp/cb", "cursor:", True),
        ("com.example.app:/oauth", "com.example.app:", True),
    ],
)
def test_people_are_told_where_they_will_be_sent(uri: str, target: str, local: bool) -> None:
    assert display_target(uri) == target
    assert is_local_application(uri) is local
