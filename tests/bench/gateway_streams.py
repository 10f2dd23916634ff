"""What an event costs that the gateway passes on, and an idle stream."""

import asyncio
import contextlib
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import aiohttp

from tests.bench.running_gateway import running_gateway
from tests.bench.wrk import free_ports
from tests.sidecar.gateway.harness import users
from tests.sidecar.harness import JWT

_STREAMS: Final = 200
_EVENTS: Final = 400


async def _feed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An app that sends events with the time in them, or none to an idle stream."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with contextlib.suppress(ConnectionError):
        while b"GET /idle" not in head:
            event = b"data: %d\n\n" % time.perf_counter_ns()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.005)
        await reader.read()
    writer.close()


async def _delays(port: int) -> list[float]:
    """How long each event was on its way, in milliseconds."""
    headers = {"Authorization": f"Bearer {JWT}"}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}/events", headers=headers) as stream,
    ):
        delays: list[float] = []
        while len(delays) < _EVENTS:
            event = await stream.content.readuntil(b"\n\n")
            delays.append((time.perf_counter_ns() - int(event[6:])) / 1e6)
        return delays


def _private_kilobytes(pid: int) -> int:
    found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text("ascii"))
    assert found is not None
    return int(found[1])


async def _idle(stack: contextlib.AsyncExitStack, port: int) -> None:
    http = await stack.enter_async_context(
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    )
    jwts = list(users("a", "b", "c", "d").values())
    for number in range(_STREAMS):
        headers = {"Authorization": f"Bearer {jwts[number % len(jwts)]}"}
        request = http.get(f"http://127.0.0.1:{port}/idle", headers=headers)
        await stack.enter_async_context(request)


async def measure_streams() -> None:
    """What an event and an idle stream cost."""
    app, port = free_ports(2)
    with tempfile.TemporaryDirectory() as name:
        async with (
            await asyncio.start_server(_feed, "127.0.0.1", app),
            running_gateway(Path(name), port, app) as pid,
        ):
            delays: dict[int, list[float]] = {app: [], port: []}
            for _ in range(4):
                for at, told in delays.items():
                    told += await _delays(at)
            direct, through = (statistics.median(delays[at]) for at in (app, port))
            before = _private_kilobytes(pid)
            async with contextlib.AsyncExitStack() as stack:
                await _idle(stack, port)
                each = (_private_kilobytes(pid) - before) / _STREAMS
    print(f"an event comes {through - direct:.3f} ms later (p50; {direct:.3f} ms without us)")
    print(f"an idle stream takes {each:.1f} kB of private memory")
