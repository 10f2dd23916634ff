"""Servers of `chassis.http1` for tests: on a socket, and on a transport in memory."""

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from chassis.http1.connection import Connection
from chassis.http1.continuation import AnyResponse
from chassis.http1.errors import Failure
from chassis.http1.limits import Limits
from chassis.http1.request import Request
from chassis.http1.response import Response, ResponseHead
from chassis.http1.server import Server, plain_failure

NOON = 1_700_049_600.0  # Wed, 15 Nov 2023 12:00:00 GMT
OK = ResponseHead(200, (("Content-Type", "text/plain"),))
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def seen(request: Request, body: bytes) -> Response:
    """An answer that shows what the handler was given."""
    return Response(OK, b"%b %b [%b]" % (request.method.encode(), request.target.encode(), body))


async def echo(request: Request) -> Response:
    return seen(request, await request.read(1 << 20))


def echo_at_once(request: Request) -> AnyResponse | Awaitable[AnyResponse]:
    """Answers synchronously where it can."""
    return echo(request) if request.body is None else seen(request, request.body)


class Failures:
    """Renders failures plainly and remembers them."""

    def __init__(self) -> None:
        self.all: list[Failure] = []

    def __call__(self, failure: Failure) -> Response:
        self.all.append(failure)
        return plain_failure(failure._replace(bug=None))

    @property
    def reasons(self) -> list[str]:
        return [failure.reason for failure in self.all]


def make(handler: Callable[[Request], Any] = echo_at_once, **options: Any) -> Server:
    if isinstance(options.get("limits"), dict):
        options["limits"] = Limits(**options["limits"])
    return Server(handler, wall=lambda: NOON, **options)


@asynccontextmanager
async def listening(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of `server`, which is shut down afterwards."""
    bound = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, ssl=tls)
    try:
        yield bound.sockets[0].getsockname()[1]
    finally:
        bound.close()
        await server.shutdown(0)
        await bound.wait_closed()


async def exchange(port: int, sent: bytes) -> bytes:
    """Send everything, send no more, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        writer.write_eof()
        return await reader.read()
    finally:
        await close(writer)


@asynccontextmanager
async def connected(
    port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host = "localhost" if tls else "127.0.0.1"
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        yield reader, writer
    finally:
        await close(writer)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close, and wait for it: what the garbage collector closes is an error of some later test."""
    writer.close()
    try:
        async with asyncio.timeout(5):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


async def answer_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The head and the body of one answer with a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
    return head, await reader.readexactly(int(length[1])) if length else b""


def vanish(writer: asyncio.StreamWriter) -> None:
    """Reset the connection (RST); closing alone cannot be told from half-closing."""
    plain = writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until `condition` holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def statuses(answer: bytes) -> list[int]:
    """The statuses of final responses, one after the other. Raises where the framing is wrong."""
    found = []
    while answer:
        head, _, answer = answer.partition(b"\r\n\r\n")
        match = STATUS.match(head)
        assert match is not None, head
        if match[1] == b"100":
            continue
        found.append(int(match[1]))
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        assert length is not None, head
        assert len(answer) >= int(length[1])
        answer = answer[int(length[1]) :]
    return found


class MemoryTransport(asyncio.Transport):
    """A peer in memory that reads everything at once, and sends when `Wire.send` is called."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = bytearray()
        self.closed = self.sent_end = self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        assert not self.sent_end
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.sent_end = True


class Wire:
    """One connection of `server` in memory."""

    def __init__(self, server: Server) -> None:
        self.transport = MemoryTransport()
        self.connection: Connection = server()
        self.connection.connection_made(self.transport)

    async def send(self, *pieces: bytes) -> bytes:
        """Everything that the server answers to these pieces, each handled before the next."""
        for piece in pieces:
            if not self.transport.closed:
                self.connection.data_received(piece)
            await self.settle()
        return bytes(self.transport.written)

    async def settle(self) -> None:
        for _ in range(3):  # a handler's task, its reader, and the rest of the pipeline
            await asyncio.sleep(0)
        while self.connection._work is not None and not self._waits():
            await asyncio.sleep(0)

    def _waits(self) -> bool:
        incoming = self.connection._incoming
        return incoming is not None and not incoming.whole and incoming._error is None

    def end(self) -> None:
        self.connection.connection_lost(None)
