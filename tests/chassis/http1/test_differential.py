"""Whatever aiohttp or nginx refuses, we refuse: each shape of the corpus is sent to both."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from tests.chassis.http1.harness import STATUS, close
from tests.chassis.http1.shapes import SHAPES

_NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
_CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; keepalive_timeout 60; lingering_timeout 1s; client_header_timeout 5s;
  proxy_ignore_client_abort on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  large_client_header_buffers 4 16k;
  server {{ listen unix:{folder}/origin; location / {{ return 200 "ok"; }} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://unix:{folder}/origin:/; }}
  }}
}}
"""


async def refuses(port: int, sent: bytes) -> bool:
    """Whether a server answers anything in `sent` with an error, or nothing at all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(10):
            while part := await reader.read(65536):
                answer += part
    except ConnectionError:
        pass
    finally:
        await close(writer)
    found = [int(status) for status in STATUS.findall(answer)]
    return not found or max(found) >= 400


@asynccontextmanager
async def nginx(folder: Path) -> AsyncIterator[int]:
    """nginx before an origin of its own, so that it reads bodies to their end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, port=port), "utf-8")
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


def aiohttp_refuses(sent: bytes) -> bool:
    """What its server's parser says; the server cannot be half-closed."""
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(
        BaseProtocol(loop), loop, 2**16, max_line_size=16384, max_field_size=16384
    )
    try:
        messages, _, _ = parser.feed_data(sent)
    except HttpProcessingError as refused:
        # It reports bytes behind a last request, which nobody else reads.
        return "Data after `Connection: close`" not in str(refused)
    whole = [payload.is_eof() and payload.exception() is None for _, payload in messages]
    return not whole or not all(whole)


@pytest.mark.skipif(_NGINX is None, reason="nginx is not installed")
async def test_whatever_nginx_refuses_we_refuse(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Serving less than it is no fault; each shape that it refuses alone is named with a reason."""
    folder = Path(tmp_path_factory.mktemp("n"))
    async with nginx(folder) as port:
        verdicts = [await refuses(port, shape.sent) for shape in SHAPES]
    _compare("nginx", verdicts, [shape.nginx for shape in SHAPES])
    assert sum(verdicts) > 100


async def test_whatever_aiohttp_refuses_we_refuse() -> None:
    verdicts = [aiohttp_refuses(shape.sent) for shape in SHAPES]
    _compare("aiohttp", verdicts, [shape.aiohttp for shape in SHAPES])
    assert sum(verdicts) > 100


def _compare(server: str, verdicts: list[bool], reasons: list[str | None]) -> None:
    judged = list(zip(SHAPES, verdicts, reasons, strict=True))
    ours = {
        shape.name for shape, refused, why in judged if refused and not shape.refused and not why
    }
    assert not ours, f"{server} refuses what we serve"
    stale = {shape.name for shape, refused, why in judged if why and not refused}
    assert not stale, f"the corpus says that {server} refuses these"
