"""A steady rate of requests, whether or not the answers keep up.

Each request is due at a moment fixed beforehand, and its latency counts from that moment: a server
that stalls is charged for everybody who would have called meanwhile. Closed-loop callers stop
calling a server that stalls, and so never see it.
"""

import asyncio
import ssl
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, cast

from tests.bench.load import Load, whole_answer

_PATIENCE_SECONDS: Final = 10.0
_OPENED_AT_ONCE: Final = 16


class Line(asyncio.Protocol):
    """One connection, with at most one request on it."""

    def __init__(self) -> None:
        self.answered: Callable[[Line, bool], None] | None = None
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def certificate(self) -> dict[str, Any]:
        """The server's."""
        return self._transport.get_extra_info("peercert", {}) if self._transport else {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes) -> None:
        if self._transport is None:
            self._say(False)
        else:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if (status := whole_answer(self._buffer)) is not None:
            self._buffer = b""
            self._say(status == 200)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._say(False)

    def close(self) -> None:
        self.answered = None
        if self._transport is not None:
            self._transport.close()

    def _say(self, good: bool) -> None:
        if self.answered is not None:
            self.answered(self, good)


async def opened(
    host: str, port: int, contexts: Sequence[ssl.SSLContext | None], count: int
) -> list[Line]:
    """`count` connections, with these client contexts in turn."""
    loop, limit = asyncio.get_running_loop(), asyncio.Semaphore(_OPENED_AT_ONCE)

    async def one(number: int) -> Line:
        async with limit:
            tls = contexts[number % len(contexts)]
            return (await loop.create_connection(Line, host, port, ssl=tls))[1]

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def answer(line: Line, request: bytes) -> bool:
    """Whether one request over `line` got its 200."""
    came: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def answered(_: Line, good: bool) -> None:
        line.answered = None
        came.set_result(good)

    line.answered = answered
    line.send(request)
    return await came


class Steady:
    """Sends at `rate` per second over `lines`, each in its turn; counts what failed.

    `request_for` makes the next request for the line it is to go over.
    """

    def __init__(
        self, lines: Sequence[Line], request_for: Callable[[Line], bytes], *, rate: float
    ) -> None:
        self._free, self._request_for, self._rate = deque(lines), request_for, rate
        self._late: deque[float] = deque()
        self._due: dict[Line, float] = {}
        self._latencies: list[float] = []
        self.sent = self.failed = 0
        for line in lines:
            line.answered = self._answered

    async def run(self, until: Callable[[float], bool]) -> Load:
        """Send until `until` says so of the seconds that have passed; then wait for the rest."""
        begun = time.perf_counter()
        while not until((now := time.perf_counter()) - begun):
            while (due := begun + self.sent / self._rate) <= now:
                self.sent += 1
                self._late.append(due)
                self._send()
            # Not a timer: those of event loops are a millisecond apart.
            await asyncio.sleep(0)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while self._due:
                await asyncio.sleep(0)
        self.failed += len(self._late)
        cuts = statistics.quantiles(self._latencies, n=100)
        taken = time.perf_counter() - begun
        count = len(self._latencies)
        return Load(count / taken, cuts[49] * 1000, cuts[98] * 1000, count)

    def _send(self) -> None:
        while self._late and self._free:
            line = self._free.popleft()
            if line.open:
                self._due[line] = self._late.popleft()
                line.send(self._request_for(line))

    def _answered(self, line: Line, good: bool) -> None:
        due = self._due.pop(line, None)
        if due is None:
            return
        if good:
            self._latencies.append(time.perf_counter() - due)
            self._free.append(line)
        else:
            self.failed += 1
        self._send()


async def steady(
    host: str,
    port: int,
    requests: Iterator[bytes],
    *,
    rate: float,
    seconds: float,
    lines: int,
    tls: ssl.SSLContext | None = None,
) -> Load:
    """One round over connections of its own. Raises ValueError where one failed."""
    opened_lines = await opened(host, port, [tls], lines)
    load = Steady(opened_lines, lambda _: next(requests), rate=rate)
    measured = await load.run(lambda passed: passed >= seconds)
    for line in opened_lines:
        line.close()
    if load.failed:
        raise ValueError(f"{load.failed} of {load.sent} requests failed")
    return measured
