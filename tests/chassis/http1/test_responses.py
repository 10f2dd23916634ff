"""What goes out: heads, HEAD, streams, failures of handlers, and nothing that names us."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial

import pytest
import uvloop

from chassis.http1.errors import Failure, Unfinished
from chassis.http1.request import Request
from chassis.http1.response import DateLine, Response, ResponseHead, StreamResponse
from tests.chassis.http1.harness import (
    OK,
    Failures,
    Wire,
    answer_of,
    connected,
    exchange,
    listening,
    make,
    statuses,
    until,
    vanish,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
DATE = b"Date: Wed, 15 Nov 2023 12:00:00 GMT\r\n"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def hello(_: Request) -> Response:
    return Response(OK, b"hello")


def streaming(*pieces: bytes, length: int | None = None) -> Callable[[Request], StreamResponse]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    def handle(_: Request) -> StreamResponse:
        return StreamResponse(OK, body(), length=length)

    return handle


async def test_an_answer_byte_for_byte() -> None:
    head = ResponseHead(401, [("WWW-Authenticate", "Bearer"), ("Content-Type", "text/plain")])
    wire = Wire(make(lambda _: Response(head, b"no")))
    assert await wire.send(GET) == (
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Type: text/plain\r\n"
        + DATE
        + b"Content-Length: 2\r\n\r\nno"
    )


async def test_no_answer_names_its_software() -> None:
    for sent in (GET, b"\x00\r\n\r\n", GET.replace(b"GET", b"PUT2")):
        answer = await Wire(make()).send(sent)
        assert answer
        for name in (b"server:", b"python", b"aiohttp", b"tokenward"):
            assert name not in answer.lower()


def test_dates_are_those_of_the_standard() -> None:
    for day in range(0, 800, 7):
        second = 1_700_000_000 + day * 86_400 + day * 37
        expected = datetime.fromtimestamp(second, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        assert DateLine(partial(float, second))() == f"Date: {expected}\r\n".encode()


async def test_the_date_moves_on() -> None:
    now = [0.0]
    line = DateLine(lambda: now[0])
    assert line() == b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    now[0] = 0.9
    assert line() == b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    now[0] = 1.0
    assert line() == b"Date: Thu, 01 Jan 1970 00:00:01 GMT\r\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "b\r\nX-B: c"), ("X-A", "b\nc"), ("X-A", "b\rc"), ("X-A", "b\x00"), ("X-A", " b"),
        ("X-A", "\u20ac"), ("X A", "b"), ("", "b"), ("X-A:", "b"), ("X\r\nA", "b"),
        ("Content-Length", "1"), ("transfer-encoding", "chunked"), ("Connection", "close"),
        ("Server", "x"), ("Date", "x"), ("Keep-Alive", "x"), ("Upgrade", "x"), ("Trailer", "x"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_sent_is_a_bug(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        ResponseHead(200, [(name, value)])


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600])
def test_a_status_that_is_not_final_is_a_bug(status: int) -> None:
    with pytest.raises(ValueError, match="final"):
        ResponseHead(status)


async def test_head_has_the_head_of_get_and_no_body() -> None:
    server = make(hello)
    got, head = await Wire(server).send(GET), await Wire(server).send(HEAD)
    assert got == head + b"hello"
    assert statuses((await Wire(server).send(HEAD + LAST)).removeprefix(head)) == [200]


@pytest.mark.parametrize("length", [None, 5])
async def test_head_of_a_stream_starts_no_stream(length: int | None) -> None:
    begun = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal begun
        begun = True
        yield b"hello"

    wire = Wire(make(lambda _: StreamResponse(OK, body(), length=length)))
    answer = await wire.send(HEAD, HEAD)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answer.endswith(b"\r\n\r\n")
    assert (b"Content-Length: 5" if length else b"Transfer-Encoding: chunked") in answer
    assert not begun


@pytest.mark.parametrize("status", [204, 304])
async def test_some_statuses_have_no_body(status: int) -> None:
    wire = Wire(make(lambda _: Response(ResponseHead(status), b"ignored")))
    answer = await wire.send(GET, GET)
    assert answer.count(b"HTTP/1.1 %d " % status) == 2
    assert b"ignored" not in answer
    assert b"Content-Length" not in answer
    wire = Wire(make(lambda _: StreamResponse(ResponseHead(status), _once(b"ignored"))))
    answer = await wire.send(GET, GET)
    assert answer.count(b"HTTP/1.1 %d " % status) == 2
    assert b"ignored" not in answer
    assert b"Transfer-Encoding" not in answer


async def _once(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


async def test_a_stream_goes_out_in_chunks_and_the_connection_goes_on() -> None:
    answer = await Wire(make(streaming(b"hello", b"", b"0123456789abcdef"))).send(GET, LAST)
    body = b"5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + DATE
    framing = b"Transfer-Encoding: chunked\r\n\r\n"
    assert answer == head + framing + body + head + b"Connection: close\r\n" + framing + body


async def test_a_stream_of_known_length_is_not_chunked() -> None:
    answer = await Wire(make(streaming(b"he", b"llo", length=5))).send(GET, GET)
    assert statuses(answer) == [200, 200]
    assert answer.endswith(b"\r\n\r\nhello")


async def test_a_stream_for_http_1_0_ends_with_its_connection() -> None:
    wire = Wire(make(streaming(b"hello")))
    answer = await wire.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answer.endswith(b"Connection: close\r\n\r\nhello")
    assert wire.transport.closed


@pytest.mark.parametrize("pieces", [(b"hell",), (b"hello", b"!")])
async def test_a_stream_that_breaks_its_word_is_cut_off(
    pieces: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(make(streaming(*pieces, length=5))) as port:
        answer = await exchange(port, LAST)
    assert len(answer.partition(b"\r\n\r\n")[2]) <= 5
    assert [record.msg for record in caplog.records] == ["response_broken_off"]


async def test_a_stream_that_fails_has_no_end_the_peer_could_take_for_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"some"
        raise KeyError("canary")

    server, answer = make(lambda _: StreamResponse(OK, body())), b""
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(GET)
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(4096):
                answer += part
    assert b"0\r\n\r\n" not in answer
    assert b"canary" not in answer
    assert "canary" not in str([vars(record) for record in caplog.records])


async def test_a_stream_whose_maker_gives_up_is_broken_off_and_is_no_bug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"some"
        raise Unfinished

    server, answer = make(lambda _: StreamResponse(OK, body())), b""
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(GET)
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(4096):
                answer += part
    assert b"some" in answer
    assert b"0\r\n\r\n" not in answer
    assert not caplog.records


async def test_a_handler_that_fails_costs_its_request_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def later(_: Request) -> Response:
        raise KeyError("canary")

    def at_once(_: Request) -> Response:
        raise KeyError("canary")

    for handler in (later, at_once, lambda _: None):
        failed = Failures()
        answer = await Wire(make(handler, failed=failed)).send(GET, GET)
        assert statuses(answer) == [500, 500]
        assert b"canary" not in answer
        assert failed.reasons == ["bug", "bug"]
        assert isinstance(failed.all[0].bug, KeyError | TypeError)
        answer = await Wire(make(handler)).send(GET)
        assert statuses(answer) == [500]
    assert {record.msg for record in caplog.records} == {"unexpected_failure"}
    assert "canary" not in str([vars(record) for record in caplog.records])


async def test_where_rendering_a_failure_fails_there_is_a_plain_answer() -> None:
    def failed(_: Failure) -> Response:
        raise KeyError("canary")

    answer = await Wire(make(failed=failed)).send(b"nonsense\r\n\r\n")
    assert statuses(answer) == [500]
    assert b"canary" not in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"canary\x00\r\n\r\n",
        b"GET /canary HTTP/9\r\n\r\n",
        GET[:-2] + b"canary\x01: canary\r\n\r\n",
    ],
)
async def test_bytes_that_could_not_be_read_are_not_repeated(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    failed = Failures()
    answer = await Wire(make(failed=failed)).send(sent)
    assert statuses(answer) == [400]
    assert b"canary" not in answer
    assert "canary" not in str(failed.all)
    assert not [record for record in caplog.records if "canary" in str(vars(record))]


async def test_a_handler_may_end_the_connection() -> None:
    wire = Wire(make(lambda _: Response(OK, close=True)))
    answer = await wire.send(GET, GET)
    assert statuses(answer) == [200]
    assert b"\r\nConnection: close\r\n" in answer
    assert wire.transport.closed


# Back-pressure on what goes out.


async def test_a_stream_waits_for_its_reader() -> None:
    made = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(10):
            made += 1
            yield b"x"

    wire = Wire(make(lambda _: StreamResponse(OK, body())))
    wire.connection.pause_writing()
    wire.connection.resume_writing()
    wire.connection.data_received(GET)
    wire.connection.pause_writing()
    for _ in range(20):
        await asyncio.sleep(0)
    assert made <= 1
    wire.connection.resume_writing()
    await wire.settle()
    assert made == 10
    assert bytes(wire.transport.written).endswith(b"0\r\n\r\n")


async def test_nothing_is_answered_to_whom_does_not_read() -> None:
    served = 0

    def handle(_: Request) -> Response:
        nonlocal served
        served += 1
        wire.connection.pause_writing()
        return Response(OK)

    wire = Wire(make(handle))
    wire.connection.data_received(GET * 3)
    assert served == 1
    wire.connection.data_received(GET * 10_000)
    assert served == 1
    assert wire.transport.paused
    wire.connection.resume_writing()
    assert served == 2


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_large_bodies_pass_whole_both_ways(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    size, piece = 16 * 1024 * 1024, bytes(range(256)) * 256

    async def handle(request: Request) -> StreamResponse:
        return StreamResponse(OK, request.stream())

    async def send(writer: asyncio.StreamWriter) -> None:
        for _ in range(size // len(piece)):
            writer.write(piece)
            await writer.drain()

    async def main() -> None:
        async with listening(make(handle)) as port, connected(port) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            sending = asyncio.create_task(send(writer))
            await reader.readuntil(b"\r\n\r\n")
            received = hashlib.sha256()
            while chunk := int((await reader.readline()), 16):
                received.update(await reader.readexactly(chunk))
                await reader.readexactly(2)
            await reader.readexactly(2)
            await sending
            assert received.digest() == hashlib.sha256(piece * (size // len(piece))).digest()
            writer.write(LAST)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("half", [True, False])
async def test_a_stream_ends_when_its_reader_has_gone(half: bool) -> None:
    ended = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            ended.set()

    server = make(lambda _: StreamResponse(OK, body()))
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(GET)
        await reader.readuntil(b"first")
        if half:
            writer.write_eof()
        else:
            vanish(writer)
        await ended.wait()


async def test_a_large_answer_to_somebody_who_reads_slowly_is_whole() -> None:
    body = b"x" * 3_000_000
    server = make(lambda _: Response(OK, body))
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(LAST)
        head, got = await answer_of(reader)
        assert b"Connection: close" in head
        assert got == body


async def test_a_handler_is_not_cancelled_when_its_caller_has_gone() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(_: Request) -> Response:
        begun.set()
        await go_on.wait()
        done.set()
        return Response(OK)

    server = make(handle)
    async with listening(server) as port:
        async with connected(port) as (_, writer):
            writer.write(GET)
            await begun.wait()
            vanish(writer)
        await until(lambda: not server.connections)
        go_on.set()
        await done.wait()
