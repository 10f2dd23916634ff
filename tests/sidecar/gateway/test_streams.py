"""Bodies of any size both ways, streams of events, and when a stream ends (amendments 16, 27)."""

import asyncio
import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from chassis.clock import wall
from sidecar.errors import REAUTHENTICATION_REQUIRED, TEMPORARILY_UNAVAILABLE, ApiError
from sidecar.gateway.open_paths import MAX_OPEN_CALLS
from sidecar.gateway.streams import MAX_PER_POD, MAX_PER_USER, Stream, Streams
from sidecar.identity import Identity
from tests.fakes.authserver import answering, refuse
from tests.fakes.clock import ManualClock
from tests.sidecar.gateway.app import Seen, Writer, response
from tests.sidecar.gateway.harness import Gated, by_user, gated, users
from tests.sidecar.harness import JWT, Authorities, Reply

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MEGABYTE = bytes(range(256)) * 4096


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Feed:
    """An app's stream that a test feeds."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.begun = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, seen: Seen, writer: Writer) -> bool:
        writer.write(EVENTS)
        self.begun.set()
        try:
            while (piece := await self.pieces.get()) is not None:
                writer.write(chunk(piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        finally:
            self.gone.set()


def expiring(seconds: float, user: str = "alice") -> str:
    """A JWT that ends so many seconds from now, by everybody's clock."""
    claims = json.dumps({"sub": user, "exp": wall() + seconds})
    return f"e30.{urlsafe_b64encode(claims.encode()).decode().rstrip('=')}.c2ln"


@asynccontextmanager
async def streaming(g: Gated, feed: Feed, jwt: str = JWT) -> AsyncIterator[aiohttp.ClientResponse]:
    g.app.then = [feed]
    headers = {"Authorization": f"Bearer {jwt}", "Accept": "text/event-stream"}
    async with g.http.get(g.url("/mcp"), headers=headers) as stream:
        yield stream


# Bodies.


@pytest.mark.timeout(300)
async def test_fifty_megabytes_go_each_way(g: Gated) -> None:
    async def large(seen: Seen, writer: Writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(50):
            writer.write(chunk(MEGABYTE))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        return True

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield MEGABYTE

    expected = hashlib.sha256(MEGABYTE * 50).digest()
    reply = await g.call(data=pieces())
    assert reply.status == 200
    assert g.app.last.get("transfer-encoding") == "chunked"
    assert hashlib.sha256(g.app.last.body).digest() == expected
    g.app.then = [large]
    reply = await g.call(method="GET")
    assert hashlib.sha256(reply.raw).digest() == expected


async def test_a_length_stays_a_length(g: Gated) -> None:
    await g.call(data=MEGABYTE)
    assert g.app.last.get("content-length") == str(len(MEGABYTE))
    g.app.usual = response(200, MEGABYTE)
    reply = await g.call(method="GET")
    assert reply.headers["Content-Length"] == str(len(MEGABYTE))
    assert reply.raw == MEGABYTE


async def test_a_client_that_does_not_read_holds_the_app_back(g: Gated) -> None:
    sent = 0

    async def endless(seen: Seen, writer: Writer) -> bool:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(chunk(MEGABYTE))
            await writer.drain()
            sent += 1

    g.app.then = [endless]
    reader, writer = await asyncio.open_connection("127.0.0.1", g.port, limit=1024)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % JWT.encode())
    await reader.readuntil(b"\r\n\r\n")
    before = -1
    while sent != before:  # the buffers between fill up, and then nothing moves
        before = sent
        await asyncio.sleep(0.3)
    assert sent < 64
    writer.transport.abort()
    await g.inner.until(lambda: g.app.open_connections == 0)


async def test_an_answer_that_comes_before_the_body_is_whole_goes_on(g: Gated) -> None:
    async def early(seen: Seen, writer: Writer) -> bool:
        writer.write(response(413, b"too large", "Connection: close"))
        await writer.drain()
        return False

    g.app.then = [early]
    reader, writer = await asyncio.open_connection("127.0.0.1", g.port)
    writer.write(
        b"POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nContent-Length: 100000\r\n\r\nx"
        % JWT.encode()
    )
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in answer
    writer.close()


@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\nab"])
async def test_a_body_that_breaks_off_reaches_the_app_as_no_whole_request(
    g: Gated, rest: bytes
) -> None:
    raw = await g.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n%b" % (JWT.encode(), rest)
    )
    assert raw.startswith(b"HTTP/1.1 400 ")
    await g.inner.until(lambda: g.app.open_connections == 0)
    assert not any(bytes(one).endswith(b"0\r\n\r\n") for one in g.app.received)


# Events.


async def test_an_event_goes_on_when_it_comes(g: Gated) -> None:
    feed = Feed()
    async with streaming(g, feed) as stream:
        for number in range(3):
            event = b"id: %d\ndata: x\n\n" % number
            feed.pieces.put_nowait(event)
            assert await stream.content.readexactly(len(event)) == event
        feed.pieces.put_nowait(None)
        assert await stream.read() == b""
    assert len(g.inner.sidecar.gateway.streams) == 0  # type: ignore[union-attr]


async def test_a_client_that_goes_away_ends_the_apps_stream(g: Gated) -> None:
    feed = Feed()
    async with streaming(g, feed) as stream:
        feed.pieces.put_nowait(b"data: x\n\n")
        await stream.content.readany()
    feed.pieces.put_nowait(b"data: y\n\n")
    await g.inner.until(lambda: len(g.parts.streams) == 0)


async def test_a_call_whose_client_went_away_is_given_up(g: Gated) -> None:
    waiting = asyncio.Event()

    async def slow(seen: Seen, writer: Writer) -> bool:
        waiting.set()
        await asyncio.sleep(3600)
        return False

    g.app.then = [slow]
    _, writer = await asyncio.open_connection("127.0.0.1", g.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % JWT.encode())
    await waiting.wait()
    writer.transport.abort()
    await g.inner.until(lambda: len(g.parts.streams) == 0)


async def test_two_hundred_streams_at_once(tmp_path: Path, authorities: Authorities) -> None:
    async with gated(tmp_path, authorities) as g, AsyncExitStack() as open_streams:
        g.authserver.always(by_user)
        jwts = list(users("a", "b", "c", "d").values())
        feeds, streams = [], []
        for number in range(200):
            feed = Feed()
            opening = streaming(g, feed, jwts[number % 4])
            streams.append(await open_streams.enter_async_context(opening))
            feeds.append(feed)
        for number, feed in enumerate(feeds):
            feed.pieces.put_nowait(b"data: %03d\n\n" % number)
        for number, stream in enumerate(streams):
            assert await stream.content.readexactly(11) == b"data: %03d\n\n" % number
        assert len(g.parts.streams) == 200
        for feed in feeds:
            feed.pieces.put_nowait(None)
        for stream in streams:
            assert await stream.read() == b""
        assert len(g.parts.streams) == 0


# Limits.


async def test_one_user_has_64_streams_and_takes_nothing_from_others(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities) as g, AsyncExitStack() as open_streams:
        g.authserver.always(by_user)
        jwt = users("alice", "bob")
        feeds = [Feed() for _ in range(MAX_PER_USER)]
        for feed in feeds:
            await open_streams.enter_async_context(streaming(g, feed, jwt["alice"]))
        reply = await g.call(jwt=jwt["alice"])
        assert (reply.status, reply.json["error"]) == (429, "rate_limited")
        assert reply.headers["Retry-After"]
        assert (await g.call(jwt=jwt["bob"])).status == 200
        for feed in feeds:
            feed.pieces.put_nowait(None)
        await g.inner.until(lambda: len(g.parts.streams) == 0)
        assert (await g.call(jwt=jwt["alice"])).status == 200


async def test_strangers_have_64_requests_of_open_paths_and_take_nothing_from_users(
    tmp_path: Path, authorities: Authorities
) -> None:
    go_on = asyncio.Event()

    async def later(seen: Seen, writer: Writer) -> bool:
        await go_on.wait()
        writer.write(response())
        return True

    async with gated(tmp_path, authorities, {"GATEWAY_OPEN_PATHS": "/healthz"}) as g:

        async def healthz() -> Reply:
            return await g.call("/healthz", method="GET", jwt=None)

        g.app.then = [later] * MAX_OPEN_CALLS
        waiting = [asyncio.create_task(healthz()) for _ in range(MAX_OPEN_CALLS)]
        await g.inner.until(lambda: len(g.app.requests) == MAX_OPEN_CALLS)
        reply = await healthz()
        assert (reply.status, reply.json["error"]) == (503, "temporarily_unavailable")
        assert (await g.call()).status == 200
        go_on.set()
        assert {one.status for one in await asyncio.gather(*waiting)} == {200}
        assert (await healthz()).status == 200


def test_a_pod_has_1024_streams() -> None:
    streams, _ = made()
    opened = [streams.open(Identity(f"u{at % 32}", "c"), JWT) for at in range(MAX_PER_POD)]
    assert all(isinstance(one, Stream) for one in opened)
    refused = streams.open(Identity("other", "c"), JWT)
    assert isinstance(refused, ApiError)
    assert (refused.status, refused.reason) == (503, "streams_of_pod")
    assert isinstance(opened[0], Stream)
    streams.close(opened[0])
    streams.close(opened[0])
    assert len(streams) == MAX_PER_POD - 1
    assert isinstance(streams.open(Identity("other", "c"), JWT), Stream)


async def test_half_of_the_exchanges_are_kept_for_jwts_accepted_before(
    tmp_path: Path, authorities: Authorities
) -> None:
    """Strangers can fill one half. Both are small here."""
    async with gated(tmp_path, authorities) as g:
        broker = g.inner.sidecar.broker
        broker._max_flights = 4
        assert (await g.call()).status == 200
        g.inner.clock.now += 61  # it has to be exchanged again
        released = asyncio.Event()

        async def later(_: object) -> aiohttp.web.StreamResponse:
            from tests.fakes.authserver import release

            await released.wait()
            return release()

        g.authserver.always(later)
        strangers = [asyncio.create_task(g.call(jwt=f"{JWT}{at}")) for at in range(2)]
        await g.authserver.until_received(3)
        assert (await g.call(jwt=f"{JWT}z")).status == 503
        known = asyncio.create_task(g.call())
        await g.authserver.until_received(4)
        released.set()
        assert (await known).status == 200
        await asyncio.gather(*strangers)


# Ends.


async def test_streams_end_when_their_session_or_connection_does(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities) as g:
        g.authserver.always(by_user)
        jwt = users("alice", "bob")
        alice, bob = Feed(), Feed()
        async with streaming(g, alice, jwt["alice"]) as one, streaming(g, bob, jwt["bob"]) as other:
            alice.pieces.put_nowait(b"data: x\n\n")
            await one.content.readany()
            assert g.parts.streams.ended(frozenset({"alice-session"})) == 1
            assert await one.read() == b""  # between two events: a proper end
            assert g.parts.streams.ended(frozenset({"alice-session"})) == 0
            bob.pieces.put_nowait(b"data: half of")
            await other.content.readany()
            assert g.parts.streams.ended(frozenset({"bob-connection"})) == 1
            with pytest.raises(aiohttp.ClientPayloadError):
                await other.read()


async def test_a_call_without_an_answer_ends_with_its_session(g: Gated) -> None:
    waiting = asyncio.Event()

    async def never(seen: Seen, writer: Writer) -> bool:
        waiting.set()
        await asyncio.sleep(3600)
        return False

    g.app.then = [never]
    call = asyncio.create_task(g.call())
    await waiting.wait()
    assert g.parts.streams.ended(frozenset({"session-1"})) == 1
    reply = await call
    assert reply.status == 401
    assert "WWW-Authenticate" in reply.headers
    assert len(g.parts.streams) == 0


async def test_a_revocation_that_the_feed_announces_ends_a_stream(g: Gated) -> None:
    feed = Feed()
    async with streaming(g, feed, expiring(900)) as stream:
        feed.pieces.put_nowait(b"data: x\n\n")
        assert await stream.content.readany()
        ended = {"ended": [{"id": "1", "handle": "session-1"}], "cursor": "c1"}
        g.authserver.then(lambda: web.json_response(ended))
        await g.inner.sidecar.revocations.poll()
        assert await stream.read() == b""
    assert len(g.parts.streams) == 0


async def test_where_endings_may_have_been_missed_every_stream_is_looked_at_within_ten_seconds(
    g: Gated,
) -> None:
    feed = Feed()
    async with streaming(g, feed, expiring(900)):
        gap = {"ended": [], "cursor": "c1", "gap": True}
        g.authserver.then(lambda: web.json_response(gap))
        await g.inner.sidecar.revocations.poll()
        g.authserver.always(answering(lambda: refuse(400, "invalid_grant")))
        before = len(g.authserver.received)
        g.inner.clock.now += 10
        g.parts.tick()
        await g.authserver.until_received(before + 1)
        await g.inner.until(lambda: len(g.parts.streams) == 0)


async def test_a_stream_is_looked_at_again_every_half_minute(g: Gated) -> None:
    feed = Feed()
    async with streaming(g, feed, expiring(900)) as stream:
        for seconds, exchanges in ((29, 1), (1, 2), (29, 2), (1, 3)):
            g.inner.clock.now += seconds
            g.parts.tick()
            await g.authserver.until_received(exchanges)
            await g.inner.until(lambda: not g.parts.streams._looks)
        assert len(g.authserver.received) == 3
        g.authserver.always(answering(lambda: refuse(503, "x")))
        g.inner.clock.now += 30
        g.parts.tick()
        await g.authserver.until_received(4)  # and retried: an outage ends nothing
        await g.inner.until(lambda: not g.parts.streams._looks)
        feed.pieces.put_nowait(b"data: x\n\n")
        assert await stream.content.readexactly(9)
        g.authserver.always(answering(lambda: refuse(400, "invalid_grant")))
        g.inner.clock.now += 30
        g.parts.tick()
        assert await stream.read() == b""


def made(**options: object) -> tuple[Streams, ManualClock]:
    clock = ManualClock()

    async def look(_: str) -> object:
        return None

    settings = {"now": clock, "times": lambda: (clock.now,), "stream_max": 3600.0} | options
    return Streams(look, **settings), clock  # type: ignore[arg-type]


def jwt_ending_at(at: float) -> str:
    claims = urlsafe_b64encode(json.dumps({"exp": at}).encode()).decode().rstrip("=")
    return f"e30.{claims}.c2ln"


def opened(streams: Streams, jwt: str) -> tuple[Stream, list[str]]:
    stream = streams.open(Identity("alice", "c", "s", "k"), jwt)
    assert isinstance(stream, Stream)
    woken: list[str] = []
    stream.wake = lambda: woken.append(stream.reason)
    return stream, woken


def test_without_a_feed_a_stream_ends_with_its_jwt() -> None:
    streams, clock = made()
    _, woken = opened(streams, jwt_ending_at(clock.now + 20))
    clock.now += 19
    streams.tick()
    assert woken == []
    clock.now += 1
    streams.tick()
    assert woken == ["jwt_over"]


def test_with_a_feed_a_stream_outlives_its_jwt() -> None:
    heard: list[float] = []
    streams, clock = made(feed_heard=lambda: heard[-1] if heard else None)
    _, woken = opened(streams, jwt_ending_at(clock.now + 10))
    for _ in range(20):
        clock.now += 30
        heard.append(clock.now - 59)
        streams.tick()
    assert woken == []
    clock.now += 2  # silent for more than a minute now
    streams.tick()
    assert woken == ["jwt_over"]


def test_no_clock_that_can_be_believed_ends_no_stream() -> None:
    streams, clock = made(times=tuple)
    _, woken = opened(streams, jwt_ending_at(clock.now - 10))
    streams.tick()
    assert woken == []


async def test_a_stream_ends_after_its_longest_time_between_two_events() -> None:
    streams, clock = made(stream_max=100.0)
    stream, woken = opened(streams, JWT)
    stream.events = True
    stream.passed(b"data: x\n")
    clock.now += 101
    streams.tick()
    assert (woken, stream.reason) == ([], "stream_max")
    stream.passed(b"\n")
    assert stream.between_events  # whoever relays it ends it here
    stream.passed(b"data: never whole")
    clock.now += 31
    streams.tick()
    assert woken == ["stream_max"]


async def test_the_longest_time_ends_an_idle_stream_properly(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with gated(tmp_path, authorities, {"GATEWAY_STREAM_MAX": "60"}) as g:
        feed = Feed()
        async with streaming(g, feed) as stream:
            feed.pieces.put_nowait(b"data: x\n\n")
            await stream.content.readany()
            g.inner.clock.now += 61
            g.parts.tick()
            assert await stream.read() == b""


@pytest.mark.parametrize(
    ("outcome", "ends"),
    [
        (REAUTHENTICATION_REQUIRED, True), (TEMPORARILY_UNAVAILABLE, False), (None, False),
    ],
)  # fmt: skip
async def test_only_a_denial_ends_a_stream(outcome: ApiError | None, ends: bool) -> None:
    clock = ManualClock()
    looked: list[str] = []

    async def look(jwt: str) -> object:
        looked.append(jwt)
        return outcome

    streams = Streams(look, now=clock, times=lambda: (clock.now,), stream_max=3600)
    jwt = jwt_ending_at(clock.now + 900)
    one, other = opened(streams, jwt), opened(streams, jwt)
    clock.now += 30
    streams.tick()
    await asyncio.gather(*streams._looks)
    assert looked == [jwt]  # once for all its streams
    assert [woken for _, woken in (one, other)] == [["refused"] if ends else []] * 2


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_end_of_an_event_is_seen_however_it_is_cut(end: bytes, size: int) -> None:
    streams, _ = made()
    stream, _ = opened(streams, JWT)
    stream.events = True
    event = b"data: x" + end
    for at in range(0, len(event), size):
        stream.passed(event[at : at + size])
        assert stream.between_events == (at + size >= len(event))


def test_a_stream_that_is_over_leads_back_to_nothing() -> None:
    """What it would wake holds the stream: the two of them would wait for the collector."""
    streams, _ = made()
    stream, woken = opened(streams, JWT)
    streams.close(stream)
    stream.end("ended")
    assert not woken


async def test_draining_ends_streams(tmp_path: Path, authorities: Authorities) -> None:
    async with gated(tmp_path, authorities) as g:
        async with streaming(g, Feed()) as stream:
            await g.parts.server.shutdown(0.1)
            with pytest.raises(aiohttp.ClientPayloadError):
                await stream.read()
        assert len(g.parts.streams) == 0
