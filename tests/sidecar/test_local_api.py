"""The local API of contracts section 2, called over a real connection."""

import asyncio
import json
import re
from typing import Any

import pytest

from chassis.http1.client import ServerResponse
from chassis.http1.request import Headers
from sidecar.cached_token import Token, fingerprint
from sidecar.errors import ApiError
from sidecar.token_request import read_bearer
from tests.fakes.authserver import refuse, release
from tests.sidecar.harness import JWT, Harness

CHALLENGE = (
    'Bearer error="invalid_token", error_description="The access token is not accepted.", '
    'resource_metadata="https://github-mcp.example.com/.well-known/oauth-protected-resource/mcp", '
    'scope="mcp"'
)


async def test_a_call_with_the_users_jwt_gets_the_upstream_token(r: Harness) -> None:
    reply = await r.ask({"upstream": "github"})
    assert reply.status == 200
    assert reply.json == {
        "access_token": "upstream-token",
        "token_type": "Bearer",
        "expires_in": 3600,
        "upstream": "github",
        "scope": "repo",
    }
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Content-Type"] == "application/json"
    [exchange] = r.authserver.received
    assert (exchange.method, exchange.path) == ("POST", "/internal/token-exchange")
    assert exchange.form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": JWT,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "audience": "github",
    }


async def test_an_answer_from_memory_and_a_fresh_one_are_the_same_bytes(r: Harness) -> None:
    fresh, remembered = await r.ask(), await r.ask()
    assert fresh.raw == remembered.raw
    assert dict(fresh.headers).keys() == dict(remembered.headers).keys()
    assert len(r.authserver.received) == 1


async def test_members_the_authserver_does_not_know_are_absent(r: Harness) -> None:
    r.authserver.then(lambda: release(expires_in=None, scope=None))
    expected = {"access_token", "token_type", "upstream"}
    assert (await r.ask()).json.keys() == expected
    assert (await r.ask()).json.keys() == expected


async def test_min_ttl_and_the_rejected_token_travel_with_the_exchange(r: Harness) -> None:
    await r.ask({"min_ttl": 300, "rejected_token": "dead-token"})
    [exchange] = r.authserver.received
    assert exchange.form["min_ttl"] == "300"
    assert exchange.form["rejected_token_sha256"] == fingerprint("dead-token")
    assert "dead-token" not in str(exchange.form)


def test_a_fingerprint_is_base64url_of_sha256_without_padding() -> None:
    assert fingerprint("abc") == "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"


async def test_host_may_be_spelled_localhost_too(r: Harness) -> None:
    assert (await r.ask(headers={"Host": f"localhost:{r.port}"})).status == 200


async def test_content_type_may_name_its_charset(r: Harness) -> None:
    reply = await r.ask(headers={"Content-Type": "application/json; charset=utf-8"})
    assert reply.status == 200


@pytest.mark.parametrize("name", ["X-Datadog-Trace-Id", "Sec-Fetch-Mode"])
async def test_headers_that_programs_of_the_pod_send_do_no_harm(r: Harness, name: str) -> None:
    assert (await r.ask(headers={name: "cors"})).status == 200


@pytest.mark.parametrize(
    "marks",
    [
        {"X-Forwarded-For": "10.0.0.1"},
        {"x-forwarded-host": "a"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Anything": "a"},
        {"Forwarded": "for=10.0.0.1"},
        {"Via": "1.1 proxy"},
        {"Origin": "null"},
        {"Referer": "http://127.0.0.1/"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "cors"},
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"X-Tokenward": None},
        {"X-Tokenward": "true"},
        {"Content-Type": None},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
    ids=str,
)
async def test_a_call_no_program_of_ours_makes_is_refused_before_any_look_up(
    r: Harness, marks: dict[str, str | None]
) -> None:
    assert (await r.ask()).status == 200  # so that memory could answer
    if marks.get("Content-Type", "") is None:
        reply = await _without_content_type(r)
    else:
        reply = (await r.ask(headers=marks)).json
    assert (reply["error"], reply["action"]) == ("forbidden_caller", "fix_request")
    assert len(r.authserver.received) == 1
    assert r.metric("tokenward_sidecar_cache_total", result="hit") == 0
    assert (
        r.metric("tokenward_sidecar_requests_total", door="hand_out", result="forbidden_caller")
        == 1
    )


async def _without_content_type(r: Harness) -> Any:
    raw = await r.send(_raw(r, content_type=""))
    assert raw.startswith(b"HTTP/1.1 403 ")
    return json.loads(raw.partition(b"\r\n\r\n")[2])


def _raw(
    r: Harness,
    *,
    target: str = "/v1/token",
    host: str | None = None,
    more: str = "",
    content_type: str = "Content-Type: application/json\r\n",
    body: str = "{}",
) -> bytes:
    hosts = f"Host: 127.0.0.1:{r.port}\r\n" if host is None else host
    return (
        f"POST {target} HTTP/1.1\r\n{hosts}Authorization: Bearer {JWT}\r\nX-Tokenward: 1\r\n"
        f"{content_type}Connection: close\r\nContent-Length: {len(body)}\r\n{more}\r\n{body}"
    ).encode()


async def test_the_raw_call_those_tests_change_is_a_good_one(r: Harness) -> None:
    assert (await r.send(_raw(r))).startswith(b"HTTP/1.1 200 ")


async def test_get_is_refused(r: Harness) -> None:
    assert (await r.ask(method="GET")).status == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods_are_refused(r: Harness, method: str) -> None:
    assert (await r.ask(method=method)).status == 403
    assert not r.authserver.received


@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/v1/token", "http://evil.example/"])
async def test_an_absolute_target_is_refused(r: Harness, target: str) -> None:
    answer = await r.send(_raw(r, target=target.format(port=r.port)))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert not r.authserver.received


async def test_two_hosts_or_none_are_refused(r: Harness) -> None:
    ours = f"Host: 127.0.0.1:{r.port}\r\n"
    for hosts in (ours + ours, ours + "Host: evil.example\r\n", ""):
        answer = await r.send(_raw(r, host=hosts))
        assert answer.split(b" ", 2)[1] in (b"400", b"403")
        assert b"invalid_request" in answer or b"forbidden_caller" in answer
    assert not r.authserver.received


async def test_two_authorizations_are_refused(r: Harness) -> None:
    answer = await r.send(_raw(r, more="Authorization: Bearer a.b.c\r\n"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not r.authserver.received


async def test_two_x_tokenward_headers_are_refused(r: Harness) -> None:
    answer = await r.send(_raw(r, more="X-Tokenward: 1\r\n"))
    assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("authorization", [None, "Basic YTpi", "Bearer", "Bearer ", JWT])
async def test_without_a_bearer_token_the_challenge_has_no_error(
    r: Harness, authorization: str | None
) -> None:
    reply = await r.ask(headers={"Authorization": authorization})
    assert (reply.status, reply.json["error"]) == (401, "invalid_token")
    # A server that forgets to pass the JWT on must not send its user to sign in for ever.
    assert reply.json["action"] == "fix_request"
    assert reply.headers["WWW-Authenticate"].startswith("Bearer resource_metadata=")
    assert not r.authserver.received


@pytest.mark.parametrize(
    "jwt",
    ["opaque", "a.b", "a.b.c.d", "a..c", ".b.c", "a.b.", "a.b.c=", "a.b.c d", "a.b/c.d", "ä.b.c"],
)
async def test_what_is_no_jwt_never_reaches_the_authserver(r: Harness, jwt: str) -> None:
    reply = await r.ask(jwt=jwt)
    assert (reply.status, reply.json["error"]) == (401, "invalid_token")
    assert reply.headers["WWW-Authenticate"] == CHALLENGE
    assert not r.authserver.received


async def test_a_jwt_of_bytes_that_are_no_text_is_not_accepted(r: Harness) -> None:
    answer = await r.send(_raw(r).replace(JWT.encode(), b"a.\xff\xfe.c"))
    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([f"Bearer {JWT}", f"Bearer {JWT}"], "two_authorizations"),
        (["Bearer ä.b.c"], "jwt_too_long_or_not_ascii"),
    ],
)
def test_the_reader_of_a_jwt_does_not_rely_on_those_before_and_behind_it(
    sent: list[str], reason: str
) -> None:
    """The server lets no second `Authorization` through; the broker asks for no such JWT."""
    refused = read_bearer(sent)
    assert isinstance(refused, ApiError)
    assert refused.reason == reason


async def test_a_jwt_may_be_8_kib_long_and_no_longer(r: Harness) -> None:
    longest = "a." + "b" * (8 * 1024 - 4) + ".c"
    assert (await r.ask(jwt=longest)).status == 200
    assert (await r.ask(jwt=longest + "c")).status == 401
    assert len(r.authserver.received) == 1


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
async def test_the_scheme_is_read_in_any_case(r: Harness, scheme: str) -> None:
    assert (await r.ask(headers={"Authorization": f"{scheme} {JWT}"})).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"{}"',
        b"{",
        b"{} {}",
        b"\xff\xfe{\x00}\x00",
        b'{"upstream": "github", "upstream": "gitlab"}',
        b'{"surprise": 1}',
        b'{"upstream": ""}',
        b'{"upstream": null}',
        b'{"upstream": 5}',
        b'{"upstream": "a b"}',
        b'{"upstream": "a/../b"}',
        b'{"upstream": "\\ud800"}',
        b'{"min_ttl": true}',
        b'{"min_ttl": 1.0}',
        b'{"min_ttl": "60"}',
        b'{"min_ttl": -1}',
        b'{"min_ttl": 601}',
        b'{"min_ttl": null}',
        b'{"min_ttl": NaN}',
        b'{"min_ttl": ' + b"9" * 5000 + b"}",
        b'{"rejected_token": ""}',
        b'{"rejected_token": 7}',
        b'{"rejected_token": null}',
        b'{"rejected_token": "two words"}',
        b"[" * 16_000,
    ],
    ids=lambda body: body[:50].decode("latin-1"),
)
async def test_a_malformed_body_is_refused(r: Harness, body: bytes) -> None:
    reply = await r.ask(data=body)
    assert (reply.status, reply.json["error"]) == (400, "invalid_request")
    assert reply.json["action"] == "fix_request"
    assert not r.authserver.received


@pytest.mark.parametrize("min_ttl", [0, 600])
async def test_min_ttl_reaches_from_0_to_600(r: Harness, min_ttl: int) -> None:
    assert (await r.ask({"min_ttl": min_ttl})).status == 200


async def test_a_body_may_be_16_kib_long_and_no_longer(r: Harness) -> None:
    empty = b'{"rejected_token": ""}'
    longest = b'{"rejected_token": "%b"}' % (b"x" * (16 * 1024 - len(empty)))
    assert (await r.ask(data=longest)).status == 200
    assert (await r.ask(data=longest[:-2] + b'x"}')).status == 400
    assert (await r.ask(data=b" " * 1_000_000)).status == 400
    assert len(r.authserver.received) == 1


async def test_a_refusal_names_its_request_and_the_log_does_too(
    r: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="tokenward")
    first, second = (await r.ask(data=b"[]")).json, (await r.ask(data=b"[]")).json
    assert first.keys() == {"error", "error_description", "action", "request_id"}
    assert first["request_id"] != second["request_id"]
    logged = [vars(record)["fields"] for record in caplog.records if record.msg == "refused"]
    assert [entry["request_id"] for entry in logged] == [first["request_id"], second["request_id"]]
    assert {entry["reason"] for entry in logged} == {"body_not_json"}


async def test_what_is_not_http_gets_json_and_nothing_it_sent_back(r: Harness) -> None:
    too_long = f"POST / HTTP/1.1\r\nAuthorization: Bearer {'canary' * 5000}\r\n\r\n".encode()
    for raw in (b"canary\r\n\r\n", too_long, b"POST /v1/token HTTP/1.1\r\ncanary\r\n\r\n"):
        answer = await r.send(raw)
        assert b" 400 Bad Request\r\n" in answer
        assert b"canary" not in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == "invalid_request"


@pytest.mark.parametrize(
    "path", ["/", "/v1/token/", "/v1/token?x=1", "/v1", "/metrics", "/healthz"]
)
async def test_there_is_no_other_route(r: Harness, path: str) -> None:
    reply = await r.ask(path=path)
    assert (reply.status, reply.json["error"]) == (404, "invalid_request")
    assert not r.authserver.received


@pytest.mark.parametrize(
    ("answered", "status", "error", "action"),
    [
        ((400, "invalid_request"), 401, "invalid_token", "reauthenticate"),
        ((400, "invalid_grant"), 401, "reauthentication_required", "reauthenticate"),
        ((400, "invalid_target"), 404, "unknown_upstream", "none"),
        ((429, "temporarily_unavailable"), 429, "rate_limited", "retry"),
        ((401, "invalid_client"), 503, "temporarily_unavailable", "retry"),
        ((403, "unauthorized_client"), 503, "temporarily_unavailable", "retry"),
        ((400, "unsupported_grant_type"), 503, "temporarily_unavailable", "retry"),
        ((404, "invalid_request"), 503, "temporarily_unavailable", "retry"),
        ((500, "server_error"), 503, "temporarily_unavailable", "retry"),
    ],
    ids=str,
)
async def test_each_refusal_of_the_authserver_has_its_status_here(
    r: Harness, answered: tuple[int, str], status: int, error: str, action: str
) -> None:
    r.authserver.then(lambda: refuse(*answered))
    reply = await r.ask()
    assert (reply.status, reply.json["error"], reply.json["action"]) == (status, error, action)
    assert ("WWW-Authenticate" in reply.headers) == (status == 401)
    assert ("Retry-After" in reply.headers) == (status in (429, 503))
    assert b"canary" not in reply.raw
    assert len(r.authserver.received) == 1
    assert r.metric("tokenward_sidecar_requests_total", door="hand_out", result=error) == 1


async def test_both_401_carry_a_challenge_ready_to_be_relayed(r: Harness) -> None:
    r.authserver.then(lambda: refuse(400, "invalid_request"), lambda: refuse(400, "invalid_grant"))
    assert (await r.ask()).headers["WWW-Authenticate"] == CHALLENGE
    second = (await r.ask({"upstream": "github"})).headers["WWW-Authenticate"]
    assert second == CHALLENGE.replace(
        "The access token is not accepted", "The user has to sign in again"
    )


async def test_retry_after_of_the_authserver_is_passed_on(r: Harness) -> None:
    r.authserver.then(
        lambda: refuse(429, "temporarily_unavailable", retry_after=17),
        lambda: refuse(503, "temporarily_unavailable", retry_after=5),
    )
    assert (await r.ask()).headers["Retry-After"] == "17"
    assert (await r.ask()).headers["Retry-After"] == "5"


async def test_a_caller_that_repeats_its_head_is_judged_by_each_head_it_sends(r: Harness) -> None:
    """What a connection's last head came to counts for that very head alone."""
    good = _raw(r).replace(b"Connection: close\r\n", b"")
    forwarded = good.replace(b"X-Tokenward: 1\r\n", b"X-Tokenward: 1\r\nVia: 1.1 proxy\r\n")
    another = good.replace(JWT.encode(), b"opaque")
    last = good.replace(b"X-Tokenward: 1\r\n", b"X-Tokenward: 1\r\nConnection: close\r\n")
    answer = await r.send(good + good + forwarded + good + another + last)
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
    assert statuses == [b"200", b"200", b"403", b"200", b"401", b"200"]
    assert len(r.authserver.received) == 1


async def test_no_repr_of_what_a_connection_keeps_holds_a_token(r: Harness) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
    writer.write(_raw(r).replace(b"Connection: close\r\n", b""))
    await reader.readuntil(b"}")
    [connection] = r.sidecar.local.connections
    assert connection.peer.verdict.unverified_jwt == JWT
    kept = (connection, connection.peer, connection.peer.verdict, connection.peer.head)
    assert JWT not in repr(kept)
    assert "secret" not in repr(ServerResponse(200, Headers(), b"secret"))
    assert "secret" not in repr(Token("secret", "acme", 60))
    writer.close()
