"""How long and for how many: deadlines, limits, half-closed peers, lingering, draining."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from chassis.http1.limits import ConnectionCount, Limits
from chassis.http1.request import Request
from chassis.http1.response import Response, StreamResponse
from chassis.http1.server import Server
from tests.chassis.http1.harness import (
    OK,
    Failures,
    Wire,
    answer_of,
    connected,
    echo,
    echo_at_once,
    exchange,
    listening,
    make,
    seen,
    statuses,
    until,
    vanish,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LONG = 3600.0


# Deadlines. What is to end has a few milliseconds, everything else an hour.


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: a"])
async def test_a_head_that_never_ends_is_cut_off_without_a_word(sent: bytes) -> None:
    server = make(limits={"head_seconds": 0.02, "idle_seconds": LONG})
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(sent)
        with contextlib.suppress(ConnectionError):  # what came too late resets the connection
            assert await reader.read() == b""
        await until(lambda: not server.connections)


async def test_a_later_head_has_the_same_deadline() -> None:
    wire = Wire(make(limits={"head_seconds": 0.02, "idle_seconds": LONG}))
    assert statuses(await wire.send(GET + b"GET /")) == [200]
    await until(lambda: wire.transport.closed)


async def test_a_head_that_drips_has_no_more_time() -> None:
    wire = Wire(make(limits={"head_seconds": 0.05, "idle_seconds": LONG}))
    await wire.send(GET + b"GET /")
    while not wire.transport.closed:
        wire.connection.data_received(b"x")
        await asyncio.sleep(0.002)
    assert statuses(bytes(wire.transport.written)) == [200]


async def test_an_idle_connection_ends_after_its_time() -> None:
    server = make(limits={"head_seconds": LONG, "idle_seconds": 0.02})
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(GET)
        assert statuses(await reader.read()) == [200]


async def test_an_idle_connection_has_its_time() -> None:
    wire = Wire(make(limits={"head_seconds": 0.01, "idle_seconds": LONG}))
    for _ in range(3):
        await wire.send(GET)
        await _past(0.02)
    assert statuses(bytes(wire.transport.written)) == [200, 200, 200]
    assert not wire.transport.closed


async def test_a_request_in_progress_has_no_deadline_of_the_connection() -> None:
    go_on = asyncio.Event()

    async def handle(request: Request) -> Response:
        await go_on.wait()
        return seen(request, b"")

    wire = Wire(make(handle, limits={"head_seconds": 0.01, "idle_seconds": 0.01}))
    wire.connection.data_received(GET)
    await _past(0.03)
    assert not wire.transport.closed
    go_on.set()
    await wire.settle()
    assert statuses(bytes(wire.transport.written)) == [200]


async def _past(seconds: float) -> None:
    """Wait until timers of this length have fired."""
    fired = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, fired.set)
    await fired.wait()


@pytest.mark.parametrize("streams", [True, False])
async def test_a_peer_that_does_not_read_is_cut_off(streams: bool) -> None:
    piece, ended = b"x" * 1_000_000, asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield piece
        finally:
            ended.set()

    def handle(_: Request) -> Response | StreamResponse:
        return StreamResponse(OK, body()) if streams else Response(OK, piece * 40)

    server = make(handle, limits={"write_seconds": 0.05, "idle_seconds": LONG})
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with listening(server) as port:
            silent.connect(("127.0.0.1", port))
            silent.sendall(GET)
            await until(lambda: server.connections)
            await until(lambda: not server.connections)
            if streams:
                await ended.wait()


async def test_a_peer_that_does_not_read_its_last_answer_is_cut_off() -> None:
    server = make(lambda _: Response(OK, b"x" * 40_000_000, close=True),
                  limits={"write_seconds": 0.05, "idle_seconds": LONG})  # fmt: skip
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with listening(server) as port:
            silent.connect(("127.0.0.1", port))
            silent.sendall(GET)
            await until(lambda: server.connections)
            await until(lambda: not server.connections)


# Limits of connections.


def test_connections_are_counted_in_total_and_by_source() -> None:
    count = ConnectionCount(Limits(connections=3, connections_per_source=2))
    assert [count.admit(source) for source in "aaab"] == [True, True, False, True]
    assert not count.admit("c")
    count.dismiss("a")
    assert not count.admit("b") or not count.admit("c")
    for source in ("a", "b", "b"):
        count.dismiss(source)
    assert not count._sources


@pytest.mark.parametrize("limit", ["connections", "connections_per_source"])
async def test_connections_are_capped_and_the_cap_is_not_the_end(
    limit: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = make(limits={limit: 2})
    async with listening(server) as port, connected(port), connected(port) as (_, second):
        await until(lambda: len(server.connections) == 2)
        for _ in range(3):
            async with connected(port) as (reader, writer):
                writer.write(GET)
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
        vanish(second)
        await until(lambda: len(server.connections) == 1)
        async with connected(port) as (reader, writer):
            writer.write(GET)
            assert (await answer_of(reader))[1] == b"GET / []"
    assert [record.msg for record in caplog.records] == ["too_many_connections"]


# Peers that send no more, and peers that send too much.


@pytest.mark.parametrize("handler", [echo, echo_at_once])
async def test_a_half_closed_peer_gets_its_answers(handler: object) -> None:
    async with listening(make(handler)) as port:  # type: ignore[arg-type]
        answer = await exchange(port, GET + GET + b"GET / HT")
    assert statuses(answer) == [200, 200]


async def test_a_refused_peer_that_goes_on_sending_can_read_its_answer() -> None:
    """A socket that is closed with unread bytes resets the connection, and the answer is lost."""
    refuse = make(lambda _: Response(OK), limits={"linger_seconds": LONG})
    for sent in (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", b"\x00\r\n"):
        async with listening(refuse) as port, connected(port) as (reader, writer):
            writer.write(sent)
            head, _ = await answer_of(reader)
            assert b"Connection: close" in head
            for _ in range(50):
                writer.write(b"x" * 65536)
                await writer.drain()
            assert await reader.read() == b""
        refuse = make(lambda _: Response(OK), limits={"linger_seconds": LONG})


async def test_whoever_goes_on_sending_for_ever_is_cut_off() -> None:
    server = make(lambda _: Response(OK), limits={"linger_seconds": 0.02})
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
        assert statuses(await reader.read()) == [200]
        await until(lambda: not server.connections)


async def test_what_lingers_is_not_served() -> None:
    served = 0

    def handle(_: Request) -> Response:
        nonlocal served
        served += 1
        return Response(OK)

    wire = Wire(make(handle))
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", b"abc" + GET)
    assert served == 1
    assert wire.transport.sent_end


async def test_dead_peers_are_noticed_by_the_kernel() -> None:
    server = make()
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(GET)
        await answer_of(reader)
        [connection] = server.connections
        assert connection._transport is not None
        plain = connection._transport.get_extra_info("socket")
        assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


# Draining.


async def test_draining_ends_what_is_idle_and_finishes_what_is_not() -> None:
    go_on, drained = asyncio.Event(), list[None]()

    async def handle(request: Request) -> Response:
        if request.target == "/slow":
            await go_on.wait()
        return seen(request, b"")

    server = make(handle, on_drain=lambda: drained.append(None))
    async with listening(server) as port:
        async with connected(port) as idle, connected(port) as busy, connected(port) as half:
            busy[1].write(GET.replace(b"/ ", b"/slow ") + GET)
            idle[1].write(GET)
            await answer_of(idle[0])
            half[1].write(GET + b"GET / HT")
            await answer_of(half[0])
            await until(lambda: any(not each.idle for each in server.connections))
            ending = asyncio.create_task(server.shutdown(LONG))
            assert await idle[0].read() == b""
            assert await half[0].read() == b""
            assert not ending.done()
            go_on.set()
            answer = await busy[0].read()
            assert statuses(answer) == [200]  # what was sent behind it is another's to answer
            assert b"\r\nConnection: close\r\n" in answer
            await ending
        assert not server.connections
    assert len(drained) == 1


async def test_a_new_connection_is_not_served_while_draining() -> None:
    server = make()
    async with listening(server) as port:
        server.begin_drain()
        async with connected(port) as (reader, writer):
            writer.write(GET)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""


async def test_what_does_not_finish_in_time_is_told_to_come_back() -> None:
    cancelled = asyncio.Event()

    async def handle(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return seen(request, b"")

    failed = Failures()
    server = make(handle, failed=failed)
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(GET)
        await until(lambda: any(not each.idle for each in server.connections))
        await server.shutdown(0.01)
        assert statuses(await reader.read()) == [503]
    assert cancelled.is_set()
    assert failed.reasons == ["draining"]


async def test_a_handler_that_will_not_end_is_left_behind() -> None:
    let_go = asyncio.Event()

    async def handle(request: Request) -> Response:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return seen(request, b"")

    server = make(handle)
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(GET)
        await until(lambda: any(not each.idle for each in server.connections))
        await server.shutdown(0.01)
        assert not server.connections
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        let_go.set()


async def test_a_stream_that_goes_on_is_cut_off_when_draining_ends() -> None:
    ended = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            ended.set()

    server: Server = make(lambda _: StreamResponse(OK, body()))
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(GET)
        await reader.readuntil(b"first")
        await server.shutdown(0.01)
        await ended.wait()
        assert not server.connections
