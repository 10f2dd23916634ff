"""No shape reaches the app as two requests, and none with a credential that was not checked."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.chassis.http1.harness import STATUS, close
from tests.chassis.http1.test_differential import _NGINX
from tests.fakes.authserver import refuse, release
from tests.sidecar.gateway.app import RawApp, raw_app, response
from tests.sidecar.gateway.harness import Gated, gated
from tests.sidecar.gateway.shapes import OWN, REFUSED_JWT, SHAPES, Shape
from tests.sidecar.harness import JWT, Authorities


async def judged(received: Any) -> web.StreamResponse:
    refused = received.form.get("subject_token") == REFUSED_JWT
    return refuse(400, "invalid_request") if refused else release()


@pytest.fixture
async def g(tmp_path: Path, authorities: Authorities) -> AsyncIterator[Gated]:
    async with gated(tmp_path, authorities, {"GATEWAY_OPEN_PATHS": "/healthz"}) as gate:
        gate.authserver.always(judged)
        yield gate


async def exchange(port: int, pieces: Iterable[bytes]) -> bytes:
    """Send the pieces, each in a segment of its own, then no more; everything that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
        async with asyncio.timeout(20):
            while part := await reader.read(65536):
                answer += part
    except ConnectionError:
        pass
    finally:
        await close(writer)
    return answer


def statuses(answer: bytes, *, head: bool) -> list[int]:
    """The statuses of final answers. Raises where the framing of our own answers is wrong."""
    found = []
    while answer:
        top, _, answer = answer.partition(b"\r\n\r\n")
        match = STATUS.match(top)
        assert match is not None, top
        if match[1] == b"100":
            continue
        found.append(int(match[1]))
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", top)
        assert length is not None, top
        assert head or len(answer) >= int(length[1])
        answer = b"" if head else answer[int(length[1]) :]
    return found


def cuts(sent: bytes) -> list[list[bytes]]:
    """Whole, and cut in two: in the head, at the head's end, before the last byte."""
    end = sent.find(b"\r\n\r\n") + 2
    places = {max(1, end // 2), max(1, end), max(1, len(sent) - 1)} - {len(sent)}
    return [[sent], *([sent[:at], sent[at:]] for at in sorted(places))]


def test_the_corpus_is_not_small() -> None:
    assert len(OWN) >= 90
    assert len(SHAPES) >= 330
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
    assert sum(shape.forwarded == 0 for shape in SHAPES) >= 200


@pytest.mark.timeout(300)
async def test_a_shape_is_answered_as_the_corpus_says(g: Gated) -> None:
    wrong = {}
    for shape in SHAPES:
        for pieces in cuts(shape.sent):
            before = len(g.app.requests)
            answer = await exchange(g.port, pieces)
            told = statuses(answer, head=shape.head)
            # A body that breaks off may have begun to be forwarded; it is never a whole request.
            seen = sum(one.whole for one in g.app.requests[before:])
            if told not in expected(shape) or seen != shape.forwarded:
                wrong[shape.name] = (len(pieces), told, shape.statuses, seen)
    assert not wrong, wrong
    assert not g.app.faults
    for seen_request in g.app.requests:
        open_path = seen_request.target == "/healthz"
        sent = seen_request.get("authorization")
        assert sent == (None if open_path else f"{(sent or '')[:6]} {JWT}")
        assert seen_request.get("x-tokenward-user") == (None if open_path else "user-1")
        assert "admin" not in [value for _, value in seen_request.fields]
        assert seen_request.get("host") == f"127.0.0.1:{g.app.port}"


def expected(shape: Shape) -> list[list[int]]:
    """A client that sends no more gets no answer to what is not even a head."""
    *served, last = shape.statuses
    return [shape.statuses, served] if served and last == 400 else [shape.statuses]


# Beside it: what nginx and a reverse proxy of aiohttp let through.

_CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; lingering_timeout 1s; client_header_timeout 5s; proxy_ignore_client_abort on;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  large_client_header_buffers 8 64k;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{app}; proxy_http_version 1.1;
                  proxy_set_header Connection ""; }}
  }}
}}
"""


@asynccontextmanager
async def nginx(folder: Path, app: int) -> AsyncIterator[int]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, port=port, app=app), "utf-8")
    assert _NGINX is not None
    process = await asyncio.create_subprocess_exec(
        _NGINX, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")
    )
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    await close(writer)
                    break
                except ConnectionError:
                    assert process.returncode is None, (folder / "error.log").read_text()
                    await asyncio.sleep(0.02)
        yield port
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def aiohttp_proxy(app: int) -> AsyncIterator[int]:
    """The plainest reverse proxy that can be made of aiohttp's server and client."""
    async with aiohttp.ClientSession() as client:

        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            headers = {k: v for k, v in request.headers.items() if k.lower() != "host"}
            for name in ("Connection", "Transfer-Encoding", "Content-Length", "Upgrade", "Expect"):
                headers.pop(name, None)
            url = f"http://127.0.0.1:{app}{request.raw_path}"
            data = request.content if request.can_read_body else None
            async with client.request(
                request.method, url, headers=headers, data=data, allow_redirects=False
            ) as answer:
                return web.Response(status=answer.status, body=await answer.read())

        runner = web.ServerRunner(web.Server(forward, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


async def let_through(port: int, app: RawApp, shape: Shape) -> int:
    """How many whole requests of a shape reach the app."""
    before = len(app.requests)
    await exchange(port, [shape.sent])
    return sum(one.whole for one in app.requests[before:])


# What the gateway serves and nginx does not, each for a reason.
_NGINX_REFUSES_ALONE = {
    "server: all of OPTIONS": "it serves no *",
}


@pytest.mark.skipif(_NGINX is None, reason="nginx is not installed")
@pytest.mark.timeout(300)
async def test_the_gateway_lets_no_more_through_than_nginx_does(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = Path(tmp_path_factory.mktemp("n"))
    async with raw_app() as app, nginx(folder, app.port) as port:
        counts = {shape.name: await let_through(port, app, shape) for shape in SHAPES}
    more = {
        shape.name: (shape.forwarded, counts[shape.name])
        for shape in SHAPES
        if shape.forwarded > counts[shape.name] and shape.name not in _NGINX_REFUSES_ALONE
    }
    assert not more
    # The corpus has teeth: nginx, which looks at no JWT, lets many of them through.
    assert sum(counts[shape.name] > shape.forwarded for shape in SHAPES) > 40


@pytest.mark.timeout(300)
async def test_a_reverse_proxy_of_aiohttp_lets_more_through() -> None:
    async with raw_app() as app, aiohttp_proxy(app.port) as port:
        counts = {shape.name: await let_through(port, app, shape) for shape in SHAPES}
    # A pipeline with a JWT in each request is all that we let through as several.
    assert {shape.name for shape in SHAPES if shape.forwarded > 1} == {"a pipeline of three"}
    assert sum(counts[shape.name] > shape.forwarded for shape in SHAPES) > 20


# The other side: what an app sends never becomes somebody else's answer.


@pytest.mark.parametrize(
    "answer",
    [
        response(200, b"first") + response(200, b"second"),
        response(200, b"first") + b"HTTP/1.1 200 OK\r\nContent-Le",
        response(200, b"first") + b"\r\n",
        response(200, b"first") + b"\x00",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstsecond",
        b"HTTP/1.1 204 No Content\r\n\r\nsecond",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nsecond",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\nsecond",
        b"HTTP/1.1 100 Continue\r\n\r\n" + response(200, b"first") + response(200, b"second"),
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + response(200, b"first") + b"HTTP/1.1",
    ],
)
async def test_what_follows_a_response_goes_to_nobody(g: Gated, answer: bytes) -> None:
    g.app.then = [answer]
    reply = await g.call()
    assert b"second" not in reply.raw
    for _ in range(3):
        assert (await g.call()).raw == b"ok"


async def test_what_an_app_sends_unasked_goes_to_nobody(g: Gated) -> None:
    """On a kept connection, before the next request is there."""
    held = asyncio.Event()

    async def answer_and_go_on(seen: Any, writer: asyncio.StreamWriter) -> bool:
        writer.write(response(200, b"first"))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(response(200, b"unasked"))
        await writer.drain()
        held.set()
        return True

    g.app.then = [answer_and_go_on]
    assert (await g.call()).raw == b"first"
    await held.wait()
    assert [(await g.call()).raw for _ in range(3)] == [b"ok"] * 3
