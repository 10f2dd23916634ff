"""The gateway: who is let in, what the app gets, and what comes back."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.authserver import answering, refuse, release
from tests.sidecar.gateway.app import RawApp, Seen, Writer, raw_app, response
from tests.sidecar.gateway.harness import RESOURCE_METADATA, Gated, gated
from tests.sidecar.harness import JWT, Authorities

OPEN = {"GATEWAY_OPEN_PATHS": "/healthz,/a/b"}
UPSTREAM = {"GATEWAY_TOKEN": "upstream"}


# Who is let in.


async def test_without_a_token_the_client_learns_where_to_sign_in(g: Gated) -> None:
    reply = await g.call(jwt=None)
    assert reply.status == 401
    challenge = reply.headers["WWW-Authenticate"]
    assert RESOURCE_METADATA in challenge
    assert "error=" not in challenge
    assert reply.json["error"] == "invalid_token"
    assert g.app.requests == []
    assert g.authserver.received == []


async def test_a_refused_token_is_401_and_never_forwarded(g: Gated) -> None:
    g.authserver.always(answering(lambda: refuse(400, "invalid_request")))
    reply = await g.call()
    assert reply.status == 401
    assert 'error="invalid_token"' in reply.headers["WWW-Authenticate"]
    assert g.app.requests == []
    assert g.metric("invalid_token") == 1


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer", 401), ("Bearer ", 401), ("Basic dXNlcjpwYXNz", 401), ("Bearer x", 401),
        (f"Bearer {JWT} x", 401), (f"token {JWT}", 401), (f"Bearer {'a' * 9000}.b.c", 401),
    ],
)  # fmt: skip
async def test_nothing_but_one_bearer_jwt_opens(g: Gated, authorization: str, status: int) -> None:
    reply = await g.call(jwt=None, headers={"Authorization": authorization})
    assert reply.status == status
    assert g.app.requests == []


@pytest.mark.parametrize(
    ("status", "error", "answered"),
    [
        (400, "invalid_grant", 401), (400, "invalid_target", 403), (429, "slow_down", 429),
        (503, "temporarily_unavailable", 503), (403, "access_denied", 503), (500, "x", 503),
    ],
)  # fmt: skip
async def test_each_refusal_of_the_authserver_has_its_status(
    g: Gated, status: int, error: str, answered: int
) -> None:
    g.authserver.always(answering(lambda: refuse(status, error)))
    reply = await g.call()
    assert reply.status == answered
    assert ("WWW-Authenticate" in reply.headers) == (answered == 401)
    assert ("Retry-After" in reply.headers) == (answered in (429, 503))
    assert g.app.requests == []


async def test_an_authserver_that_confirms_nobody_lets_nobody_in(
    g: Gated, caplog: pytest.LogCaptureFixture
) -> None:
    g.authserver.always(answering(lambda: release(sub=None, client_id=None)))
    with caplog.at_level(logging.INFO):
        assert (await g.call()).status == 503
    assert g.app.requests == []
    # It was refused, and did not break on the way.
    assert "identity_not_confirmed" in str([vars(record) for record in caplog.records])


@pytest.mark.parametrize(
    "changes",
    [{"sub": "a b"}, {"sub": ""}, {"sub": "a\r\nb"}, {"client_id": None}, {"client_id": 1},
     {"sub": "ä"}, {"session": "a b"}, {"connection": 5}],
)  # fmt: skip
async def test_an_identity_that_is_not_of_its_form_lets_nobody_in(
    g: Gated, changes: dict[str, Any]
) -> None:
    g.authserver.always(answering(lambda: release(**changes)))
    assert (await g.call()).status == 503
    assert g.app.requests == []


async def test_a_token_in_memory_costs_no_exchange(g: Gated) -> None:
    for _ in range(3):
        assert (await g.call()).status == 200
    assert len(g.authserver.received) == 1
    assert g.metric("ok") == 3
    assert (await g.inner.ask()).status == 200  # the local API has the same memory
    assert len(g.authserver.received) == 1


# What the app gets.


async def test_the_app_gets_the_request_and_who_sent_it(g: Gated) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize"})
    reply = await g.call(
        "/mcp?a=%20b&c", headers={"Content-Type": "application/json", "X-Other": "kept"}, data=body
    )
    assert (reply.status, reply.raw) == (200, b"ok")
    seen = g.app.last
    assert (seen.method, seen.target, seen.body.decode()) == ("POST", "/mcp?a=%20b&c", body)
    assert seen.get("authorization") == f"Bearer {JWT}"
    assert seen.get("x-tokenward-user") == "user-1"
    assert seen.get("x-tokenward-client") == "client-1"
    assert seen.get("host") == f"127.0.0.1:{g.app.port}"
    assert seen.get("x-other") == "kept"
    assert seen.get("content-length") == str(len(body))


async def test_no_client_names_itself(g: Gated) -> None:
    spellings = [
        "X-Tokenward-User", "X-Tokenward-Client", "x_tokenward_user", "X-Tokenward_User",
        "X_TOKENWARD-CLIENT", "X.Tokenward.User", "X-Tokenward", "X-Tokenward-Anything",
        "X~Tokenward~User",
    ]  # fmt: skip
    await g.call(headers=dict.fromkeys(spellings, "admin"))
    seen = g.app.last
    assert seen.get("x-tokenward-user") == "user-1"
    assert "admin" not in [value for _, value in seen.fields]


@pytest.mark.parametrize(
    "name",
    ["Mcp_Session_Id", "mcp.session.id", "Last_Event_Id", "Content_Type", "Cookie_", "X_Request_Id",
     "Proxy-Authorization", "Keep-Alive", "TE", "Trailer", "Proxy-Connection", "Upgrade",
     "HTTP2-Settings", "Authorization_", "X_HTTP_Method_Override"],
)  # fmt: skip
async def test_fields_of_one_connection_and_second_spellings_stay_here(g: Gated, name: str) -> None:
    await g.call(headers={name: "x-canary"})
    kept = {value for _, value in g.app.last.fields}
    # A trailing underscore is another word; what it would shadow differs from ours.
    assert ("x-canary" in kept) == name.endswith("_")


async def test_fields_that_connection_names_stay_here(g: Gated) -> None:
    reply = await g.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nX-Hop: 1\r\n"
        b"Connection: close, X-Hop\r\n\r\n" % JWT.encode()
    )
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert "x-hop" not in g.app.last.names


@pytest.mark.parametrize(
    "option", [b"Authorization", b"X-Tokenward-User", b"Content-Type", b"Mcp-Session-Id", b"Host"]
)
async def test_connection_cannot_take_away_what_the_app_must_see(g: Gated, option: bytes) -> None:
    reply = await g.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nConnection: %b\r\n\r\n"
        % (JWT.encode(), option)
    )
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert g.app.requests == []


async def test_one_id_names_the_request_everywhere(g: Gated) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    await g.call(headers={"X-Request-Id": "client-chosen-1", "traceparent": trace})
    assert g.app.last.get("x-request-id") == "client-chosen-1"
    assert g.app.last.get("traceparent") == trace
    assert g.authserver.received[0].headers["X-Request-Id"] == "client-chosen-1"
    await g.call(headers={"X-Request-Id": "no good\tid", "traceparent": "nonsense"})
    given = g.app.last.get("x-request-id")
    assert given is not None
    assert len(given) == 16
    assert g.app.last.get("traceparent") is None


# Modes.


async def test_the_upstreams_token_is_put_in_where_it_is_handed_out(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities, UPSTREAM) as g:
        assert (await g.call()).status == 200
        assert g.app.last.get("authorization") == "Bearer upstream-token"
        assert JWT not in str(g.app.last.fields)


async def test_the_token_goes_into_another_header_and_the_jwt_nowhere(
    tmp_path: Path, authorities: Authorities
) -> None:
    changes = UPSTREAM | {"GATEWAY_HEADER": "X-GitHub-Token"}
    async with gated(tmp_path, authorities, changes) as g:
        reply = await g.call(headers={"X-GitHub-Token": "mine", "X_GitHub_Token": "mine"})
        assert reply.status == 200
        assert g.app.last.get("x-github-token") == "upstream-token"
        assert "authorization" not in g.app.last.names
        assert JWT not in str(g.app.last.fields)
        assert "mine" not in str(g.app.last.fields)


async def test_attach_only_forwards_nothing_where_the_token_would_be_put_in(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities, UPSTREAM) as g:
        g.authserver.always(answering(lambda: release(release=["Attach"])))
        reply = await g.call()
        assert (reply.status, reply.json["error"]) == (403, "attach_only")
        assert g.app.requests == []
        assert g.metric("attach_only") == 1


async def test_attach_only_is_no_matter_where_the_client_keeps_its_jwt(g: Gated) -> None:
    g.authserver.always(answering(lambda: release(release=["Attach"])))
    assert (await g.call()).status == 200
    assert g.app.last.get("authorization") == f"Bearer {JWT}"


async def test_the_upstream_is_named_where_there_are_several(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities, {"GATEWAY_UPSTREAM": "github"}) as g:
        assert (await g.call()).status == 200
        assert g.authserver.received[0].form["audience"] == "github"


# The app's 401.


async def test_an_apps_401_reports_nothing_and_goes_on(g: Gated) -> None:
    g.app.usual = response(401, b"app", 'WWW-Authenticate: Basic realm="app"')
    for _ in range(2):
        reply = await g.call()
        assert (reply.status, reply.raw) == (401, b"app")
    assert len(g.authserver.received) == 1


async def test_an_app_that_refuses_its_token_gets_a_renewed_one(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities, UPSTREAM) as g:
        g.authserver.then(release, lambda: release(access_token="renewed"))
        g.app.then = [response(401, b"")]
        reply = await g.call(data=b"body")
        assert (reply.status, reply.raw) == (200, b"ok")
        assert [seen.get("authorization") for seen in g.app.requests] == [
            "Bearer upstream-token", "Bearer renewed",
        ]  # fmt: skip
        assert g.app.last.body == b"body"
        assert "rejected_token_sha256" in g.authserver.received[1].form


async def test_an_app_that_refuses_every_token_makes_no_client_loop(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities, UPSTREAM) as g:
        g.authserver.then(release, lambda: release(access_token="renewed"))
        g.app.usual = response(401, b"")
        for expected in (2, 3, 4):
            reply = await g.call()
            assert (reply.status, reply.json["error"]) == (502, "app_refuses_token")
            assert len(g.app.requests) == expected
        assert len(g.authserver.received) == 2  # one refresh a minute


async def test_a_token_that_could_not_be_renewed_is_not_sent_again(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities, UPSTREAM) as g:
        g.app.usual = response(401, b"")
        assert (await g.call()).status == 502
        assert len(g.app.requests) == 1


async def test_a_large_body_is_sent_again_by_the_client(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities, UPSTREAM) as g:
        g.authserver.then(release, lambda: release(access_token="renewed"))
        g.app.then = [response(401, b"")]
        reply = await g.call(data=b"x" * 200_000)
        assert reply.status == 401
        assert RESOURCE_METADATA in reply.headers["WWW-Authenticate"]
        assert (await g.call(data=b"x" * 200_000)).status == 200


# The documents, open paths, origins.


@pytest.mark.parametrize("path", ["", "/mcp"])
async def test_the_documents_are_answered_here(g: Gated, path: str) -> None:
    url = f"/.well-known/oauth-protected-resource{path}"
    reply = await g.call(url, method="GET", jwt=None)
    assert reply.status == 200
    assert reply.json["resource"] == "https://github-mcp.example.com/mcp"
    assert (await g.call(url, method="POST", jwt=None)).status == 405
    assert g.app.requests == []


async def test_the_challenge_never_repeats_the_host(g: Gated) -> None:
    reply = await g.call(jwt=None, headers={"Host": "evil.example"})
    assert "evil" not in str(reply.headers)


async def test_an_open_path_goes_on_without_anything_that_names_somebody(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities, OPEN) as g:
        named = {
            "Authorization": f"Bearer {JWT}", "Cookie": "a=b", "Mcp-Session-Id": "s",
            "Last-Event-ID": "7", "X-HTTP-Method-Override": "DELETE", "X-Method-Override": "PUT",
            "X-HTTP-Method": "PUT", "X_HTTP_Method_Override": "DELETE", "X-Tokenward-User": "a",
        }  # fmt: skip
        reply = await g.call("/healthz", method="GET", jwt=None, headers=named)
        assert (reply.status, reply.raw) == (200, b"ok")
        assert g.app.last.names.isdisjoint(name.lower() for name in named)
        assert g.authserver.received == []
        assert (await g.call("/healthz", method="HEAD", jwt=None)).status == 200


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/healthz?a=b"), ("GET", "/healthz/"), ("GET", "/Healthz"), ("GET", "/%68ealthz"),
        ("GET", "//healthz"), ("GET", "/./healthz"), ("GET", "/a/../healthz"),
        ("GET", "/healthz;a"),
        ("GET", "/healthz?"), ("POST", "/healthz"), ("DELETE", "/healthz"), ("GET", "/a"),
        ("OPTIONS", "/healthz"),
    ],
)  # fmt: skip
async def test_an_open_path_is_compared_byte_for_byte(
    tmp_path: Path, authorities: Authorities, method: str, target: str
) -> None:
    async with gated(tmp_path, authorities, OPEN) as g:
        line = f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert (await g.send(line.encode())).startswith(b"HTTP/1.1 401 ")
        assert g.app.requests == []


@pytest.mark.parametrize("framing", ["Content-Length: 1", "Transfer-Encoding: chunked"])
async def test_an_open_path_takes_no_body(
    tmp_path: Path, authorities: Authorities, framing: str
) -> None:
    async with gated(tmp_path, authorities, OPEN) as g:
        line = f"GET /healthz HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"
        assert (await g.send(line.encode())).startswith(b"HTTP/1.1 400 ")
        assert g.app.requests == []


ORIGIN = "https://app.example.com"
ORIGINS = {"GATEWAY_ORIGINS": f"{ORIGIN},http://localhost:6274"}
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, x-custom",
}


async def test_a_preflight_of_an_allowed_origin_is_answered_here(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities, ORIGINS) as g:
        reply = await g.call(method="OPTIONS", jwt=None, headers=PREFLIGHT)
        assert reply.status == 204
        assert reply.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "POST" in reply.headers["Access-Control-Allow-Methods"]
        assert "x-custom" in reply.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in reply.headers
        assert g.app.requests == []


async def test_answers_to_an_allowed_origin_replace_the_apps_own_words(
    tmp_path: Path, authorities: Authorities
) -> None:
    app = RawApp(
        usual=response(
            200, b"ok", "Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true"
        )
    )
    async with gated(tmp_path, authorities, ORIGINS, app=app) as g:
        for jwt in (JWT, None):
            reply = await g.call(jwt=jwt, headers={"Origin": ORIGIN})
            assert reply.headers.getall("Access-Control-Allow-Origin") == [ORIGIN]  # type: ignore[attr-defined]
            assert "WWW-Authenticate" in reply.headers["Access-Control-Expose-Headers"]
            assert "Mcp-Session-Id" in reply.headers["Access-Control-Expose-Headers"]
            assert "Access-Control-Allow-Credentials" not in reply.headers
            assert reply.headers["Vary"] == "Origin"
        assert "origin" not in g.app.last.names
        assert "Access-Control-Allow-Origin" not in (await g.call()).headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", f"{ORIGIN}, {ORIGIN}", "*"])
async def test_a_foreign_origin_is_refused_everywhere(
    tmp_path: Path, authorities: Authorities, origin: str
) -> None:
    async with gated(tmp_path, authorities, ORIGINS | OPEN) as g:
        for method, path, jwt in (
            ("POST", "/mcp", JWT),
            ("OPTIONS", "/mcp", None),
            ("GET", "/healthz", None),
        ):
            headers = PREFLIGHT | {"Origin": origin}
            reply = await g.call(path, method=method, jwt=jwt, headers=headers)
            assert reply.status == 403
            assert "Access-Control-Allow-Origin" not in reply.headers
        assert g.app.requests == []


async def test_by_default_no_other_origin_may_call_but_the_servers_own(g: Gated) -> None:
    assert (await g.call(headers={"Origin": ORIGIN})).status == 403
    assert (await g.call(headers={"Origin": "https://github-mcp.example.com"})).status == 200


# The app fails.


async def test_an_app_that_does_not_listen_is_502(tmp_path: Path, authorities: Authorities) -> None:
    async with raw_app() as gone:
        pass
    async with gated(tmp_path, authorities, {"GATEWAY": f"0:{gone.port}"}) as g:
        reply = await g.call()
        assert (reply.status, reply.json["error"]) == (502, "bad_gateway")
        assert reply.headers["Retry-After"]


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nunframed", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok", b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nMcp-Session-Id: a\r\nMcp-Session-Id: b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nMcp-Session-Id: a b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    ],
)  # fmt: skip
async def test_a_malformed_response_is_502_and_nothing_of_it_goes_on(
    g: Gated, answer: bytes
) -> None:
    async def answer_and_close(seen: Seen, writer: Writer) -> bool:
        writer.write(answer)
        await writer.drain()
        return False

    g.app.then = [answer_and_close]
    reply = await g.call()
    assert (reply.status, reply.json["error"]) == (502, "bad_gateway")
    assert (await g.call()).status == 200


async def test_a_long_response_that_breaks_off_is_cut_and_never_looks_whole(g: Gated) -> None:
    async def half(seen: Seen, writer: Writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        return False

    g.app.then = [half]
    raw = await g.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % JWT.encode(), end=False
    )
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not raw.endswith(b"0\r\n\r\n")


async def test_what_the_app_says_of_its_software_and_of_us_stays_here(g: Gated) -> None:
    g.app.usual = response(
        200, b"ok", "Server: app/1.0", "X-Tokenward-User: a", "X_Tokenward_User: b",
        "Connection: X-Private", "X-Private: c", "Proxy-Authenticate: Basic", "Set-Cookie: a=b",
        "X-Kept: d",
    )  # fmt: skip
    reply = await g.call()
    for name in ("Server", "X-Tokenward-User", "X_Tokenward_User", "X-Private", "Connection"):
        assert name not in reply.headers
    assert (reply.headers["X-Kept"], reply.headers["Set-Cookie"]) == ("d", "a=b")


@pytest.mark.parametrize("status", [200, 201, 202, 204, 301, 304, 400, 403, 404, 418, 500, 599])
async def test_every_status_of_the_app_goes_on(g: Gated, status: int) -> None:
    body = b"" if status in (204, 304) else b"text"
    g.app.usual = response(status, body, "Location: /elsewhere")
    reply = await g.call()
    assert (reply.status, reply.raw) == (status, body)
    assert reply.headers["Location"] == "/elsewhere"


async def test_head_has_the_length_that_get_would_have(g: Gated) -> None:
    g.app.usual = b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"
    reply = await g.call(method="HEAD")
    assert (reply.status, reply.headers["Content-Length"], reply.raw) == (200, "1234", b"")


# Limits.


async def test_expect_is_answered_once_the_jwt_is_accepted(g: Gated) -> None:
    head = (
        b"POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nContent-Length: 2\r\n"
        b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", g.port)
    writer.write(head % JWT.encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert (g.app.last.body, g.app.last.get("expect")) == (b"{}", None)
    refused = await g.send(head % b"x", end=False)
    assert refused.startswith(b"HTTP/1.1 401 ")
    other = head.replace(b"100-continue", b"200-ok") % JWT.encode()
    assert (await g.send(other)).startswith(b"HTTP/1.1 417 ")


async def test_an_upgrade_is_dropped_and_the_request_served(g: Gated) -> None:
    raw = await g.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n" % JWT.encode()
    )
    assert raw.startswith(b"HTTP/1.1 200 ")
    assert g.app.last.names.isdisjoint({"upgrade", "connection"})


async def test_a_head_of_64_kib_is_read_and_no_longer_one(g: Gated) -> None:
    long = {f"X-{at}": "a" * 8000 for at in range(7)}
    assert (await g.call(headers=long)).status == 200
    line = b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"a" * 65_536)
    assert (await g.send(line)).startswith(b"HTTP/1.1 431 ")


async def test_no_token_is_in_a_log_a_metric_or_an_error(
    tmp_path: Path, authorities: Authorities, capsys: pytest.CaptureFixture[str]
) -> None:
    from chassis import logs

    logs.configure("sidecar", "debug")
    async with gated(tmp_path, authorities, UPSTREAM) as g:
        g.authserver.always(answering(lambda: release(access_token="canary-token")))
        replies = [await g.call(), await g.call(headers={"Origin": "https://evil.example"})]
        g.app.usual = response(401, b"")
        replies.append(await g.call())
        g.app.usual = b"nonsense\r\n\r\n"
        replies.append(await g.call())
        g.authserver.always(answering(lambda: refuse(400, "invalid_grant")))
        replies.append(await g.call(jwt=f"{JWT}x"))
        async with g.http.get(g.url("/x"), headers={"Authorization": "Bearer a.b.c"}) as answer:
            replies.append(answer)  # type: ignore[arg-type]
    shown = capsys.readouterr()
    told = shown.err + shown.out + str([(r.headers, getattr(r, "raw", b"")) for r in replies])
    assert '"refused"' in shown.err
    for secret in ("canary-token", JWT, JWT.split(".")[2], "user-1"):
        assert secret not in told
