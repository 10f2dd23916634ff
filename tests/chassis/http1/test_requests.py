"""What a handler is given, and how bodies reach it: invitations, back-pressure, deadlines."""

import asyncio
import gzip
from collections.abc import Awaitable

import pytest
from httptools import HttpRequestParser

from chassis.http1.body import HIGH_WATER
from chassis.http1.errors import BodyBrokenOff, Failure, Malformed
from chassis.http1.head import check_lines, read_head
from chassis.http1.limits import Limits
from chassis.http1.request import Request
from chassis.http1.response import Response
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
)
from tests.chassis.http1.shapes import NAMES, SHAPES

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
INVITATION = b"HTTP/1.1 100 Continue\r\n\r\n"


def post(body: bytes, *fields: str, length: int | None = None) -> bytes:
    lines = ["POST / HTTP/1.1", "Host: a", *fields]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def test_fields_are_found_by_their_lower_case_names() -> None:
    given: list[Request] = []

    def handle(request: Request) -> Response:
        given.append(request)
        return Response(OK)

    await Wire(make(handle)).send(
        b"GET /%2e?a HTTP/1.1\r\nHOST: a\r\nX-One: 1\r\nx-oNE: 1\r\n"
        b"X-Two: \t\xe4 b \t\r\nX-3:\r\n\r\n"
    )
    [request] = given
    headers = request.headers
    assert (request.method, request.target) == ("GET", "/%2e?a")
    assert headers.get_all("x-one") == ["1", "1"]
    assert headers.get("x-one") == "1, 1"
    assert headers.get("x-two") == "\xe4 b"
    assert (headers.get("x-3"), headers.get("x-4"), headers.get_all("x-4")) == ("", None, [])
    assert set(headers.names) == {"host", "x-one", "x-two", "x-3"}
    assert "x-3" in headers
    assert len(headers) == 5
    assert list(headers.items())[:3] == [("host", "a"), ("x-one", "1"), ("x-one", "1")]


async def test_a_repeated_head_is_the_same_object_and_another_is_not() -> None:
    heads: list[object] = []

    def handle(request: Request) -> Response:
        heads.append(request.head)
        return seen(request, request.body or b"")

    wire = Wire(make(handle))
    first, second = post(b"ab"), post(b"ab", "Authorization: Bearer x")
    answer = await wire.send(first, first + second, second, post(b"cd", "Authorization: Bearer y"))
    assert statuses(answer) == [200] * 5
    assert answer.endswith(b"[cd]")
    assert heads[0] is heads[1]
    assert heads[2] is heads[3]
    assert len({id(head) for head in heads}) == 3


@pytest.mark.parametrize("absolute_form", [True, False])
async def test_a_whole_uri_reaches_the_handler_only_where_that_is_wanted(
    absolute_form: bool,
) -> None:
    wire = Wire(make(absolute_form=absolute_form))
    answer = await wire.send(b"GET http://b/c HTTP/1.1\r\nHost: a\r\n\r\n")
    assert statuses(answer) == [200 if absolute_form else 400]
    wire = Wire(make(absolute_form=True))
    assert statuses(await wire.send(b"GET ftp://b/c HTTP/1.1\r\nHost: a\r\n\r\n")) == [400]


async def test_a_body_in_pieces_is_whole_for_its_handler() -> None:
    async with listening(make()) as port, connected(port) as (reader, writer):
        writer.write(post(b"abc", length=6))
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(b"def" + GET)
        assert (await answer_of(reader))[1] == b"POST / [abcdef]"
        assert (await answer_of(reader))[1] == b"GET / []"


async def test_a_compressed_body_is_not_unpacked() -> None:
    body = gzip.compress(b"{}")
    answer = await Wire(make()).send(post(body, "Content-Encoding: gzip"))
    assert answer.endswith(b"[" + body + b"]")


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"get / HTTP/1.1\r\n", 400), (b" GET", 400), (b"\r", 400), (b"\x16\x03\x01", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400), (b"GET / HTTP/1.1\r\n A", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 17_000, 431), (b"G" * 17_000, 431),
    ],
)  # fmt: skip
async def test_what_cannot_become_a_head_is_refused_before_its_end(
    begun: bytes, status: int
) -> None:
    for size in (1000, len(begun)):
        pieces = [begun[at : at + size] for at in range(0, len(begun), size)]
        assert statuses(await Wire(make()).send(*pieces)) == [status]


def test_lines_are_checked_before_llhttp_sees_them() -> None:
    """llhttp refuses these too; where a head ends follows from this check alone."""
    shapes = {shape.name: shape.sent for shape in SHAPES}
    for name in (
        "a bare LF after a field", "a bare CR in a value", "two CR before an LF", "LF CR",
        "a folded value", "a value folded with a tab", "a fold that holds nothing",
        "a NUL in a value", "a DEL in a value", "a vertical tab in a value",
    ):  # fmt: skip
        with pytest.raises(Malformed):
            check_lines(shapes[name])
        with pytest.raises(Malformed):
            read_head(shapes[name], Limits(), absolute_form=False)
    check_lines(shapes["a value beyond ASCII"])


async def test_a_head_is_found_where_its_lines_were_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without llhttp's own refusals, ours still hold."""

    class Believer(HttpRequestParser):
        def __init__(self, protocol: object) -> None:
            super().__init__(protocol)
            self.set_dangerous_leniencies(
                lenient_headers=True,
                lenient_optional_lf_after_cr=True,
                lenient_optional_cr_before_lf=True,
            )

    monkeypatch.setattr("chassis.http1.head.HttpRequestParser", Believer)
    assert len(_LINE_ENDS) >= 15
    for shape in SHAPES:
        if shape.name not in _LINE_ENDS:
            continue
        assert statuses(await Wire(make()).send(shape.sent)) == [400], shape.name


_LINE_ENDS = NAMES[
    NAMES.index("a bare LF after the request line") : NAMES.index("white space before a colon")
]


# Limits of bodies.


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_body_beyond_its_limit_is_413(chunked: bool, at_once: bool) -> None:
    async def handle(request: Request) -> Response:
        return seen(request, await request.read())

    failed, body = Failures(), b"x" * 11
    if chunked:
        sent = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        sent += b"b\r\n" + body + b"\r\n0\r\n\r\n"
    else:
        sent = post(body)
    wire = Wire(make(handle, failed=failed, limits={"body_bytes": 10}))
    border = sent.index(b"\r\n\r\n") + 5
    answer = await wire.send(*([sent] if at_once else [sent[:border], sent[border:]]))
    assert statuses(answer) == [413]
    assert failed.all == [Failure(413, "body_too_large")]
    wire = Wire(make(handle, limits={"body_bytes": 11}))
    assert statuses(await wire.send(sent)) == [200]


async def test_an_announced_body_beyond_its_limit_is_neither_invited_nor_awaited() -> None:
    wire = Wire(make(limits={"body_bytes": 10}, handler=_reads))
    answer = await wire.send(post(b"", "Expect: 100-continue", length=11))
    assert statuses(answer) == [413]
    assert INVITATION not in answer
    assert b"\r\nConnection: close\r\n" in answer


async def _reads(request: Request) -> Response:
    return seen(request, await request.read())


async def test_a_body_that_does_not_come_is_408() -> None:
    server = make(_reads, limits={"body_seconds": 0.02})
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(post(b"{", length=20))
        assert statuses(await reader.read()) == [408]


async def test_a_streamed_body_has_its_deadline_for_each_piece() -> None:
    async def handle(request: Request) -> Response:
        pieces = [piece async for piece in request.stream(0.02)]
        return seen(request, b"".join(pieces))

    async with listening(make(handle)) as port, connected(port) as (reader, writer):
        writer.write(post(b"{", length=20))
        assert statuses(await reader.read()) == [408]


# Invitations.


async def test_a_caller_that_asks_first_is_invited_when_its_body_is_wanted() -> None:
    wanted = asyncio.Event()

    async def handle(request: Request) -> Response:
        await wanted.wait()
        return seen(request, await request.read())

    async with listening(make(handle)) as port, connected(port) as (reader, writer):
        writer.write(post(b"", "Expect: 100-Continue", length=2))
        wanted.set()
        assert await reader.readexactly(len(INVITATION)) == INVITATION
        writer.write(b"{}" + GET)
        assert (await answer_of(reader))[1] == b"POST / [{}]"
        assert (await answer_of(reader))[1] == b"GET / []"


async def test_a_caller_that_is_refused_is_not_invited() -> None:
    wire = Wire(make(lambda _: Response(OK)))
    answer = await wire.send(post(b"", "Expect: 100-continue", length=2))
    assert statuses(answer) == [200]
    assert INVITATION not in answer
    assert b"\r\nConnection: close\r\n" in answer  # its body may come or not


async def test_a_caller_that_has_begun_to_send_is_not_invited() -> None:
    answer = await Wire(make()).send(post(b"{", "Expect: 100-continue", length=2), b"}")
    assert INVITATION not in answer
    assert answer.endswith(b"[{}]")


async def test_a_caller_is_invited_once() -> None:
    wire = Wire(make())
    answer = await wire.send(post(b"", "Expect: 100-continue", length=2), b"{", b"}")
    assert answer.count(INVITATION) == 1
    assert answer.endswith(b"[{}]")


# Back-pressure on what arrives.


async def test_a_body_that_nobody_reads_is_held_back() -> None:
    read_on = asyncio.Event()
    total = 0

    async def handle(request: Request) -> Response:
        nonlocal total
        await read_on.wait()
        async for piece in request.stream():
            total += len(piece)
        return Response(OK)

    wire = Wire(make(handle))
    size = 4 * HIGH_WATER
    states = []
    for sent in (post(b"x" * 100, length=size), b"x" * HIGH_WATER):
        wire.connection.data_received(sent)
        states.append(wire.transport.paused)
    assert states == [False, True]
    read_on.set()
    await wire.settle()
    assert not wire.transport.paused
    assert statuses(await wire.send(b"x" * (size - HIGH_WATER - 100))) == [200]
    assert total == size


async def test_requests_behind_a_slow_one_are_held_back() -> None:
    go_on = asyncio.Event()

    async def handle(request: Request) -> Response:
        await go_on.wait()
        return await echo(request)

    wire = Wire(make(handle))
    many = HIGH_WATER // len(GET) + 2
    wire.connection.data_received(GET)
    wire.connection.data_received(GET * many)
    assert wire.transport.paused
    go_on.set()
    async with asyncio.timeout(20):
        while wire.transport.written.count(b"HTTP/1.1 200 ") <= many:
            await asyncio.sleep(0)
    assert len(statuses(bytes(wire.transport.written))) == many + 1
    assert not wire.transport.paused


async def test_a_pipeline_does_not_keep_others_waiting() -> None:
    served = 0

    def handle(_: Request) -> Response:
        nonlocal served
        served += 1
        return Response(OK)

    wire = Wire(make(handle))
    wire.connection.data_received(GET * 1000)
    assert 0 < served < 100
    while served < 1000:
        await asyncio.sleep(0)
    assert len(statuses(bytes(wire.transport.written))) == 1000


async def test_answers_come_in_the_order_of_their_requests() -> None:
    first_may = asyncio.Event()

    def handle(request: Request) -> Response | Awaitable[Response]:
        async def later() -> Response:
            await first_may.wait()
            return seen(request, b"late")

        return later() if request.target == "/slow" else seen(request, b"")

    async with listening(make(handle)) as port, connected(port) as (reader, writer):
        writer.write(GET.replace(b"/ ", b"/slow ") + GET)
        asyncio.get_running_loop().call_later(0, first_may.set)
        assert (await answer_of(reader))[1] == b"GET /slow [late]"
        assert (await answer_of(reader))[1] == b"GET / []"


# Bodies that end too early.


@pytest.mark.parametrize("more", [b"", b"zz\r\n"])
async def test_a_body_that_breaks_off_is_an_error_for_its_reader(more: bytes) -> None:
    raised: list[str] = []

    async def handle(request: Request) -> Response:
        try:
            await request.read()
        except BodyBrokenOff as broken:
            raised.append(broken.reason)
            raise
        return Response(OK)

    failed = Failures()
    sent = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
    async with listening(make(handle, failed=failed)) as port:
        answer = await exchange(port, sent + more)
    assert statuses(answer) == [400]
    assert raised == failed.reasons == ["chunk_size" if more else "body_broken_off"]


async def test_what_came_before_the_end_is_read_before_the_error() -> None:
    pieces: list[bytes] = []

    async def handle(request: Request) -> Response:
        async for piece in request.stream():
            pieces.append(piece)
        return Response(OK)

    async with listening(make(handle)) as port:
        assert statuses(await exchange(port, post(b"abc", length=6))) == [400]
    assert b"".join(pieces) == b"abc"


async def test_a_synchronous_handler_is_given_what_has_arrived() -> None:
    wire = Wire(make(echo_at_once))
    answer = await wire.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    )
    assert answer.endswith(b"POST / [{}]")
