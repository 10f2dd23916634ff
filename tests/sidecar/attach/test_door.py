"""The Attach door at its socket: what an API receives, and what its caller gets back."""

import asyncio
import io
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from demo.pki import CertificateAuthority
from sidecar.attach.call import prepare
from sidecar.errors import ApiError
from sidecar.timeouts import DEFAULT
from tests.chassis.http1.harness import vanish
from tests.fakes.authserver import refuse
from tests.sidecar.attach.harness import PAGE, TOKEN, Attached, Called, attached
from tests.sidecar.attach.paths import SHAPES, Shape
from tests.sidecar.harness import JWT, OTHER_JWT, Authorities


async def test_a_call_reaches_the_api_with_the_token_and_without_the_jwt(a: Attached) -> None:
    answer = await a.call("/repos/octo/hello?page=2&q=a%20b", headers={"Accept": "x/y", "X-A": "b"})
    assert (answer.status, answer.raw, answer.error) == (200, PAGE, None)
    assert answer.headers["Content-Type"] == "application/json"
    (called,) = a.api.called
    assert (called.method, called.target) == ("GET", "/repos/octo/hello?page=2&q=a%20b")
    assert called.values("authorization") == [f"Bearer {TOKEN}"]
    assert called.values("host") == [f"localhost:{a.api.port}"]
    assert called.values("accept") == ["x/y"]
    assert called.values("x-a") == ["b"]
    assert called.values("accept-encoding") == ["identity"]
    assert JWT not in str(called)
    assert a.counted("ok") == 1


async def test_both_doors_share_one_memory(a: Attached) -> None:
    assert (await a.r.ask({"upstream": "github"})).json["access_token"] == TOKEN
    for _ in range(2):
        assert (await a.call()).status == 200
    assert len(a.r.authserver.received) == 1
    assert a.r.metric("tokenward_sidecar_cache_total", result="hit") == 2


async def test_calls_at_the_same_moment_share_one_exchange(a: Attached) -> None:
    answers = await asyncio.gather(*[a.call(f"/repos/{number}") for number in range(10)])
    assert {answer.status for answer in answers} == {200}
    assert len(a.r.authserver.received) == 1
    assert a.r.authserver.received[0].form["audience"] == "github"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "token", "Token", "TOKEN"])
async def test_sdks_may_name_either_scheme(a: Attached, scheme: str) -> None:
    answer = await a.call(jwt=None, headers={"Authorization": f"{scheme} {JWT}"})
    assert answer.status == 200
    assert a.api.called[0].values("authorization") == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize(
    ("authorization", "status"),
    [(None, 401), ("Basic eDp5", 401), ("Bearer", 401), ("Bearer a b", 401), ("Bearer x", 401)],
)
async def test_the_jwt_is_taken_from_authorization_alone(
    a: Attached, authorization: str | None, status: int
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for path in ("/repos", f"/repos?access_token={JWT}"):
        answer = await a.call(path, jwt=None, headers={"X-Access-Token": JWT} | headers)
        assert (answer.status, answer.error) == (status, "invalid_token")
        assert "resource_metadata=" in answer.headers["WWW-Authenticate"]
    assert not a.api.called
    assert a.counted("invalid_token") == 2


MARKS = [
    {"X-Forwarded-For": "10.0.0.1"}, {"Forwarded": "for=x"}, {"Via": "1.1 x"},
    {"Origin": "https://evil.test"}, {"Referer": "https://evil.test"},
    {"Sec-Fetch-Site": "same-origin"}, {"Host": "evil.test"},
]  # fmt: skip


@pytest.mark.parametrize("mark", MARKS, ids=[next(iter(mark)) for mark in MARKS])
async def test_callers_are_checked_as_at_the_other_door(a: Attached, mark: dict[str, str]) -> None:
    answer = await a.call(headers=mark)
    assert (answer.status, answer.error) == (403, "forbidden_caller")
    assert not a.r.authserver.received
    assert not a.api.called
    assert a.counted("forbidden_caller") == 1


async def test_neither_x_tokenward_nor_a_media_type_is_asked_for(a: Attached) -> None:
    answer = await a.call("/repos", "POST", data=b"x", headers={"Content-Type": "text/plain"})
    assert answer.status == 200
    assert a.api.called[0].body == b"x"
    assert a.api.called[0].values("content-type") == ["text/plain"]


async def test_an_absolute_target_is_no_way_round(a: Attached) -> None:
    raw = (
        f"GET http://127.0.0.1:{a.r.port}/upstream/github/repos HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{a.r.port}\r\nAuthorization: Bearer {JWT}\r\n\r\n"
    )
    assert (await a.send(raw.encode())).startswith(b"HTTP/1.1 403 ")
    assert not a.api.called


REFUSED_FOR_THE_JWT = {
    "invalid_request": (401, "invalid_token"),
    "invalid_grant": (401, "reauthentication_required"),
    "invalid_target": (404, "unknown_upstream"),
}


@pytest.mark.parametrize("error", REFUSED_FOR_THE_JWT)
async def test_what_the_authserver_refuses_is_answered_and_not_sent(
    a: Attached, error: str
) -> None:
    a.r.authserver.then(lambda: refuse(400, error))
    answer = await a.call()
    assert (answer.status, answer.error) == REFUSED_FOR_THE_JWT[error]
    assert not a.api.called


async def test_without_the_authserver_the_answer_is_503(a: Attached) -> None:
    await a.r.authserver.stop()
    answer = await a.call()
    assert (answer.status, answer.error, answer.json["action"]) == (
        503, "temporarily_unavailable", "retry",
    )  # fmt: skip
    assert answer.headers["Retry-After"]


async def test_one_users_token_is_not_anothers(a: Attached) -> None:
    a.r.authserver.then(a.release(), a.release("canary-of-bob"))
    a.api.tokens.add("canary-of-bob")
    await a.call()
    await a.call(jwt=OTHER_JWT)
    assert [called.values("authorization") for called in a.api.called] == [
        [f"Bearer {TOKEN}"], ["Bearer canary-of-bob"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "path", ["/upstream/", "/upstream//repos", "/upstream/%67ithub/repos", "/upstream/a b/repos"]
)
async def test_an_upstream_is_named_letter_for_letter(a: Attached, path: str) -> None:
    answer = await a.call(url=f"http://127.0.0.1:{a.r.port}{path.replace(' ', '%20')}")
    assert (answer.status, answer.error) == (404, "unknown_upstream")
    assert not a.r.authserver.received


# Where a call may go.


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.path for shape in SHAPES])
async def test_no_path_of_the_corpus_leaves_the_allowed_prefix(a: Attached, shape: Shape) -> None:
    drive = a.describe(
        name="drive", default=False, base_url=f"{a.api.base_url}/v3", path_prefixes=["/files"]
    )
    a.always(apis=[a.describe(), drive])
    raw = (
        f"GET /upstream/github{shape.path} HTTP/1.1\r\nHost: 127.0.0.1:{a.r.port}\r\n"
        f"Authorization: Bearer {JWT}\r\nConnection: close\r\n\r\n"
    )
    answer = await a.send(raw.encode())
    if shape.sent is None:
        # A path that does not begin with a slash belongs to the upstream's name: no such one.
        assert re.match(rb"HTTP/1\.1 (?:40[034]|503) ", answer), answer
        assert not a.api.called
    else:
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert [called.target for called in a.api.called] == [shape.sent]


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS"])
async def test_a_method_that_is_not_named_is_refused(a: Attached, method: str) -> None:
    answer = await a.call("/repos", method)
    assert (answer.status, answer.error) == (403, "destination_not_allowed")
    assert not a.api.called
    assert a.counted("destination_not_allowed") == 1


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "get"])
async def test_some_methods_are_not_even_read(a: Attached, method: str) -> None:
    raw = f"{method} /upstream/github/repos HTTP/1.1\r\nHost: 127.0.0.1:{a.r.port}\r\n"
    answer = await a.send(f"{raw}Authorization: Bearer {JWT}\r\n\r\n".encode())
    assert re.match(rb"HTTP/1\.1 40[0-9] |HTTP/1\.1 501 ", answer)
    assert not a.api.called


@pytest.mark.parametrize(
    "changes", [{"release": ["HandOut"]}, {"apis": []}, {"release": []}], ids=str
)
async def test_without_permission_or_apis_nothing_is_sent(
    a: Attached, changes: dict[str, Any]
) -> None:
    a.always(**changes)
    answer = await a.call()
    assert (answer.status, answer.error) == (403, "destination_not_allowed")
    assert "Attach is not allowed for this server" in answer.json["error_description"]
    assert not a.api.called


async def test_a_resource_that_is_for_attach_alone_works_here_and_is_not_handed_out(
    a: Attached,
) -> None:
    a.always(release=["Attach"])
    assert (await a.call()).status == 200
    assert (await a.r.ask({"upstream": "github"})).json["error"] == "attach_only"


# What goes on, and what does not.


@pytest.mark.parametrize(
    "header",
    [
        "Cookie", "X-Custom-Key", "x_custom_key", "X-Api-Key", "Private-Token",
        "Proxy-Authorization",
        "Proxy-Connection", "X-Tokenward", "X-Tokenward-User", "X_Tokenward_User", "X-Request-Id",
        "Traceparent", "Keep-Alive", "TE", "X-Hop",
    ],
)  # fmt: skip
async def test_what_authenticates_or_is_ours_is_not_sent_on(a: Attached, header: str) -> None:
    sent = {header: "canary-value", "Connection": "keep-alive, X-Hop"}
    assert (await a.call(headers=sent)).status == 200
    assert "canary-value" not in str(a.api.called)
    assert header.lower() not in [name.lower() for name, _ in a.api.called[0].headers]


async def test_a_field_that_holds_the_jwt_is_not_sent_on(a: Attached) -> None:
    assert (await a.call(headers={"X-Any": f"a {JWT} b", "X-Other": "kept"})).status == 200
    assert JWT not in str(a.api.called)
    assert a.api.called[0].values("x-other") == ["kept"]


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X_Method_Override"])
async def test_a_header_never_overrides_the_method(a: Attached, name: str) -> None:
    answer = await a.call("/repos", "POST", headers={name: "DELETE"}, data=b"x")
    assert (answer.status, answer.error) == (403, "destination_not_allowed")
    assert not a.api.called
    assert (await a.call("/repos", "POST", headers={name: "post"}, data=b"x")).status == 200
    assert not a.api.called[0].values(name.lower())


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("?custom_key=s&page=2", "?page=2"), ("?a=1&Custom_Key=s&b=2", "?a=1&b=2"),
        ("?access_token=s", ""), ("?access%5Ftoken=s&a", "?a"), ("?access_token[]=s&a", "?a"),
        ("?access_token%5B0%5D=s", ""), ("?%61ccess_token=s", ""), ("?%2561ccess_token=s", ""),
        ("?private_token=s", ""), ("?+access_token=s", ""), (f"?a={JWT}&b", "?b"),
        (f"?a={JWT.replace('.', '%2E')}&b", "?b"), (f"?a={JWT.replace('.', '%252e')}&b", "?b"),
        ("?", "?"), ("?a=%zz&&b", "?a=%zz&&b"), ("?a;b=1", "?a;b=1"), ("?key=fine", "?key=fine"),
    ],
)  # fmt: skip
async def test_parameters_that_authenticate_or_hold_the_jwt_are_left_out(
    a: Attached, query: str, sent: str
) -> None:
    assert (await a.call(f"/repos{query}")).status == 200
    # aiohttp's client leaves out an empty query.
    assert a.api.called[0].target == f"/repos{'' if sent == '?' else sent}"


@pytest.mark.parametrize(
    "query",
    ["?_method=DELETE", "?%5Fmethod=DELETE", "?a=1;access_token=s", "?a;_method=DELETE",
     "?$httpMethod=DELETE", "?X-HTTP-Method-Override=DELETE"],
)  # fmt: skip
async def test_parameters_that_override_or_may_be_two_are_refused(a: Attached, query: str) -> None:
    answer = await a.call(f"/repos{query}")
    assert (answer.status, answer.error) == (403, "destination_not_allowed")
    assert not a.api.called


async def test_the_jwt_is_in_no_path(a: Attached) -> None:
    for path in (f"/repos/{JWT}", f"/repos/{JWT.replace('.', '%2e')}"):
        assert (await a.call(path)).error == "destination_not_allowed"
    assert not a.api.called


FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


async def test_a_form_is_held_to_the_rules_of_a_query(a: Attached) -> None:
    body = f"text=%C3%A9&custom_key=s&x={JWT}&b=2".encode()
    assert (await a.call("/repos", "POST", data=body, headers=FORM)).status == 200
    assert a.api.called[0].body == b"text=%C3%A9&b=2"
    assert a.api.called[0].values("content-length") == ["15"]
    answer = await a.call("/repos", "POST", data=b"a=1&_method=DELETE", headers=FORM)
    assert answer.error == "destination_not_allowed"
    answer = await a.call("/repos", "POST", data=io.BytesIO(b"a" * (1024 * 1024 + 1)), headers=FORM)
    assert (answer.status, answer.error) == (400, "invalid_request")
    assert "1 MiB" in answer.json["error_description"]
    assert len(a.api.called) == 1


async def test_each_call_is_judged_anew_although_its_head_is_repeated(a: Attached) -> None:
    """The door keeps what it made of a head; another token or policy must undo that."""
    a.r.authserver.then(a.release(cache_ttl=30))
    await a.call()
    a.r.clock.now += 31
    a.api.tokens.add("second")
    a.r.authserver.then(a.release("second", cache_ttl=30))
    await a.call()
    a.r.clock.now += 31
    a.r.authserver.then(a.release("second", apis=[a.describe(path_prefixes=["/user"])]))
    assert (await a.call()).error == "destination_not_allowed"
    assert [called.values("authorization") for called in a.api.called] == [
        [f"Bearer {TOKEN}"], ["Bearer second"],
    ]  # fmt: skip


# Bodies.


async def test_bodies_of_any_size_stream_both_ways(a: Attached) -> None:
    async def echo(request: web.BaseRequest, _: Called) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece)
        return response

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"0123456789" * 10_000

    a.api.handle = echo
    answer = await a.call("/repos", "POST", data=pieces(), headers={"X-Stream": "1"})
    assert (answer.status, len(answer.raw)) == (200, 100 * 100_000)
    assert answer.raw == b"0123456789" * 1_000_000


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_body_keeps_its_length(a: Attached, method: str) -> None:
    for body in (b"", b"x", b"y" * 200_000):
        assert (await a.call("/repos", method, data=body)).status == 200
        assert a.api.called[-1].body == body
        assert a.api.called[-1].values("content-length") == [str(len(body))]


async def test_a_caller_that_goes_away_leaves_no_shorter_request(a: Attached) -> None:
    ended = asyncio.Event()

    async def read(request: web.BaseRequest, _: Called) -> web.StreamResponse:
        try:
            await request.content.read()
        finally:
            ended.set()
        return web.Response()

    a.api.handle = read
    head = (
        f"POST /upstream/github/repos HTTP/1.1\r\nHost: 127.0.0.1:{a.r.port}\r\nX-Stream: 1\r\n"
        f"Authorization: Bearer {JWT}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", a.r.port)
    writer.write(head.encode() + b"5\r\nhello\r\n")
    await a.r.until(lambda: bool(a.api.called))
    writer.transport.abort()
    await ended.wait()
    assert await reader.read() == b""


async def test_a_body_that_does_not_come_is_given_up_and_nothing_is_sent(
    a: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.attach.outgoing_body._BODY_SECONDS", 0.02)
    head = (
        f"POST /upstream/github/repos HTTP/1.1\r\nHost: 127.0.0.1:{a.r.port}\r\n"
        f"Authorization: Bearer {JWT}\r\nContent-Length: 20\r\n\r\n"
    )
    answer = await a.r.send(head.encode() + b"{")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"too long to arrive" in answer
    assert not a.api.called


async def test_an_answer_that_nobody_waits_for_frees_its_place(a: Attached) -> None:
    """The caller goes away before the head of a long answer is there."""
    go_on = asyncio.Event()

    async def late(request: web.BaseRequest, _: Called) -> web.StreamResponse:
        await go_on.wait()
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x" * 100)
        await asyncio.Event().wait()
        return response

    a.api.handle = late
    head = f"GET /upstream/github/repos HTTP/1.1\r\nHost: 127.0.0.1:{a.r.port}\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", a.r.port)
    writer.write(f"{head}Authorization: Bearer {JWT}\r\n\r\n".encode())
    await a.r.until(lambda: bool(a.api.called))
    vanish(writer)
    await a.r.until(lambda: len(a.r.sidecar.local.connections) == 0)
    door = a.r.sidecar.api.attach
    assert door is not None
    (client,) = door._clients._clients.values()
    assert client._slots._free == client.limits.connections - 1
    go_on.set()
    await a.r.until(lambda: client._slots._free == client.limits.connections)


async def test_events_arrive_one_by_one(a: Attached) -> None:
    go_on = asyncio.Queue[bytes]()

    async def events(request: web.BaseRequest, _: Called) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while event := await go_on.get():
            await response.write(event)
        return response

    a.api.handle = events
    headers = {"Authorization": f"Bearer {JWT}"}
    async with a.r.http.get(f"{a.url}/repos", headers=headers) as response:
        assert response.status == 200
        for event in (b"data: 1\n\n", b"data: 2\n\n"):
            go_on.put_nowait(event)
            assert await response.content.readany() == event
        go_on.put_nowait(b"")
        assert await response.content.read() == b""


async def test_head_has_the_head_of_get(a: Attached) -> None:
    answer = await a.call("/repos", "HEAD")
    assert (answer.status, answer.raw) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(PAGE))


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body(a: Attached, status: int) -> None:
    async def bare(_: web.BaseRequest, __: Called) -> web.StreamResponse:
        return web.Response(status=status, headers={"ETag": '"1"'})

    a.api.handle = bare
    answer = await a.call()
    assert (answer.status, answer.raw, answer.headers["ETag"]) == (status, b"", '"1"')


@pytest.mark.parametrize("status", [400, 403, 404, 422, 429, 500, 503])
async def test_the_apis_own_errors_are_told_from_ours(a: Attached, status: int) -> None:
    async def failing(_: web.BaseRequest, __: Called) -> web.StreamResponse:
        headers = {"X-Tokenward-Error": "forged", "X-Tokenward-Action": "x", "Retry-After": "7"}
        return web.json_response({"message": "no"}, status=status, headers=headers)

    a.api.handle = failing
    answer = await a.call()
    assert (answer.status, answer.error, answer.json) == (status, None, {"message": "no"})
    assert "X-Tokenward-Action" not in answer.headers
    assert answer.headers["Retry-After"] == "7"


async def test_an_answer_keeps_its_fields_but_those_of_the_connection(a: Attached) -> None:
    async def full(_: web.BaseRequest, __: Called) -> web.StreamResponse:
        return web.Response(
            headers=[
                ("X-RateLimit-Remaining", "59"), ("Vary", "Accept"), ("Vary", "Authorization"),
                ("Set-Cookie", "a=canary"), ("Connection", "keep-alive, X-Hop"), ("X-Hop", "1"),
                ("Alt-Svc", 'h3=":443"'), ("Proxy-Authenticate", "Basic"),
            ]
        )  # fmt: skip

    a.api.handle = full
    answer = await a.call()
    assert answer.headers["X-RateLimit-Remaining"] == "59"
    assert answer.headers.getall("Vary") == ["Accept", "Authorization"]  # type: ignore[attr-defined]
    for name in ("Set-Cookie", "X-Hop", "Alt-Svc", "Proxy-Authenticate"):
        assert name not in answer.headers


# APIs that are not there, or whose answers are none.


async def test_an_api_that_is_not_there_is_502(a: Attached) -> None:
    a.always(apis=[a.describe(base_url="https://localhost:1")])
    answer = await a.call()
    assert (answer.status, answer.error) == (502, "bad_gateway")
    assert a.counted("bad_gateway") == 1


async def test_an_api_with_another_certificate_is_not_called(a: Attached) -> None:
    other = CertificateAuthority.create("others").certificate_pem.decode()
    a.always(apis=[a.describe(ca=other)])
    answer = await a.call()
    assert (answer.status, answer.error) == (502, "bad_gateway")
    assert not a.api.called


async def test_without_a_ca_of_its_own_an_api_is_held_to_those_of_the_system(a: Attached) -> None:
    """The API's CA is none of the system's, so its answer must not be taken."""
    described = a.describe()
    del described["ca"]
    a.always(apis=[described])
    answer = await a.call()
    assert (answer.status, answer.error) == (502, "bad_gateway")
    assert not a.api.called


async def test_a_kept_connection_that_was_closed_costs_no_call_that_may_be_repeated(
    a: Attached,
) -> None:
    closing = False

    async def once(request: web.BaseRequest, called: Called) -> web.StreamResponse:
        nonlocal closing
        if closing:
            closing = False
            assert request.transport is not None
            request.transport.abort()
        return web.Response(body=called.body or PAGE)

    a.api.handle = once
    await a.call()
    closing = True
    assert (await a.call()).status == 200
    assert len(a.api.called) == 3
    closing = True
    assert (await a.call("/repos", "POST", data=b"x")).error == "bad_gateway"
    assert len(a.api.called) == 4


MALFORMED = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "no framing": b"HTTP/1.1 200 OK\r\n\r\nabc",
    "a bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nab",
    "nothing": b"",
    "no HTTP": b"220 mail.example ESMTP\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "a short body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    "another protocol": b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_answer_is_502_and_not_passed_on(a: Attached, name: str) -> None:
    async def malformed(request: web.BaseRequest, _: Called) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(MALFORMED[name])
        request.transport.close()
        await asyncio.Event().wait()
        return web.Response()

    a.api.handle = malformed
    answer = await a.call()
    assert (answer.status, answer.error) == (502, "bad_gateway")
    assert b"abc" not in answer.raw


async def test_an_answer_that_breaks_off_is_never_whole(a: Attached) -> None:
    async def broken(request: web.BaseRequest, _: Called) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        request.transport.close()
        await asyncio.Event().wait()
        return web.Response()

    a.api.handle = broken
    with pytest.raises(aiohttp.ClientError):
        await a.call()


async def test_a_silent_api_is_504(
    tmp_path: Path, authorities: Authorities, api_authority: CertificateAuthority
) -> None:
    async def silent(_: web.BaseRequest, __: Called) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    timeouts = DEFAULT._replace(api_head=0.05)
    async with attached(tmp_path, authorities, api_authority, timeouts) as a:
        a.api.handle = silent
        answer = await a.call()
        assert (answer.status, answer.error) == (504, "gateway_timeout")


async def test_an_encoded_answer_cannot_be_searched_and_is_not_passed_on(a: Attached) -> None:
    async def encoded(_: web.BaseRequest, __: Called) -> web.StreamResponse:
        return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    a.api.handle = encoded
    answer = await a.call(headers={"Accept-Encoding": "gzip"})
    assert (answer.status, answer.error) == (502, "bad_gateway")
    a.r.clock.now += 61
    a.always(apis=[a.describe(search_answers=False, link_members=[])])
    raw = (
        f"GET /upstream/github/repos HTTP/1.1\r\nHost: 127.0.0.1:{a.r.port}\r\n"
        f"Accept-Encoding: gzip\r\nAuthorization: Bearer {JWT}\r\nConnection: close\r\n\r\n"
    )
    assert (await a.send(raw.encode())).endswith(b"\r\n\r\n\x1f\x8b")
    assert a.api.called[-1].values("accept-encoding") == ["gzip"]


async def test_calls_go_through_the_proxy_that_the_operator_names(
    tmp_path: Path, authorities: Authorities, api_authority: CertificateAuthority
) -> None:
    asked = list[bytes]()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    async with attached(tmp_path, authorities, api_authority, API_PROXY=address) as a:
        assert (await a.call()).error == "bad_gateway"
        assert not a.api.called
        assert asked[0].startswith(f"CONNECT localhost:{a.api.port} HTTP/1.1\r\n".encode())
        assert TOKEN.encode() not in asked[0]
    server.close()
    await server.wait_closed()


# Secrets.


async def test_the_token_is_in_no_log_metric_error_or_answer(
    a: Attached, caplog: pytest.LogCaptureFixture
) -> None:
    from chassis.metrics_text import render

    async def unlike(_: web.BaseRequest, called: Called) -> web.StreamResponse:
        status = int(called.target.rpartition("/")[2])
        return web.json_response({"a": "b"}, status=status, headers={"WWW-Authenticate": "Bearer"})

    a.api.handle = unlike
    seen = list[bytes]()
    with caplog.at_level(logging.DEBUG):
        for status in (200, 401, 404, 500):
            answer = await a.call(f"/repos/{status}?access_token=canary-secret")
            seen += [answer.raw, str(answer.headers).encode()]
        seen.append((await a.call("/admin")).raw)
        a.api.tokens.clear()
        seen.append((await a.call("/repos/200")).raw)
        a.r.authserver.then(lambda: refuse(400, "invalid_grant"))
        seen.append((await a.call(jwt=OTHER_JWT)).raw)
    seen.append(render(a.r.sidecar.registry))
    seen += [str(vars(record)).encode() for record in caplog.records]
    assert caplog.records
    for secret in (TOKEN, JWT, OTHER_JWT, "canary-secret"):
        assert not [text for text in seen if secret.encode() in text]


async def test_what_is_printed_of_a_call_holds_no_secret(a: Attached) -> None:
    await a.call("/repos?q=canary-secret")
    (connection,) = a.r.sidecar.local.connections
    shown = repr(connection.peer) + repr(connection.peer.verdict)
    shown += repr(connection.peer.verdict.call) + repr(connection.peer.verdict.call.prepared)
    assert "github" in shown
    for secret in (TOKEN, JWT, "canary-secret"):
        assert secret not in shown


async def test_what_would_be_read_otherwise_is_not_sent_even_if_it_was_let_in(a: Attached) -> None:
    """Our server lets no such target in; the door does not rely on that."""
    await a.call("/repos?q=1")
    (connection,) = a.r.sidecar.local.connections
    call = connection.peer.verdict.call
    refused = prepare(replace(call, query="q=1 HTTP/1.1\r\nX: 1"), call.prepared.token)
    assert isinstance(refused, ApiError)
    assert (refused.error, refused.reason) == ("destination_not_allowed", "cannot_be_sent")


async def test_the_door_is_made_with_its_first_call(a: Attached) -> None:
    made = [a.r.sidecar.api.attach is not None]
    await a.r.ask()
    made.append(a.r.sidecar.api.attach is not None)
    await a.call()
    made.append(a.r.sidecar.api.attach is not None)
    await a.r.sidecar.tick()
    assert made == [False, False, True]
