"""The server of one listener: `loop.create_server(server, ...)` makes its connections."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from chassis import clock
from chassis.http1.connection import Connection
from chassis.http1.continuation import Outcome
from chassis.http1.errors import Failure
from chassis.http1.limits import ConnectionCount, Limits
from chassis.http1.request import Request
from chassis.http1.response import DateLine, Response, ResponseHead
from chassis.logs import Log

_log = Log("http1")

_CANCELLED_SECONDS: Final = 1.0  # for handlers that were cancelled to answer, and peers to read

Handler = Callable[[Request], Outcome]


def plain_failure(failure: Failure) -> Response:
    """An answer that holds nothing but its status."""
    if failure.bug is not None:
        _log.failure("unexpected_failure", failure.bug)
    return Response(ResponseHead(failure.status, (("Cache-Control", "no-store"),)))


class Server:
    """Answers requests with `handler`, and everything that is none with `failed`.

    A handler that needs not wait returns its response; any other returns an awaitable of it, for
    instance by being a coroutine function, or a `Continuation`, which needs no task. A handler
    that fails costs its request alone. It is cancelled when draining takes too long. With
    `abandon_seconds` it is also cancelled when its peer is gone, and so long after the peer has
    sent its last byte: a peer that goes away cannot be told from one that only sends no more.

    `absolute_form` lets requests whose target is a whole URI reach the handler. `wall` is Unix
    time. `on_drain` is called when draining begins.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits | None = None,
        failed: Callable[[Failure], Response] = plain_failure,
        absolute_form: bool = False,
        wall: clock.Clock = clock.wall,
        on_drain: Callable[[], object] = lambda: None,
        abandon_seconds: float | None = None,
    ) -> None:
        self.abandon_seconds: Final = abandon_seconds
        self.handler, self._failed = handler, failed
        self.limits: Final = limits or Limits()
        self.absolute_form: Final = absolute_form
        self.date: Final = DateLine(wall)
        self.draining = False
        self.connections: set[Connection] = set()
        self._count = ConnectionCount(self.limits)
        self._full = False
        self._on_drain = on_drain
        self._empty: asyncio.Event | None = None

    def __call__(self) -> Connection:
        return Connection(self, asyncio.get_running_loop())

    def failed(self, failure: Failure) -> Response:
        """The answer to what was not served; its owner's, or a plain one where that fails."""
        try:
            return self._failed(failure)
        except Exception as bug:  # noqa: BLE001 - the edge: every request gets an answer
            return plain_failure(Failure(500, "bug", bug))

    def add(self, connection: Connection) -> str | None:
        """Take in a new connection, unless there are too many or the server is draining.

        The name of its source, for `remove`; None where it is not taken in.
        """
        if self.draining:
            return None
        source = self._source_of(connection)
        if not self._count.admit(source):
            if not self._full:
                _log.warning("too_many_connections")
            self._full = True
            return None
        self._full = False
        self.connections.add(connection)
        return source

    def _source_of(self, connection: Connection) -> str:
        if self.limits.connections_per_source is None:
            return ""
        from chassis.rate_limit_key import rate_limit_key, read_address

        peer = connection.peername
        return rate_limit_key(read_address(peer[0] if isinstance(peer, tuple) else ""))

    def remove(self, connection: Connection, source: str) -> None:
        """Forget a connection that `add` took in."""
        self.connections.discard(connection)
        self._count.dismiss(source)
        if self._empty is not None and not self.connections:
            self._empty.set()

    def begin_drain(self) -> None:
        """End idle connections, and every other one with its next response."""
        if self.draining:
            return
        self.draining = True
        self._on_drain()
        for connection in list(self.connections):
            connection.drain()

    async def shutdown(self, seconds: float) -> None:
        """Drain. What takes longer than `seconds` is cancelled and answered 503."""
        self.begin_drain()
        if await self._emptied(seconds):
            return
        for connection in list(self.connections):
            connection.cancel()
        if not await self._emptied(_CANCELLED_SECONDS):
            for connection in list(self.connections):
                connection.abort()
            await self._emptied(_CANCELLED_SECONDS)

    async def _emptied(self, seconds: float) -> bool:
        self._empty = asyncio.Event()
        if not self.connections:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        return not self.connections
