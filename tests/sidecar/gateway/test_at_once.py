"""Requests that are forwarded without a task: a warm gateway refuses what a cold one refuses."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.chassis.http1.harness import until, vanish
from tests.fakes.authserver import release
from tests.sidecar.gateway.app import Seen, Writer, response
from tests.sidecar.gateway.harness import Gated, by_user, gated, users
from tests.sidecar.harness import JWT, Authorities


@pytest.fixture
async def warm(tmp_path: Path, authorities: Authorities) -> AsyncIterator[Gated]:
    """The token is in memory, and a connection to the app is idle."""
    async with gated(tmp_path, authorities) as g:
        assert (await g.call()).status == 200
        g.app.requests.clear()
        yield g


class Silent:
    """An app that does not answer."""

    def __init__(self) -> None:
        self.asked, self.released = asyncio.Event(), asyncio.Event()

    async def __call__(self, seen: Seen, writer: Writer) -> bool:
        self.asked.set()
        await self.released.wait()
        return False


@pytest.fixture
def silent(warm: Gated) -> Iterator[Silent]:
    app = Silent()
    warm.app.then = [app]
    yield app
    app.released.set()


async def nothing_is_left(g: Gated) -> None:
    """Neither a stream that counts, nor a call of the app."""
    app = g.parts.app
    await until(lambda: app._slots._free == app.limits.connections and not len(g.parts.streams))


async def hang_up(seen: Seen, writer: Writer) -> bool:
    return False


def tasks() -> set[str]:
    return {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}


async def test_no_task_waits_for_the_app(warm: Gated, silent: Silent) -> None:
    calling = asyncio.create_task(warm.call(data=b"x"))
    await silent.asked.wait()
    assert "Connection._answer" not in tasks()
    assert len(warm.parts.streams) == 1
    calling.cancel()
    await nothing_is_left(warm)


async def test_a_session_that_nobody_was_given_is_not_forwarded(warm: Gated) -> None:
    reply = await warm.call(headers={"Mcp-Session-Id": "guessed"})
    assert (reply.status, reply.json["error"]) == (404, "unknown_session")
    assert not warm.app.requests
    assert len(warm.parts.streams) == 0


async def test_a_session_of_somebody_else_reaches_nobody(warm: Gated) -> None:
    warm.authserver.always(by_user)
    jwts = users("alice", "bob")
    warm.app.usual = response(200, b"ok", "Mcp-Session-Id: one")
    for _ in range(2):
        assert (await warm.call(jwt=jwts["alice"])).status == 200
    for _ in range(2):
        reply = await warm.call(jwt=jwts["bob"])
        assert (reply.status, reply.json["error"]) == (502, "session_conflict")
        assert "Mcp-Session-Id" not in reply.headers
    assert len(warm.parts.streams) == 0


@pytest.mark.parametrize(("method", "status", "sent"), [("POST", 502, 1), ("GET", 200, 2)])
async def test_an_app_that_hangs_up_is_asked_again_only_where_that_is_harmless(
    warm: Gated, method: str, status: int, sent: int
) -> None:
    warm.app.then = [hang_up]
    assert (await warm.call(method=method)).status == status
    assert len(warm.app.requests) == sent
    assert len(warm.parts.streams) == 0


async def test_a_malformed_response_is_502_and_not_relayed(warm: Gated) -> None:
    warm.app.then = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"]
    reply = await warm.call()
    assert (reply.status, reply.json["error"]) == (502, "bad_gateway")
    assert len(warm.parts.streams) == 0


async def test_a_response_in_two_parts_goes_out_whole(warm: Gated) -> None:
    async def slowly(seen: Seen, writer: Writer) -> bool:
        whole = response(200, b"abcd")
        writer.write(whole[:-2])
        await asyncio.sleep(0.02)
        writer.write(whole[-2:])
        return True

    warm.app.then = [slowly]
    reply = await warm.call(method="GET")
    assert (reply.status, reply.raw) == (200, b"abcd")
    assert len(warm.parts.streams) == 0


async def test_a_session_that_ends_meanwhile_is_401_and_the_app_is_left(
    warm: Gated, silent: Silent
) -> None:
    warm.authserver.always(by_user)
    jwt = users("alice")["alice"]
    warm.app.then = [response(), silent]
    assert (await warm.call(jwt=jwt)).status == 200
    calling = asyncio.create_task(warm.call(jwt=jwt))
    await silent.asked.wait()
    assert warm.parts.streams.ended(frozenset({"alice-session"})) == 1
    reply = await calling
    assert (reply.status, reply.json["error"]) == (401, "invalid_token")
    await nothing_is_left(warm)


async def test_a_client_that_goes_away_leaves_no_request_behind(
    warm: Gated, silent: Silent
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", warm.port)
    writer.write(f"GET /mcp HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {JWT}\r\n\r\n".encode())
    await silent.asked.wait()
    vanish(writer)
    await nothing_is_left(warm)


async def test_a_token_that_the_app_refuses_is_renewed(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities, {"GATEWAY_TOKEN": "upstream"}) as g:
        g.authserver.then(release, lambda: release(access_token="renewed"))
        assert (await g.call()).status == 200
        g.app.then = [response(401, b"")]
        assert (await g.call(data=b"x")).status == 200
        sent = [one.get("authorization") for one in g.app.requests]
        assert sent == ["Bearer upstream-token", "Bearer upstream-token", "Bearer renewed"]
        assert [one.body for one in g.app.requests] == [b"", b"x", b"x"]
