"""The Python middleware as an ASGI application, in front of a small server of the test's."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.sidecar import (
    CHALLENGE,
    CONNECT_URL,
    SIGN_IN_AGAIN,
    Asked,
    always,
    refusal,
    token_for,
)
from tests.integrations.asgi import JWT, Pod, Server, Tool, call
from tokenward_mcp import (
    NoCaller,
    SignInRequired,
    TemporarilyUnavailable,
    TokenError,
    TokenwardMiddleware,
    token,
    token_sync,
    with_token,
    with_token_sync,
)

WELL_KNOWN = "/.well-known/oauth-protected-resource"


async def _nothing() -> str:
    return "no token was wanted"


def protected(sidecar: Pod, tool: Tool = token, **options: Any) -> tuple[Any, Server]:
    server = Server(tool)
    return sidecar.protect(server, **options), server


async def test_a_tool_gets_its_callers_token_for_one_question(sidecar: Pod) -> None:
    app, _ = protected(sidecar)

    reply, _ = await call(app)

    assert (reply.status, reply.body) == (200, b"token-only")
    (asked,) = sidecar.asked
    assert asked.jwt == f"Bearer {JWT}"
    assert asked.body == {}
    names = {name.lower(): value for name, value in asked.headers}
    assert names["x-tokenward"] == "1"
    assert names["content-type"] == "application/json"
    assert not [n for n in names if n.startswith(("x-forwarded", "sec-fetch", "origin"))]


async def test_a_sign_in_that_is_needed_is_answered_before_the_server_sees_the_request(
    sidecar: Pod,
) -> None:
    sidecar.then(SIGN_IN_AGAIN)
    app, server = protected(sidecar)

    reply, reads = await call(app)

    assert reply.status == 401
    assert reply.values("www-authenticate") == [CHALLENGE]
    assert reply.values("cache-control") == ["no-store"]
    assert reply.json["error"] == "reauthentication_required"
    assert reply.json["request_id"] == "req-1"
    assert reply.json["connect_url"] == CONNECT_URL
    assert (server.requests, reads) == (0, 0)


async def test_a_401_always_carries_a_challenge(sidecar: Pod) -> None:
    sidecar.then(refusal(401, "invalid_token"))
    reply, _ = await call(protected(sidecar)[0])
    assert (reply.status, reply.values("www-authenticate")) == (401, ["Bearer"])


@pytest.mark.parametrize(
    ("status", "error", "headers"),
    [
        (403, "insufficient_scope", {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}),
        (403, "forbidden_caller", {}),
        (429, "rate_limited", {"Retry-After": "7"}),
        (503, "temporarily_unavailable", {"Retry-After": "2"}),
    ],
)
async def test_what_the_client_can_act_upon_is_relayed(
    sidecar: Pod, status: int, error: str, headers: dict[str, str]
) -> None:
    sidecar.then(refusal(status, error, **headers))
    app, server = protected(sidecar)

    reply, _ = await call(app)

    assert (reply.status, reply.json["error"], server.requests) == (status, error, 0)
    for name, value in headers.items():
        assert reply.values(name.lower()) == [value]


@pytest.mark.parametrize(("status", "error"), [(400, "invalid_request"), (404, "unknown_upstream")])
async def test_a_mistake_of_this_server_is_no_fault_of_the_client(
    sidecar: Pod, caplog: pytest.LogCaptureFixture, status: int, error: str
) -> None:
    sidecar.then(refusal(status, error))

    reply, _ = await call(protected(sidecar)[0])

    assert (reply.status, reply.json["error"]) == (500, error)
    assert [(r.levelno, "req-1" in r.getMessage()) for r in caplog.records] == [
        (logging.ERROR, True)
    ]


@pytest.mark.parametrize(
    "broken",
    [
        lambda: web.Response(text="<html>", content_type="text/html"),
        lambda: web.Response(status=401, text="not ours"),
        lambda: web.json_response({"access_token": "two words"}),
        lambda: web.json_response(["access_token"]),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        lambda: web.Response(status=500),
    ],
)
async def test_an_answer_that_is_not_the_sidecars_is_an_outage_not_a_sign_in(
    sidecar: Pod, broken: Callable[[], web.Response]
) -> None:
    sidecar.then(broken)
    reply, _ = await call(protected(sidecar)[0])
    assert (reply.status, reply.values("retry-after")) == (503, ["2"])


async def test_a_sidecar_that_is_away_is_an_outage(sidecar: Pod) -> None:
    app = sidecar.protect(Server(token), url="http://127.0.0.1:1")
    reply, _ = await call(app)
    assert (reply.status, reply.json["action"]) == (503, "retry")
    assert reply.values("retry-after") == ["2"]


UNASKED: dict[str, dict[str, Any]] = {
    "without a token": {"authorization": None},
    "with an API key": {"authorization": "Bearer sk-not-a-jwt"},
    "with a password": {"authorization": "Basic YTpi"},
    "opening a stream": {"method": "GET"},
    "ending a session": {"method": "DELETE"},
    "a browser's preflight": {"method": "OPTIONS"},
    "of the well-known paths": {"path": WELL_KNOWN},
}


@pytest.mark.parametrize("kind", UNASKED)
async def test_a_request_that_runs_no_tool_for_a_jwt_is_the_servers_own_business(
    sidecar: Pod, kind: str
) -> None:
    app, server = protected(sidecar, _nothing)
    reply, _ = await call(app, **UNASKED[kind])
    assert (reply.status, server.requests, sidecar.asked) == (200, 1, [])


@dataclass(frozen=True)
class User:
    is_authenticated: bool


@pytest.mark.parametrize(("found", "asked"), [(True, 1), (False, 0)])
async def test_an_authentication_middleware_in_front_has_the_first_word(
    sidecar: Pod, found: bool, asked: int
) -> None:
    app, server = protected(sidecar, _nothing)
    await call(app, user=User(found))
    assert (len(sidecar.asked), server.requests) == (asked, 1)


async def test_two_authorizations_are_refused_for_they_may_be_two_users(
    sidecar: Pod,
) -> None:
    app, server = protected(sidecar)
    reply, _ = await call(app, authorization=[f"Bearer {JWT}", "Bearer a.b.c"])
    assert (reply.status, reply.json["error"]) == (400, "invalid_request")
    assert (server.requests, sidecar.asked) == (0, [])


@pytest.mark.parametrize("authorization", [None, "Bearer sk-not-a-jwt", "Basic YTpi"])
async def test_where_a_jwt_is_required_the_sidecars_challenge_answers_requests_without(
    sidecar: Pod, authorization: str | None
) -> None:
    sidecar.then(refusal(401, "invalid_token", **{"WWW-Authenticate": CHALLENGE}))
    app, server = protected(sidecar, _nothing, require_jwt=True)

    reply, _ = await call(app, method="GET", authorization=authorization)

    assert (reply.status, reply.values("www-authenticate")) == (401, [CHALLENGE])
    assert server.requests == 0
    assert [asked.jwt for asked in sidecar.asked] == [None]


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_where_a_jwt_is_required_the_sidecar_judges_every_method(
    sidecar: Pod, method: str
) -> None:
    sidecar.always(always(refusal(401, "invalid_token")))
    app, server = protected(sidecar, _nothing, require_jwt=True)

    reply, _ = await call(app, method=method)

    assert (reply.status, server.requests) == (401, 0)
    assert (await call(app, method="OPTIONS", authorization=None))[0].status == 200


async def test_a_sidecar_that_gives_nobody_a_token_does_not_open_the_server(
    sidecar: Pod,
) -> None:
    """What listens at TOKENWARD_URL answers 200 without a JWT: it is no sidecar."""
    app, server = protected(sidecar, _nothing, require_jwt=True)
    reply, _ = await call(app, authorization=None)
    assert (reply.status, server.requests) == (503, 0)


@pytest.mark.parametrize(
    ("path", "root_path", "asked"),
    [
        ("/mcp", "", 1),
        ("/mcp/", "", 1),
        ("/healthz", "", 0),
        ("/mcp/more", "", 0),
        ("/tools/mcp", "/tools", 1),
        ("/toolsmcp", "/tools", 0),
    ],
)
async def test_paths_narrow_what_is_asked_about(
    sidecar: Pod, path: str, root_path: str, asked: int
) -> None:
    app, _ = protected(sidecar, _nothing, paths=["/mcp"])
    await call(app, path=path, root_path=root_path)
    assert len(sidecar.asked) == asked


async def test_a_resource_whose_tokens_are_not_handed_out_is_served_all_the_same(
    sidecar: Pod,
) -> None:
    sidecar.always(always(refusal(403, "attach_only")))

    async def tool() -> str:
        with pytest.raises(TokenError, match="attach_only"):
            await token()
        return "no code sees a token"

    reply, _ = await call(protected(sidecar, tool)[0])
    assert (reply.status, reply.body) == (200, b"no code sees a token")


async def test_a_batch_is_one_question_and_its_bytes_arrive_as_they_are(
    sidecar: Pod,
) -> None:
    batch = b'[{"jsonrpc": "2.0", "id": 1}, {"jsonrpc": "2.0", "id": 2}]'

    async def two() -> list[object]:
        return list(await asyncio.gather(token(), token()))

    app, server = protected(sidecar, two)
    reply, reads = await call(app, body=batch)

    assert reply.chunks[:2] == [b"token-only", b"token-only"]
    assert (len(sidecar.asked), server.bodies, reads) == (1, [batch], 1)


async def test_a_stream_passes_event_by_event(sidecar: Pod) -> None:
    seen: list[bytes] = []
    first_was_out = asyncio.Event()

    async def server(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await send({"type": "lifespan.shutdown.complete"})  # type: ignore[no-any-return]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await first_was_out.wait()
        await send({"type": "http.response.body", "body": b"data: 2\n\n"})

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            seen.append(message["body"])
            first_was_out.set()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/mcp",
        "headers": [(b"Authorization", f"bearer {JWT}".encode())],
    }
    await sidecar.protect(server)(scope, receive, send)
    assert seen == [b"data: 1\n\n", b"data: 2\n\n"]
    assert len(sidecar.asked) == 1


async def test_what_a_tool_asks_for_reaches_the_sidecar(sidecar: Pod) -> None:
    async def tool() -> list[object]:
        return [
            await token("slack"),
            await token("slack"),
            await token("slack", rejected_token="token-slack"),
            await token(),
        ]

    reply, _ = await call(protected(sidecar, tool, upstream="github")[0])

    assert reply.chunks[:4] == [b"token-slack", b"token-slack", b"token-renewed", b"token-github"]
    assert [asked.body for asked in sidecar.asked] == [
        {"upstream": "github"},
        {"upstream": "slack"},
        {"upstream": "slack", "rejected_token": "token-slack"},
    ]


@pytest.mark.parametrize(
    ("expires_in", "age", "min_ttl", "questions"),
    [
        (3600, 4.0, 0, 1),
        (3600, 6.0, 0, 2),  # the sidecar is the one that remembers
        (3, 4.0, 0, 2),
        (30, 1.0, 60, 2),
        (None, 1.0, 60, 1),
    ],
)
async def test_the_middlewares_answer_serves_the_tool_while_it_is_fresh(
    sidecar: Pod, expires_in: int | None, age: float, min_ttl: int, questions: int
) -> None:
    members = {"access_token": "t", "expires_in": expires_in}
    sidecar.always(
        always(lambda: web.json_response({k: v for k, v in members.items() if v is not None}))
    )
    seconds = [100.0]

    async def tool() -> str:
        seconds[0] += age
        return await token(min_ttl=min_ttl)

    await call(protected(sidecar, tool, now=lambda: seconds[0])[0])

    assert len(sidecar.asked) == questions
    assert sidecar.asked[-1].body == ({"min_ttl": 60} if questions == 2 and min_ttl else {})


@dataclass(frozen=True)
class ApiAnswer:
    status_code: int
    token: str


@pytest.mark.parametrize(("accepted", "calls"), [("token-only", 1), ("token-renewed", 2)])
async def test_a_token_that_the_api_refuses_is_replaced_once(
    sidecar: Pod, accepted: str, calls: int
) -> None:
    used: list[str] = []

    async def api(access_token: str) -> ApiAnswer:
        used.append(access_token)
        return ApiAnswer(200 if access_token == accepted else 401, access_token)

    async def tool() -> str:
        return (await with_token(api)).token

    reply, _ = await call(protected(sidecar, tool)[0])
    assert (reply.chunks[0].decode(), len(used)) == (accepted, calls)


async def test_an_api_that_refuses_the_fresh_token_too_is_not_asked_for_ever(
    sidecar: Pod,
) -> None:
    used: list[str] = []

    def api(access_token: str) -> ApiAnswer:
        used.append(access_token)
        return ApiAnswer(401, access_token)

    async def tool() -> int:
        return (await asyncio.to_thread(with_token_sync, api)).status_code

    reply, _ = await call(protected(sidecar, tool)[0])
    assert (reply.chunks[0], used) == (b"401", ["token-only", "token-renewed"])


async def test_a_refusal_in_the_middle_of_a_tool_says_everything(sidecar: Pod) -> None:
    async def tool() -> str:
        sidecar.then(SIGN_IN_AGAIN, refusal(503, "temporarily_unavailable", action="retry"))
        with pytest.raises(SignInRequired) as found:
            await token("slack")
        with pytest.raises(TemporarilyUnavailable) as later:
            await token("slack")
        assert later.value.action == "retry"
        error = found.value
        assert (error.error, error.action) == ("reauthentication_required", "reauthenticate")
        assert (error.request_id, error.connect_url) == ("req-1", CONNECT_URL)
        assert error.challenges == (CHALLENGE,)
        return str(error)

    reply, _ = await call(protected(sidecar, tool)[0])
    said = reply.chunks[0].decode()
    assert "words for reauthentication_required" in said
    assert "req-1" in said
    assert CONNECT_URL in said


async def test_tools_do_not_wait_for_each_others_questions(sidecar: Pod) -> None:
    """The sidecar answers nobody until five are waiting."""
    everybody = asyncio.Barrier(5)

    async def slowly(asked: Asked) -> web.StreamResponse:
        await everybody.wait()
        return web.json_response({"access_token": token_for(asked)})

    sidecar.always(slowly)
    app, _ = protected(sidecar)
    replies = await asyncio.gather(*(call(app) for _ in range(5)))
    assert [reply.status for reply, _ in replies] == [200] * 5


async def test_plain_functions_get_the_token_without_blocking_the_loop(
    sidecar: Pod,
) -> None:
    seconds = [0.0]

    async def tool() -> list[object]:
        at_hand = token_sync()
        seconds[0] += 60
        with pytest.raises(RuntimeError, match="block the event loop"):
            token_sync()
        return [at_hand, await asyncio.to_thread(token_sync, "slack")]

    reply, _ = await call(protected(sidecar, tool, now=lambda: seconds[0])[0])
    assert reply.chunks[:2] == [b"token-only", b"token-slack"]
    assert [asked.body for asked in sidecar.asked] == [{}, {"upstream": "slack"}]


async def test_outside_a_request_with_a_jwt_there_is_no_token(sidecar: Pod) -> None:
    async def tool() -> str:
        with pytest.raises(NoCaller, match="TokenwardMiddleware"):
            await token()
        return "none"

    with pytest.raises(NoCaller):
        await token()
    reply, _ = await call(protected(sidecar, tool)[0], authorization=None)
    assert reply.status == 200
    assert sidecar.asked == []


async def test_the_environments_proxies_never_see_the_jwt(
    sidecar: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    reply, _ = await call(protected(sidecar)[0])
    assert reply.status == 200


@pytest.mark.parametrize(
    "url", ["", "http://sidecar.example:15500", "https://127.0.0.1:15500", "http://127.0.0.1"]
)
def test_a_jwt_is_sent_to_loopback_and_nowhere_else(url: str) -> None:
    with pytest.raises(ValueError, match="TOKENWARD_URL"):
        TokenwardMiddleware(Server(token), url=url)


def test_a_pod_without_a_sidecar_is_told_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENWARD_URL", raising=False)
    with pytest.raises(ValueError, match=r"kubectl get pod -L tokenward\.dev/injected"):
        TokenwardMiddleware(Server(token))


async def test_the_url_of_the_environment_may_end_with_a_slash(
    sidecar: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENWARD_URL", f"{sidecar.url}/")
    reply, _ = await call(sidecar.protect(Server(token), url=None))
    assert reply.status == 200


@pytest.mark.parametrize("path", [WELL_KNOWN, f"{WELL_KNOWN}/mcp"])
async def test_the_metadata_is_the_sidecars_document(sidecar: Pod, path: str) -> None:
    app, server = protected(sidecar, _nothing, serve_metadata=True)

    reply, _ = await call(app, method="GET", path=path, authorization=None)

    assert (reply.status, reply.json) == (200, sidecar.document)
    assert reply.values("access-control-allow-origin") == ["*"]
    preflight, _ = await call(app, method="OPTIONS", path=path, authorization=None)
    assert (preflight.status, preflight.body) == (204, b"")
    assert server.requests == 0


@pytest.mark.parametrize(
    ("options", "method", "path"),
    [
        ({}, "GET", WELL_KNOWN),
        ({"serve_metadata": True}, "GET", f"{WELL_KNOWN}/other"),
        ({"serve_metadata": True}, "GET", f"{WELL_KNOWN}more"),
        ({"serve_metadata": True}, "POST", WELL_KNOWN),
    ],
)
async def test_other_metadata_is_the_servers_own(
    sidecar: Pod, options: dict[str, bool], method: str, path: str
) -> None:
    app, server = protected(sidecar, _nothing, **options)
    reply, _ = await call(app, method=method, path=path, authorization=None)
    assert (reply.status, server.requests) == (200, 1)


async def test_a_sidecar_without_a_resource_leaves_the_metadata_to_the_server(
    sidecar: Pod,
) -> None:
    sidecar.document = None
    app, server = protected(sidecar, _nothing, serve_metadata=True)
    await call(app, method="GET", path=WELL_KNOWN)
    assert server.requests == 1


async def test_metadata_that_cannot_be_had_is_an_outage(sidecar: Pod) -> None:
    sidecar.document = {"resource": None}
    app, server = protected(sidecar, _nothing, serve_metadata=True)
    reply, _ = await call(app, method="GET", path=WELL_KNOWN)
    assert (reply.status, server.requests) == (503, 0)


async def test_a_root_resource_has_one_path(sidecar: Pod) -> None:
    sidecar.document = {"resource": "https://notes.example/"}
    app, _ = protected(sidecar, _nothing, serve_metadata=True)
    reply, _ = await call(app, method="GET", path=WELL_KNOWN)
    assert (reply.status, reply.json) == (200, sidecar.document)


async def test_secrets_stand_in_no_log_and_no_repr(
    sidecar: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    kept: list[object] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        kept.extend(scope.values())
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.shutdown.complete"})

    app = sidecar.protect(server)
    await call(app)
    sidecar.then(SIGN_IN_AGAIN)
    await call(app)

    without_headers = [value for value in kept if not isinstance(value, list)]
    said = " ".join([repr(without_headers), *(record.getMessage() for record in caplog.records)])
    for secret in ("token-only", JWT, CONNECT_URL):
        assert secret not in said
    assert "reauthentication_required" in said


async def test_connections_to_the_sidecar_are_kept(sidecar: Pod) -> None:
    app, _ = protected(sidecar)
    for _ in range(3):
        await call(app)
    assert len({id(asked.connection) for asked in sidecar.asked}) == 1


async def test_connections_to_the_sidecar_end_with_the_server(sidecar: Pod) -> None:
    messages: list[str] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await token()

    async def note(message: dict[str, Any]) -> None:
        messages.append(message["type"])

    app = sidecar.protect(server)
    await call(app)
    await app({"type": "lifespan"}, note, note)
    assert messages == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    await call(app)  # and a server that is started again works
    assert [asked.body for asked in sidecar.asked] == [{}, {}]


def test_one_path_given_as_a_text_is_a_mistake() -> None:
    with pytest.raises(TypeError):
        TokenwardMiddleware(Server(token), url="http://127.0.0.1:1", paths="/mcp")
