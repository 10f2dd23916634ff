"""Servers that answer from a script, for tests of the client, and shapes of responses."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from chassis.http1.client import Client, Host
from chassis.http1.limits import Limits
from tests.chassis.http1.harness import close, until

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def client(port: int, tls: ssl.SSLContext | None = None, **limits: Any) -> Client:
    name = "localhost" if tls else "127.0.0.1"
    return Client(Host(name, port), tls, limits=Limits(**limits), connect_seconds=20)


class Script:
    """A server that answers each request with the next bytes of its script; None: it hangs up."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers, self.received, self.connections = list(answers), bytearray(), 0
        self.lost = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while self.answers:
                self.received += await reader.readuntil(b"\r\n\r\n")
                answer = self.answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if b"[end]" in answer:
                    break
            else:
                await reader.read()
        self.lost += 1
        writer.close()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    """A server that leaves no connection behind."""
    open_, ended = list[asyncio.StreamWriter](), list[None]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.append(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            await close(writer)
            ended.append(None)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in open_:
            writer.transport.abort()
        await until(lambda: len(ended) == len(open_))
        await server.wait_closed()


@asynccontextmanager
async def scripted(*answers: bytes | None) -> AsyncIterator[tuple[Script, int]]:
    script = Script(*answers)
    async with serving(script.serve) as port:
        yield script, port


GOOD = {
    "with a length": (OK, b"ok"),
    "of HTTP/1.0": (OK.replace(b"1.1", b"1.0"), b"ok"),
    "without a reason": (OK.replace(b" OK", b" "), b"ok"),
    "without the space of a reason": (OK.replace(b" OK", b""), b"ok"),
    "in chunks": (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"ok"),
    "without a body": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "not modified, with a length": (b"HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", b""),
    "after interim ones": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\n" + OK,
        b"ok",
    ),
}
BAD = {
    "no HTTP": b"220 mail.example ESMTP\r\n\r\n[end]",
    "HTTP/2": OK.replace(b"1.1", b"2"),
    "HTTP/1.2": OK.replace(b"1.1", b"1.2"),
    "a status of two digits": OK.replace(b"200", b"20"),
    "a status of four digits": OK.replace(b"200", b"2000"),
    "status 099": OK.replace(b"200", b"099"),
    "status 600": OK.replace(b"200", b"600"),
    "a bare LF": OK.replace(b"OK\r\n", b"OK\n"),
    "a bare CR": OK.replace(b"OK\r\n", b"O\rK\r\n"),
    "a NUL": OK.replace(b"OK", b"O\0"),
    "a fold": OK.replace(b": 2", b":\r\n 2"),
    "white space before a colon": OK.replace(b"h: 2", b"h : 2"),
    "two lengths": OK.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n"),
    "length and chunks": CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n")
    + b"0\r\n\r\n",
    "a negative length": OK.replace(b": 2", b": -2"),
    "a length that is none": OK.replace(b": 2", b": two"),
    "no framing": b"HTTP/1.1 200 OK\r\n\r\nok[end]",
    "chunks of HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    "an unknown coding": CHUNKED.replace(b"chunked", b"gzip, chunked") + b"0\r\n\r\n",
    "a chunk that is none": CHUNKED + b"zz\r\n",
    "a trailer": CHUNKED + b"0\r\nA: b\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "interim ones without end": b"HTTP/1.1 100 x\r\n\r\n" * 20,
    "a body that breaks off": OK.replace(b": 2", b": 9") + b"[end]",
    "chunks that break off": CHUNKED + b"9\r\n[end]",
    "a head that breaks off": OK[:20] + b"[end]",
    "a head that is too long": OK.replace(b"OK\r\n", b"OK\r\nA: " + b"a" * 20_000 + b"\r\n"),
    "a head without end": b"HTTP/1.1 200 OK\r\nA: " + b"a" * 20_000,
    "a body that is too long": OK.replace(b": 2", b": 99") + b"a" * 99,
    "chunks that are too long": CHUNKED + b"99\r\n" + b"a" * 0x99 + b"\r\n",
    "65 fields": OK.replace(b"OK\r\n", b"OK\r\n" + b"A: b\r\n" * 65),
}
