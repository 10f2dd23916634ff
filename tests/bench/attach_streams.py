"""What event streams through Attach cost: memory of a silent one, and the time of an event."""

import asyncio
import contextlib
import re
import ssl
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from tests.bench.figures import Figure

STREAMS: Final = 200
_EVENTS: Final = 300
_PAUSE_SECONDS: Final = 0.002
_SETTLE_SECONDS: Final = 0.5
_PRIVATE: Final = re.compile(r"^Private_(?:Clean|Dirty): +(\d+) kB", re.MULTILINE)


class EventApi:
    """An API over TLS whose every answer is a stream of events, sent when `send` is called."""

    def __init__(self) -> None:
        self._streams: list[web.StreamResponse] = []

    @contextlib.asynccontextmanager
    async def listening(self, credential: Path, port: int) -> AsyncIterator[None]:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(credential / "tls.crt", credential / "tls.key")
        runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls, backlog=512)
        await site.start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self._streams.append(response)
        await asyncio.Event().wait()
        return response

    async def send(self, event: bytes) -> None:
        """To the stream that was opened last."""
        await self._streams[-1].write(event)


async def measure_streams(
    api: EventApi, direct: str, through: str, headers: dict[str, str], pid: int
) -> list[Figure]:
    """`through` is the sidecar's URL of what is at `direct`; `pid` is the sidecar's."""
    connector = aiohttp.TCPConnector(limit=0, ssl=False)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
        first = [await http.get(through) for _ in range(4)]  # what one call costs is no stream's
        before = await _private_kb(pid)
        streams = [await http.get(through) for _ in range(STREAMS)]
        each = (await _private_kb(pid) - before) / STREAMS
        ours = await _event_ms(api, streams[-1])
        none_between = await http.get(direct)
        straight = await _event_ms(api, none_between)
        for answer in (*first, *streams, none_between):
            answer.close()
    return [
        Figure(f"Attach, {STREAMS} silent streams, private memory of each", "KB", each, None),
        Figure("Attach, an event of a stream (beside none between)", "p50 ms", ours, straight),
    ]


async def _event_ms(api: EventApi, answer: aiohttp.ClientResponse) -> float:
    took = []
    for _ in range(_EVENTS):
        begun = time.perf_counter()
        await api.send(b"data: 1\n\n")
        await answer.content.readany()
        took.append(time.perf_counter() - begun)
        await asyncio.sleep(_PAUSE_SECONDS)
    return statistics.median(took) * 1000


async def _private_kb(pid: int) -> int:
    await asyncio.sleep(_SETTLE_SECONDS)
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    return sum(map(int, _PRIVATE.findall(text)))
