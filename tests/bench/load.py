"""A load generator small enough not to be what is measured: raw HTTP/1.1 over asyncio streams.

Closed loop: each connection sends its next request when the answer to the last one is whole. What
a steady rate of callers waits for is measured in `open_loop`.
"""

import asyncio
import math
import ssl
import statistics
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Final, cast

_LENGTH: Final = b"content-length: "
_PATIENCE_SECONDS: Final = 10.0

# One request over and over, or one after the other.
Calls = bytes | Iterator[bytes]


@dataclass(frozen=True)
class Load:
    """What one round came to; latencies in milliseconds, CPU in microseconds for each request."""

    per_second: float
    p50: float
    p99: float
    count: int
    cpu: float = math.nan


async def costing(pid: int, driving: Awaitable[Load]) -> Load:
    """What a round came to, and what it cost the server's first thread, which does all the work.

    CPU time is what other processes on a machine disturb least.
    """
    before = _cpu_seconds(pid)
    load = await driving
    return replace(load, cpu=(_cpu_seconds(pid) - before) / load.count * 1e6)


def _cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[0]) / 1e9


class LoadFailed(Exception):
    """An answer was not the expected 200."""


class _Caller(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], until: float, latencies: list[float]) -> None:
        self._requests, self._until, self._latencies = requests, until, latencies
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        status = whole_answer(self._buffer)
        if status is None:
            return
        if status != 200:
            self._end(LoadFailed(self._buffer[:200].decode(errors="replace")))
            return
        now = time.perf_counter()
        self._latencies.append(now - self._sent_at)
        self._buffer = b""
        if now < self._until:
            self._send()
        else:
            self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or LoadFailed("the connection was closed"))

    def _send(self) -> None:
        assert self._transport is not None
        request = next(self._requests, None)
        if request is None:
            self._end(None)
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def _end(self, error: Exception | None) -> None:
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
        assert self._transport is not None
        self._transport.close()


def whole_answer(received: bytes) -> int | None:
    """The status of an answer with a Content-Length; None until all of it is there."""
    head = received.find(b"\r\n\r\n")
    if head < 0:
        return None
    lowered = received[:head].lower()
    start = lowered.index(_LENGTH) + len(_LENGTH)
    end = lowered.find(b"\r\n", start)
    length = int(lowered[start : end if end >= 0 else head])
    return int(received[9:12]) if len(received) >= head + 4 + length else None


async def drive(
    host: str,
    port: int,
    request: Calls,
    *,
    connections: int,
    seconds: float,
    tls: ssl.SSLContext | None = None,
) -> Load:
    """Send `request` over and over, or one after the other until there is none left.

    Raises LoadFailed when anything but a 200 comes back.
    """
    requests = repeat(request) if isinstance(request, bytes) else request
    latencies: list[float] = []
    loop, begun = asyncio.get_running_loop(), time.perf_counter()
    callers = []
    for _ in range(connections):
        _, caller = await loop.create_connection(
            lambda: _Caller(requests, begun + seconds, latencies), host, port, ssl=tls
        )
        callers.append(caller)
    async with asyncio.timeout(seconds + _PATIENCE_SECONDS):
        await asyncio.gather(*(caller.done for caller in callers))
    took = time.perf_counter() - begun
    cuts = statistics.quantiles(latencies, n=100)
    return Load(len(latencies) / took, cuts[49] * 1000, cuts[98] * 1000, len(latencies))


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of a POST request."""
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body
