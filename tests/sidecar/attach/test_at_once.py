"""Calls that are sent without a task: a warm door holds answers to what a cold one does."""

import asyncio

import pytest
from aiohttp import web

from tests.sidecar.attach.harness import TOKEN, Attached, Called


@pytest.fixture
async def warm(a: Attached) -> Attached:
    """The token is in memory, and a connection to the API is idle."""
    assert (await a.call("/repos")).status == 200
    a.api.called.clear()
    return a


async def hold(request: web.BaseRequest, called: Called) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


async def test_no_task_waits_for_the_api(warm: Attached) -> None:
    warm.api.handle = hold
    calling = asyncio.create_task(warm.call("/repos"))
    await warm.r.until(lambda: bool(warm.api.called))
    running = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
    assert "Connection._answer" not in running
    calling.cancel()


async def test_an_answer_with_the_token_is_refused(warm: Attached) -> None:
    async def echo(request: web.BaseRequest, called: Called) -> web.StreamResponse:
        return web.Response(text=f'{{"token": "{TOKEN}"}}', content_type="application/json")

    warm.api.handle = echo
    answer = await warm.call("/repos")
    assert (answer.status, answer.error) == (502, "token_in_response")
    assert TOKEN.encode() not in answer.raw


async def test_an_encoded_answer_that_cannot_be_searched_is_refused(warm: Attached) -> None:
    async def encoded(request: web.BaseRequest, called: Called) -> web.StreamResponse:
        return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    warm.api.handle = encoded
    assert (await warm.call("/repos")).error == "bad_gateway"


@pytest.mark.parametrize("path", ["/admin", "/repos/../admin", "/repos/%2e%2e/admin"])
async def test_what_is_outside_is_not_sent(warm: Attached, path: str) -> None:
    answer = await warm.call(path)
    assert (answer.status, answer.error) == (403, "destination_not_allowed")
    assert not warm.api.called


async def test_a_refused_token_is_renewed_once(warm: Attached) -> None:
    warm.api.tokens = {"renewed"}
    warm.always("renewed")
    assert (await warm.call("/repos")).status == 200
    assert [called.values("authorization") for called in warm.api.called] == [
        [f"Bearer {TOKEN}"], ["Bearer renewed"],
    ]  # fmt: skip


@pytest.mark.parametrize(("method", "status", "sent"), [("POST", 502, 1), ("GET", 200, 2)])
async def test_an_api_that_hangs_up_is_asked_again_only_where_that_is_harmless(
    warm: Attached, method: str, status: int, sent: int
) -> None:
    usual = warm.api.handle

    async def hang_up(request: web.BaseRequest, called: Called) -> web.StreamResponse:
        warm.api.handle = usual
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    warm.api.handle = hang_up
    assert (await warm.call("/repos", method=method)).status == status
    assert len(warm.api.called) == sent
