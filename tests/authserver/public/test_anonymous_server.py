"""The public listener names no software, and does not repeat what it could not read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from authserver.public.aiohttp_listener import AiohttpListener
from authserver.public.connection_limits import ConnectionLimits


async def hello(_: web.BaseRequest) -> web.Response:
    return web.Response(text="hello")


async def broken(_: web.BaseRequest) -> web.Response:
    raise RuntimeError("a canary of the inside")


def application() -> web.Application:
    app = web.Application()
    app.router.add_get("/", hello)
    app.router.add_get("/broken", broken)
    return app


REQUESTS = {
    "good": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "not found": b"GET /canary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "broken": b"GET /broken HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "no method": b"CANARY\r\n\r\n",
    "not HTTP": b"\x16\x03\x01canary\r\n\r\n",
    "bad header": b"GET / HTTP/1.1\r\nHost: a\r\nCanary : b\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: canary\r\n\r\n",
    "bad version": b"GET / HTTP/canary\r\nHost: a\r\n\r\n",
    "long line": b"GET /" + b"canary" * 2000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
}


@asynccontextmanager
async def listening_port() -> AsyncIterator[int]:
    listener = AiohttpListener("test", "127.0.0.1", 0, application(), ConnectionLimits())
    runner = await listener.bind(0.0)
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS)
async def test_an_answer_names_no_software_and_repeats_nothing(request_bytes: bytes) -> None:
    async with listening_port() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
    assert answer.startswith((b"HTTP/1.0 ", b"HTTP/1.1 "))
    head, _, _ = answer.lower().partition(b"\r\n\r\n")
    assert b"\r\nserver:" not in head
    for word in (b"aiohttp", b"canary", b"traceback"):
        assert word not in answer.lower()
