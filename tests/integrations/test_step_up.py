"""A tool in Python finds that a scope is missing: the MCP client gets the sidecar's challenge."""

import asyncio
from typing import Any

import pytest

from tests.fakes.sidecar import refusal
from tests.integrations.asgi import Pod, Server, call
from tokenward_mcp import InsufficientScope, token, token_sync

CHALLENGE = 'Bearer error="insufficient_scope", scope="mcp github/repo", resource_metadata="x"'
OTHER_JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJib2IifQ.c2lnbmF0dXJl"
MISSING = refusal(
    403,
    "insufficient_scope",
    action="reauthenticate",
    scope="mcp github/repo",
    **{"WWW-Authenticate": CHALLENGE},
)
DECLINED = refusal(403, "insufficient_scope")


async def in_own_words() -> object:
    """A tool that tells the model itself, as MCP servers do with every exception."""
    try:
        return await token(missing_scope="repo")
    except InsufficientScope as missing:
        return f"error: {missing.scope}"


def scopes_of(sidecar: Pod) -> list[Any]:
    return [asked.body.get("missing_scope") for asked in sidecar.asked]


async def test_the_client_is_challenged_in_place_of_the_tools_words(sidecar: Pod) -> None:
    app = sidecar.protect(Server(in_own_words))
    sidecar.then(refusal(403, "attach_only"), MISSING)
    reply, _ = await call(app)
    assert reply.status == 403
    assert reply.values("www-authenticate") == [CHALLENGE]
    assert reply.json["error"] == "insufficient_scope"
    assert reply.json["scope"] == "mcp github/repo"
    assert scopes_of(sidecar) == [None, "repo"]
    # Given once: a client that does not step up is not locked out.
    reply, _ = await call(app)
    assert (reply.status, reply.body) == (200, b"token-only")


async def test_what_is_granted_is_a_token_and_never_one_from_memory(sidecar: Pod) -> None:
    app = sidecar.protect(Server(in_own_words))
    assert (await call(app))[0].body == b"token-only"
    assert scopes_of(sidecar) == [None, "repo"]


async def test_after_a_no_the_tools_own_words_go_on(sidecar: Pod) -> None:
    app = sidecar.protect(Server(in_own_words))
    sidecar.then(refusal(403, "attach_only"), DECLINED)
    reply, _ = await call(app)
    assert (reply.status, reply.body) == (200, b"error: None")


async def begins_early(scope: Any, _: Any, send: Any) -> None:
    """A server whose answer has begun when its tool runs."""
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"progress ", "more_body": True})
    body = str(await in_own_words()).encode()
    await send({"type": "http.response.body", "body": body})


async def test_where_the_answer_has_begun_the_next_message_is_challenged(sidecar: Pod) -> None:
    app = sidecar.protect(begins_early)
    sidecar.then(refusal(403, "attach_only"), MISSING)
    reply, _ = await call(app)
    assert (reply.status, reply.body) == (200, b"progress error: mcp github/repo")
    # Not to a request that no client steps up for, and to nobody else.
    assert (await call(app, method="GET"))[0].status == 200
    assert (await call(app, authorization=f"Bearer {OTHER_JWT}"))[0].status == 200
    assert (await call(app))[0].status == 403
    assert (await call(app))[0].status == 200


async def test_a_challenge_is_forgotten_after_a_minute(sidecar: Pod) -> None:
    now = [100.0]
    app = sidecar.protect(begins_early, now=lambda: now[0])
    sidecar.then(refusal(403, "attach_only"), MISSING)
    assert (await call(app))[0].status == 200
    now[0] += 61
    assert (await call(app))[0].status == 200


async def test_a_plain_function_is_heard_too(sidecar: Pod) -> None:
    async def tool() -> object:
        def plain() -> str:
            with pytest.raises(InsufficientScope):
                token_sync(missing_scope="repo")
            return "done"

        return await asyncio.to_thread(plain)

    app = sidecar.protect(Server(tool))
    sidecar.then(refusal(403, "attach_only"), MISSING)
    assert (await call(app))[0].status == 403


async def test_a_refusal_before_the_tool_is_given_once(sidecar: Pod) -> None:
    """The resource requires a scope that the JWT does not have."""
    app = sidecar.protect(Server(in_own_words))
    sidecar.then(MISSING)
    assert (await call(app))[0].status == 403
    assert (await call(app))[0].status == 200
