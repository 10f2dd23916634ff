"""Responses in memory: one reading wherever the bytes are cut, and the one that others have."""

import asyncio
from itertools import pairwise
from typing import NamedTuple

import h11
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.http1.client import Client, Host
from chassis.http1.client_connection import ClientConnection
from chassis.http1.limits import Limits
from chassis.http1.no_response import NoResponse
from chassis.http1.outgoing import RequestHead
from tests.chassis.http1.harness import MemoryTransport
from tests.chassis.http1.scripted import BAD, GOOD

SHAPES = {name: answer for name, (answer, _) in GOOD.items()} | BAD
_LIMITS = Limits(body_bytes=90)
_PIECES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 x\r\n", b"HTTP/1.1 100 x\r\n",
    b"HTTP/1.1 304 x\r\n", b"Content-Length: 2\r\n", b"Content-Length: 02\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: Chunked\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Set-Cookie: a\r\n", b" folded\r\n", b"A:\r\n", b"\r\n", b"\r", b"\n", b"\0", b"ok",
    b"2\r\nok\r\n", b"02\r\nok\r\n", b"2;a=b\r\nok\r\n", b"0\r\n\r\n", b"0\r\n", b"A: b\r\n\r\n",
]  # fmt: skip


class Reading(NamedTuple):
    """A whole response, and whether the connection may be used again."""

    status: int
    body: bytes
    reusable: bool


async def read(method: str, pieces: list[bytes], *, lost: bool = True) -> Reading | None:
    """What our client makes of bytes that arrive in these pieces; None: no whole response."""
    asking = Client(Host("api.test", 1), None, limits=_LIMITS, connect_seconds=1)
    connection = ClientConnection(asking, asyncio.get_running_loop())
    connection.connection_made(MemoryTransport())
    asking._idle.append(connection)

    async def ask() -> Reading | None:
        try:
            response = await asking.stream(RequestHead(method, "/", "api.test"))
            body = await response.read(90)
        except NoResponse:
            return None
        return Reading(response.status, body, bool(asking._idle))

    asking_task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    for piece in pieces:
        if connection._transport is not None and not connection._transport.is_closing():
            connection.data_received(piece)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if lost:
        connection.connection_lost(None)
    return await asking_task


def read_by_h11(method: str, sent: bytes) -> tuple[int, bytes] | None:
    """The same by h11, where the connection ends after these bytes."""
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    peer.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        peer.receive_data(sent)
        peer.receive_data(b"")
        while True:
            event = peer.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            elif event is h11.NEED_DATA or event is h11.PAUSED:
                return None
    except h11.RemoteProtocolError:
        return None


async def read_by_aiohttp(sent: bytes) -> tuple[int, bytes] | None:
    """The same by the parser of aiohttp's client."""
    loop = asyncio.get_running_loop()
    parser = HttpResponseParser(BaseProtocol(loop), loop, 2**16, read_until_eof=True)
    try:
        messages, _, _ = parser.feed_data(sent)
        parser.feed_eof()
    except HttpProcessingError as refused:
        if "Data after" not in str(refused):  # bytes behind a response, which nobody reads
            return None
        messages = []
    for message, payload in messages:
        if message.code >= 200:
            whole = payload.is_eof() and payload.exception() is None
            return (message.code, await payload.read()) if whole else None
    return None


def _cut(sent: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)]
    return [sent[begin:end] for begin, end in pairwise(borders) if end > begin]


@pytest.mark.parametrize("name", SHAPES)
async def test_a_shape_has_one_reading_wherever_it_is_cut(name: str) -> None:
    sent = SHAPES[name][:2000]
    whole = await read("GET", [sent])
    for at in range(1, min(len(sent), 200)):
        pieces = await read("GET", [sent[:at], sent[at:]])
        assert (pieces and pieces[:2]) == (whole and whole[:2]), at


@pytest.mark.parametrize("name", GOOD)
async def test_a_response_that_breaks_off_anywhere_is_not_whole(name: str) -> None:
    sent, body = GOOD[name]
    for at in range(len(sent)):
        assert await read("GET", [sent[:at]] if at else []) is None, at
    reading = await read("GET", [sent], lost=False)
    assert reading is not None
    assert reading.body == body


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_we_read_others_read_alike(method: str, name: str) -> None:
    """A shape that two programs read differently would be another response behind us."""
    ours = await read(method, [SHAPES[name]])
    if ours is None:
        return
    assert read_by_h11(method, SHAPES[name]) == ours[:2]
    if method == "GET":
        assert await read_by_aiohttp(SHAPES[name]) in (ours[:2], None)


async def test_the_others_read_what_they_should() -> None:
    """Comparing would show nothing where they refused everything."""
    good = [answer for answer, _ in GOOD.values()]
    assert sum(read_by_h11("GET", answer) is not None for answer in good) == len(good)
    assert sum([await read_by_aiohttp(answer) is not None for answer in good]) >= 6


_SENT = st.lists(st.sampled_from(_PIECES), max_size=12).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(_SENT, st.lists(st.integers(0, 500), max_size=6), st.sampled_from(["GET", "HEAD"]))
def test_made_up_responses_have_one_reading_and_others_agree(
    sent: bytes, cuts: list[int], method: str
) -> None:
    async def main() -> None:
        whole, cut = await read(method, [sent]), await read(method, _cut(sent, cuts))
        assert (whole and whole[:2]) == (cut and cut[:2])
        if whole is not None:
            assert read_by_h11(method, sent) == whole[:2]

    asyncio.run(main())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_arbitrary_bytes_are_a_response_or_none(pieces: list[bytes]) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    for sent in (pieces, [head, *pieces], [head, b"\r\n", *pieces]):
        reading = asyncio.run(read("GET", [piece for piece in sent if piece]))
        assert reading is None or 200 <= reading.status < 600
