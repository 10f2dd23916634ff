"""An API's 401 is a hint: at most one renewal a minute, and the call once more where it may be."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.fakes.authserver import answering, held_until, refuse
from tests.sidecar.attach.harness import PAGE, TOKEN, Attached, Called
from tests.sidecar.harness import JWT, OTHER_JWT

NEW = "canary-renewed"


def rejected(a: Attached) -> int:
    """How many exchanges said that the API refused the token."""
    return sum("rejected_token_sha256" in one.form for one in a.r.authserver.received)


@pytest.mark.parametrize("body", [b"", b"x", b"y" * 65_536])
async def test_a_refused_token_is_renewed_once_and_the_call_repeated(
    a: Attached, body: bytes
) -> None:
    a.api.tokens = {NEW}
    a.r.authserver.then(a.release(), a.release(NEW))
    answer = await a.call("/repos", "POST" if body else "GET", data=body or None)
    assert (answer.status, answer.raw) == (200, PAGE)
    assert [called.values("authorization") for called in a.api.called] == [
        [f"Bearer {TOKEN}"], [f"Bearer {NEW}"],
    ]  # fmt: skip
    assert [called.body for called in a.api.called] == [body, body]
    assert rejected(a) == 1
    assert (await a.call()).status == 200
    assert len(a.r.authserver.received) == 2


async def test_a_longer_body_is_not_sent_twice_but_the_token_is_renewed(a: Attached) -> None:
    a.api.tokens = {NEW}
    a.r.authserver.then(a.release(), a.release(NEW))
    answer = await a.call("/repos", "POST", data=b"y" * 65_537)
    assert (answer.status, answer.json) == (401, {"message": "Bad credentials"})
    assert answer.headers["X-Tokenward-Action"] == "retry"
    assert "WWW-Authenticate" not in answer.headers
    assert answer.error is None
    await a.r.until(lambda: rejected(a) == 1)
    await a.r.until(lambda: a.r.metric("tokenward_sidecar_cache_entries") == 1)
    assert (await a.call("/repos", "POST", data=b"y" * 65_537)).status == 200


async def test_an_api_that_refuses_every_token_costs_one_renewal_a_minute(a: Attached) -> None:
    """One path may want another kind of credential; that must not end the connection."""
    a.api.tokens = set()
    a.always(NEW)
    a.r.authserver.then(a.release())
    for _ in range(5):
        answer = await a.call()
        assert (answer.status, answer.headers["X-Tokenward-Action"]) == (401, "retry")
    assert rejected(a) == 1
    assert len(a.api.called) == 6
    a.r.clock.now += 59
    await a.call()
    assert rejected(a) == 1
    a.r.clock.now += 2
    await a.call()
    assert rejected(a) == 2


async def test_a_token_that_cannot_be_renewed_is_not_asked_for_again(a: Attached) -> None:
    a.api.tokens = set()
    for _ in range(3):
        answer = await a.call()
        assert (answer.status, answer.json) == (401, {"message": "Bad credentials"})
    assert rejected(a) == 1
    assert len(a.api.called) == 3


async def test_all_sessions_of_a_connection_share_one_renewal(a: Attached) -> None:
    """Two JWTs that get the same upstream token are one connection."""
    a.api.tokens = set()
    for jwt in (JWT, OTHER_JWT, JWT, OTHER_JWT):
        assert (await a.call(jwt=jwt)).status == 401
    assert rejected(a) == 1


async def test_calls_that_meet_the_same_refusal_wait_for_one_renewal(a: Attached) -> None:
    a.api.tokens = {NEW}
    release = asyncio.Event()
    a.r.authserver.then(a.release())
    a.r.authserver.then_slowly(held_until(release, a.release(NEW)))
    calls = [asyncio.create_task(a.call(f"/repos/{number}")) for number in range(5)]
    await a.r.until(lambda: len(a.api.called) == 5 and rejected(a) == 1)
    release.set()
    assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
    assert rejected(a) == 1


async def test_a_call_that_comes_late_takes_the_token_that_is_there_by_then(a: Attached) -> None:
    """Its own token was refused, but another call has renewed it meanwhile."""
    go_on, first = asyncio.Event(), True

    async def slow(_: web.BaseRequest, __: Called) -> web.StreamResponse:
        nonlocal first
        if first:
            first = False
            await go_on.wait()
            return web.Response(status=401)
        return web.Response(body=PAGE)

    a.api.handle = slow
    a.r.authserver.then(a.release())
    late = asyncio.create_task(a.call("/repos/late"))
    await a.r.until(lambda: len(a.api.called) == 1)
    a.api.tokens = {NEW}
    a.always(NEW)
    assert (await a.call()).status == 200
    a.api.tokens.add(TOKEN)
    go_on.set()
    assert (await late).status == 200
    assert a.api.called[-1].values("authorization") == [f"Bearer {NEW}"]
    assert rejected(a) == 1


async def test_the_authservers_verdict_is_the_users_answer(a: Attached) -> None:
    a.api.tokens = set()
    a.r.authserver.then(a.release(), lambda: refuse(400, "invalid_grant"))
    answer = await a.call()
    assert (answer.status, answer.error) == (401, "reauthentication_required")
    assert answer.json["action"] == "reauthenticate"
    assert "resource_metadata=" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("status", [429, 503])
async def test_an_authserver_that_cannot_say_leaves_the_apis_answer(
    a: Attached, status: int
) -> None:
    a.api.tokens = set()
    a.r.authserver.then(a.release())
    a.r.authserver.always(answering(lambda: refuse(status, "temporarily_unavailable")))
    answer = await a.call()
    assert (answer.status, answer.json) == (401, {"message": "Bad credentials"})
    assert answer.headers["X-Tokenward-Action"] == "retry"


async def test_other_refusals_renew_nothing(a: Attached) -> None:
    async def forbidden(_: web.BaseRequest, __: Called) -> web.StreamResponse:
        return web.Response(status=403, headers={"WWW-Authenticate": "Bearer"})

    a.api.handle = forbidden
    answer = await a.call()
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (403, "Bearer")
    assert "X-Tokenward-Action" not in answer.headers
    assert rejected(a) == 0


async def test_a_policy_that_changed_with_the_token_holds_for_the_repeated_call(
    a: Attached,
) -> None:
    a.api.tokens = {NEW}
    narrower = [a.describe(path_prefixes=["/user"])]
    a.r.authserver.then(a.release(), a.release(NEW, apis=narrower))
    assert (await a.call()).error == "destination_not_allowed"
    assert len(a.api.called) == 1


async def test_a_streamed_body_is_not_repeated(a: Attached) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 70_000
        yield b"y"

    a.api.tokens = {NEW}
    a.r.authserver.then(a.release(), a.release(NEW))
    answer = await a.call("/repos", "POST", data=pieces())
    assert (answer.status, answer.headers["X-Tokenward-Action"]) == (401, "retry")
    assert len(a.api.called) == 1
