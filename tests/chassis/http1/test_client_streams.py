"""Streamed requests and responses: order, back-pressure, ends, time limits, and what is reused."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from chassis.http1.body import HIGH_WATER
from chassis.http1.client import Client, Host
from chassis.http1.limits import Limits
from chassis.http1.no_response import BadResponse, Disconnected, TooSlow, Unreachable
from chassis.http1.outgoing import OutgoingBody, RequestHead
from chassis.http1.request import Request
from chassis.http1.response import ResponseHead, StreamResponse
from demo.pki import CertificateAuthority, write_credential
from tests.chassis.http1.harness import listening, make, until
from tests.chassis.http1.scripted import BAD, CHUNKED, GOOD, LOOPS, OK, client, scripted, serving

GET = RequestHead("GET", "/", "api.test")
POST = RequestHead("POST", "/a?b", "api.test", [("X-A", "c")])


class Source:
    """The pieces of a body, and how far they were taken. `hold` comes after the last one."""

    def __init__(self, *pieces: bytes, hold: asyncio.Event | None = None) -> None:
        self.pieces, self.hold = pieces, hold
        self.taken, self.ended = 0, False

    async def __call__(self) -> AsyncIterator[bytes]:
        try:
            for piece in self.pieces:
                self.taken += 1
                yield piece
            if self.hold is not None:
                await self.hold.wait()
        finally:
            self.ended = True


@pytest.mark.parametrize(
    ("length", "framed"),
    [
        (5, b"Content-Length: 5\r\n\r\nhello"),
        (None, b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
    ],
)
async def test_a_streamed_request_byte_for_byte(length: int | None, framed: bytes) -> None:
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not received.endswith(framed[-5:]):
            received.extend(await reader.read(100))
        writer.write(OK)
        await reader.read()

    source = Source(b"hel", b"", b"lo")
    async with serving(serve) as port:
        asking = client(port)
        response = await asking.stream(POST, OutgoingBody(source(), length))
        assert (response.status, response.length, await response.read(9)) == (200, 2, b"ok")
        assert len(asking._idle) == 1
        asking.close()
    assert bytes(received) == b"POST /a?b HTTP/1.1\r\nHost: api.test\r\nX-A: c\r\n" + framed
    assert source.ended


@pytest.mark.parametrize(
    ("body", "framing"),
    [(None, b""), (b"", b"Content-Length: 0\r\n"), (b"ab", b"Content-Length: 2\r\n")],
)
async def test_a_request_has_the_framing_of_its_body(body: bytes | None, framing: bytes) -> None:
    async with scripted(OK) as (script, port):
        asking = client(port)
        await (await asking.stream(GET, body)).read(9)
        asking.close()
    assert script.received == b"GET / HTTP/1.1\r\nHost: api.test\r\n" + framing + b"\r\n"


@pytest.mark.parametrize("length", [1, 9], ids=["longer", "shorter"])
async def test_a_body_of_another_length_is_broken_off(length: int) -> None:
    ends = list[bytes]()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        ends.append(await reader.read())

    source = Source(b"hel", b"lo")
    async with serving(serve) as port:
        asking = client(port)
        with pytest.raises(ValueError, match="than its length"):
            await asking.stream(POST, OutgoingBody(source(), length))
        await until(lambda: source.ended)
    assert not asking._idle


async def test_a_source_that_fails_is_raised_and_the_peer_never_sees_an_end() -> None:
    """A caller that went away in the middle must not become a shorter request."""
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while part := await reader.read(100):
            received.extend(part)

    async def failing() -> AsyncIterator[bytes]:
        yield b"hello"
        raise LookupError("gone")

    async with serving(serve) as port:
        asking = client(port)
        with pytest.raises(LookupError, match="gone"):
            await asking.stream(POST, OutgoingBody(failing()))
        assert not asking._idle
    assert not received.endswith(b"0\r\n\r\n")


async def test_a_source_that_fails_behind_an_early_head_is_raised_by_the_response() -> None:
    begun = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"2\r\nok\r\n")
        await reader.read()

    async def failing() -> AsyncIterator[bytes]:
        yield b"hello"
        await begun.wait()
        raise LookupError("gone")

    async with serving(serve) as port:
        response = await client(port).stream(POST, OutgoingBody(failing()))
        assert await response.next() == b"ok"
        begun.set()
        with pytest.raises(LookupError, match="gone"):
            await response.next()


async def test_a_response_arrives_as_it_is_sent() -> None:
    """Server-sent events: the head, then each event, while the server has no end in sight."""
    go_on = asyncio.Queue[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)
        while event := await go_on.get():
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with serving(serve) as port:
        asking = client(port)
        response = await asking.stream(GET)
        assert (response.status, response.length, response.whole) == (200, None, False)
        for event in (b"data: 1\n\n", b"data: 2\n\n"):
            go_on.put_nowait(event)
            assert await response.next() == event
        go_on.put_nowait(b"")
        assert await response.next() == b""
        assert response.whole
        assert len(asking._idle) == 1
        asking.close()


async def test_a_server_is_held_back_while_nobody_reads() -> None:
    written, whole = 0, 16 * 1024 * 1024

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK.replace(b"Length: 2", b"Length: %d" % whole).removesuffix(b"ok"))
        while written < whole:
            writer.write(b"x" * 65536)
            written += 65536
            await writer.drain()
        await reader.read()

    async with serving(serve) as port:
        asking = client(port)
        response = await asking.stream(GET)
        before = -1
        while before != written:
            before = written
            for _ in range(100):
                await asyncio.sleep(0)
        assert response._connection._held
        assert written < whole
        assert len(await response.next()) < HIGH_WATER + 2**20
        size = 0
        while piece := await response.next():
            size += len(piece)
        assert size > whole // 2
        assert len(asking._idle) == 1
        assert not asking._idle[0]._held
        asking.close()


async def test_a_source_is_held_back_while_the_server_does_not_read() -> None:
    go_on, size = asyncio.Event(), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal size
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await go_on.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        await reader.readuntil(b"\r\n\r\n")
        while size < 512 * 65536:
            size += len(await reader.read(65536))
        writer.write(OK)
        await reader.read()

    source = Source(*[b"x" * 65536] * 512)
    async with serving(serve) as port:
        asking = client(port)
        waiting = asyncio.create_task(asking.stream(POST, OutgoingBody(source(), 512 * 65536)))
        before = -1
        while before != source.taken or not source.taken:
            before = source.taken
            for _ in range(100):
                await asyncio.sleep(0)
        assert source.taken < 512
        go_on.set()
        assert (await waiting).status == 200
        assert source.taken == 512
        asking.close()


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\n", 9),
        ("HEAD", CHUNKED, None),
        ("HEAD", b"HTTP/1.1 200 x\r\n\r\n", None),
        ("GET", b"HTTP/1.1 204 x\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", 9),
        ("GET", b"HTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 204 x\r\n\r\n", None),
    ],
)
async def test_a_response_without_a_body_is_whole_with_its_head(
    method: str, answer: bytes, length: int | None
) -> None:
    async with scripted(answer, OK) as (script, port):
        asking = client(port)
        response = await asking.stream(RequestHead(method, "/", "api.test"))
        assert (response.whole, response.length, await response.read(0)) == (True, length, b"")
        assert "link" not in response.headers
        assert await (await asking.stream(GET)).read(2) == b"ok"
        assert script.connections == 1
        asking.close()


async def test_an_early_response_ends_the_body_and_costs_the_connection() -> None:
    """The peer has decided without the rest of the body, and may not read it."""
    answered = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        await reader.readuntil(b"\r\n\r\n")
        answered += 1
        writer.write(OK.replace(b"200 OK", b"413 x"))
        await reader.read()

    source = Source(b"x", hold=asyncio.Event())
    async with serving(serve) as port:
        asking = client(port)
        response = await asking.stream(POST, OutgoingBody(source(), 100))
        assert (response.status, await response.read(9)) == (413, b"ok")
        await until(lambda: source.ended)
        assert not asking._idle
        assert (await asking.stream(POST, b"")).status == 413
        assert answered == 2
        asking.close()


async def test_both_bodies_may_stream_at_once() -> None:
    async def handle(request: Request) -> StreamResponse:
        return StreamResponse(ResponseHead(200), request.stream())

    pieces = asyncio.Queue[bytes]()

    async def source() -> AsyncIterator[bytes]:
        while piece := await pieces.get():
            yield piece

    async with listening(make(handle)) as port:
        asking = client(port)
        waiting = asyncio.create_task(asking.stream(POST, OutgoingBody(source())))
        pieces.put_nowait(b"one")
        response = await waiting
        assert await response.next() == b"one"
        pieces.put_nowait(b"two")
        assert await response.next() == b"two"
        pieces.put_nowait(b"")
        assert await response.next() == b""
        assert len(asking._idle) == 1
        asking.close()


async def test_a_server_that_sends_nothing_more_is_not_asked_again() -> None:
    """It half-closes behind a whole response; the response counts, the connection does not."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        writer.write_eof()
        await reader.read()

    async with serving(serve) as port:
        asking = client(port)
        for _ in range(2):
            assert await (await asking.stream(GET)).read(9) == b"ok"
            await until(lambda: not asking._idle)
        assert asked == 2


@pytest.mark.parametrize(
    "answer",
    [OK.replace(b": 2", b": 9"), CHUNKED + b"2\r\nok\r\n", CHUNKED + b"2\r\nok\r\n0\r\n"],
    ids=["length", "chunks", "half of the last chunk"],
)
async def test_a_server_that_half_closes_in_the_middle_gave_no_whole_response(
    answer: bytes,
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.write_eof()
        await reader.read()

    async with serving(serve) as port:
        asking = client(port)
        response = await asking.stream(GET)
        assert await response.next() == b"ok"
        with pytest.raises(BadResponse):
            await response.next()
        with pytest.raises(BadResponse):
            await response.next()
        assert not asking._idle


async def test_streams_take_turns_on_one_connection() -> None:
    answers = [OK, CHUNKED + b"2\r\nok\r\n0\r\n\r\n", OK, CHUNKED + b"0\r\n\r\n", OK]
    async with scripted(*answers) as (script, port):
        asking = client(port, connections=1)
        for number, expected in enumerate((b"ok", b"ok", b"ok", b"", b"ok")):
            body = OutgoingBody(Source(b"x")(), 1) if number % 2 else None
            # The script answers behind the head; the body belongs to the next one's beginning.
            response = await asking.stream(GET, body)
            assert await response.read(9) == expected
            await until(lambda: asking._idle)
        assert script.connections == 1
        asking.close()


@pytest.mark.parametrize("name", GOOD)
async def test_a_good_shape_has_the_same_body_when_it_is_streamed(name: str) -> None:
    answer, body = GOOD[name]
    async with scripted(answer) as (_, port):
        asking = client(port)
        assert await (await asking.stream(GET)).read(90) == body
        asking.close()


@pytest.mark.parametrize("name", BAD)
async def test_a_malformed_response_is_never_whole(name: str) -> None:
    """Its sound beginning may be streamed; then it breaks off, and its connection ends."""
    async with scripted(BAD[name], OK) as (script, port):
        asking = client(port)
        with pytest.raises(BadResponse):
            await (await asking.stream(GET)).read(90)
        script.answers = [OK]
        assert await (await asking.stream(GET)).read(9) == b"ok"
        assert script.connections == 2
        asking.close()


async def test_what_is_malformed_behind_a_good_chunk_breaks_off() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"2\r\nok\r\n")
        await reader.readuntil(b"go")
        writer.write(b"zz\r\n")
        await reader.read()

    go_on = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        await go_on.wait()
        yield b"go"
        await asyncio.Event().wait()

    async with serving(serve) as port:
        response = await client(port).stream(POST, OutgoingBody(source()))
        assert await response.next() == b"ok"
        go_on.set()
        with pytest.raises(BadResponse):
            await response.next()


async def test_time_for_a_head_begins_when_the_request_is_whole() -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    sent = asyncio.Event()
    source = Source(b"x", hold=sent)
    async with serving(serve) as port:
        asking = client(port)
        with pytest.raises(TooSlow):
            await asking.stream(GET, head_seconds=0.02)
        waiting = asyncio.create_task(
            asking.stream(POST, OutgoingBody(source(), 1), head_seconds=0.02)
        )
        await until(lambda: source.taken)
        done, _ = await asyncio.wait((waiting,), timeout=0.1)
        assert not done
        sent.set()
        with pytest.raises(TooSlow):
            await waiting


async def test_a_body_has_time_for_each_piece() -> None:
    async with scripted(CHUNKED + b"2\r\nok\r\n", OK) as (script, port):
        asking = client(port)
        response = await asking.stream(GET, head_seconds=20)
        assert await response.next(0.02) == b"ok"
        with pytest.raises(TooSlow):
            await response.next(0.02)
        assert await (await asking.stream(GET)).read(9) == b"ok"
        assert script.connections == 2
        asking.close()


async def test_a_server_that_does_not_read_is_too_slow() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await ended.wait()

    ended = asyncio.Event()
    async with serving(serve) as port:
        asking = client(port, write_seconds=0.05)
        with pytest.raises(TooSlow):
            await asking.stream(POST, b"x" * (32 * 1024 * 1024))
        source = Source(*[b"x" * 65536] * 512)
        with pytest.raises(TooSlow):
            await asking.stream(POST, OutgoingBody(source()))
        await until(lambda: source.ended)
        ended.set()


@pytest.mark.parametrize("answer", [b"", OK[:-1]], ids=["before the head", "in the body"])
async def test_a_cancelled_stream_gives_back_its_place(answer: bytes) -> None:
    async def read(asking: Client) -> bytes:
        response = await asking.stream(GET)
        try:
            return await response.read(9)
        finally:
            response.close()

    async with scripted(answer, OK) as (script, port):
        asking = client(port, connections=1)
        waiting = asyncio.create_task(read(asking))
        await until(lambda: script.received)
        for _ in range(20):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        script.answers = [OK]
        assert await read(asking) == b"ok"
        assert script.connections == 2
        asking.close()


async def test_a_stream_cancelled_with_its_answer_does_not_take_the_next_ones_connection() -> None:
    """The answer is whole, and its connection serves another request by then."""
    async with scripted(OK, OK) as (script, port):
        asking = client(port, connections=1)
        one = asyncio.create_task(asking.stream(GET))
        await until(lambda: script.received)
        two = asyncio.create_task(asking.stream(GET))
        await until(lambda: asking._idle or one.done())
        one.cancel()
        await asyncio.wait((one,))
        assert await (await two).read(9) == b"ok"
        asking.close()


async def test_closing_a_response_ends_its_connection_and_frees_its_place() -> None:
    async with scripted(CHUNKED + b"2\r\nok\r\n", OK) as (script, port):
        asking = client(port, connections=1)
        response = await asking.stream(GET)
        response.close()
        response.close()
        with pytest.raises(BadResponse):
            await response.read(9)
        assert await (await asking.stream(GET)).read(9) == b"ok"
        assert script.connections == 2
        asking.close()


async def test_closing_a_whole_response_costs_nothing() -> None:
    async with scripted(OK, OK) as (script, port):
        asking = client(port, connections=1)
        for _ in range(2):
            (await asking.stream(GET)).close()
            await until(lambda: asking._idle)
        assert script.connections == 1
        asking.close()


async def test_only_what_may_be_repeated_is_sent_again_and_only_on_a_new_connection() -> None:
    """A kept connection may be closed by the server in the moment we use it."""
    for repeatable, body in ((True, b"x"), (False, b"x"), (True, OutgoingBody(Source(b"x")(), 1))):
        async with scripted(OK, None, OK) as (script, port):
            asking = client(port)
            await (await asking.stream(GET)).read(9)
            script.connections = 0
            if repeatable and body == b"x":
                response = await asking.stream(POST, body, repeatable=True)
                assert await response.read(9) == b"ok"
                assert script.connections == 1
            else:
                with pytest.raises(Disconnected):
                    await asking.stream(POST, body, repeatable=repeatable)
                assert script.connections == 0
            asking.close()
        async with scripted(None, OK) as (script, port):
            with pytest.raises(Disconnected):
                await client(port).stream(GET, repeatable=True)
            assert script.connections == 1


async def test_where_every_place_is_taken_a_stream_does_not_wait_forever() -> None:
    async with scripted(CHUNKED) as (_, port):
        asking = Client(
            Host("127.0.0.1", port), None, limits=Limits(connections=1), connect_seconds=0.05
        )
        response = await asking.stream(GET)
        with pytest.raises(Unreachable):
            await asking.stream(GET)
        response.close()


@pytest.mark.parametrize(
    ("method", "target", "authority", "field"),
    [
        ("GET", "/ a", "a", ("X", "y")), ("GET", "/\r\n", "a", ("X", "y")),
        ("GET", "/", "a\r\nX: y", ("X", "y")), ("GET", "/", "a/b", ("X", "y")),
        ("GET", "/", "", ("X", "y")), ("GET", "/", "a", ("host", "b")),
        ("GET", "/", "a", ("transfer-encoding", "chunked")), ("GET", "/", "a", ("X", "y\nz")),
        ("GET", "/", "a", ("Trailer", "x")), ("GET", "/", "a", ("Upgrade", "h2c")),
    ],
)  # fmt: skip
def test_a_head_that_would_be_read_otherwise_is_not_made(
    method: str, target: str, authority: str, field: tuple[str, str]
) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        RequestHead(method, target, authority, [field])


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_large_bodies_stream_both_ways_over_tls(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    authority = CertificateAuthority.create("api")
    write_credential(tmp_path, authority.issue_server())
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    serving_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving_tls.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    tls = ssl.create_default_context(cafile=tmp_path / "ca.pem")

    async def handle(request: Request) -> StreamResponse:
        return StreamResponse(ResponseHead(200), request.stream())

    async def main() -> None:
        async with listening(make(handle), serving_tls) as port:
            asking = client(port, tls)
            for length in (100 * 100_000, None):
                source = Source(*[b"0123456789" * 10_000] * 100)
                response = await asking.stream(POST, OutgoingBody(source(), length))
                size = 0
                while piece := await response.next():
                    size += len(piece)
                assert size == 100 * 100_000
                await until(lambda: asking._idle)
            asking.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
