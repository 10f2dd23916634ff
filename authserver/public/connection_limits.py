"""How long the listener of strangers waits, and for how many.

aiohttp gives a connection that never finishes its request head until the keep-alive limit, and
counts nobody. Here a head has its own deadline, and each source and all of them together have
only so many connections; whoever goes beyond is closed without an answer.
"""

import asyncio
from collections import Counter
from functools import partial
from typing import Any, cast

from aiohttp import web

from authserver.public.anonymous_server import AnonymousHandler, AnonymousRequest, AnonymousServer
from authserver.values import Value
from chassis.rate_limit_key import rate_limit_key, read_address


class ConnectionLimits(Value, frozen=True):
    """`max_per_source` is None if all connections come from one proxy."""

    head_seconds: float = 10.0
    max_per_source: int | None = 100
    max_total: int = 4000


class LimitedHandler(AnonymousHandler):
    """One connection. What it needs of aiohttp's insides is whether a head was parsed."""

    __slots__ = ("_deadline", "_own_loop", "_server", "_source")

    def __init__(self, manager: "LimitedServer", **options: Any) -> None:
        super().__init__(manager, **options)
        self._server, self._own_loop = manager, options["loop"]
        self._deadline: asyncio.TimerHandle | None = None
        self._source: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._source = rate_limit_key(read_address(peer[0] if peer else ""))
        if not self._server.admit(self._source):
            self._source = None
            cast(asyncio.Transport, transport).abort()
            return
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._forget_deadline()
        if self._source is not None:
            self._server.release(self._source)
            self._source = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count > before or self._current_request is not None:
            self._forget_deadline()
        elif self._deadline is None:
            self._await_head()

    def _await_head(self) -> None:
        self._deadline = self._own_loop.call_later(
            self._server.connection_limits.head_seconds, self._late
        )

    def _late(self) -> None:
        self._deadline = None
        self.force_close()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class LimitedServer(AnonymousServer):
    """Makes the connections of one listener and knows how many there are."""

    def __init__(
        self, handler: Any, *, connection_limits: ConnectionLimits, **options: Any
    ) -> None:
        super().__init__(handler, **options)
        self.connection_limits = connection_limits
        self._sources: Counter[str] = Counter()

    def __call__(self) -> LimitedHandler:
        return LimitedHandler(self, loop=asyncio.get_running_loop(), **self._connection_options)

    def admit(self, source: str) -> bool:
        """Count a new connection, unless there are too many."""
        limit = self.connection_limits.max_per_source
        if self._sources.total() >= self.connection_limits.max_total:
            return False
        if limit is not None and self._sources[source] >= limit:
            return False
        self._sources[source] += 1
        return True

    def release(self, source: str) -> None:
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]


class LimitedRunner(web.AppRunner):
    """Runs an application like `web.AppRunner`, on connections with these limits."""

    def __init__(
        self, app: web.Application, connection_limits: ConnectionLimits, **options: Any
    ) -> None:
        super().__init__(app, **options)
        self._limits = connection_limits
        self._connection_options = {
            name: value
            for name, value in options.items()
            if name not in ("handle_signals", "shutdown_timeout")
        }

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        make_request: Any = plain.request_factory  # Application._make_request
        return LimitedServer(
            plain.request_handler,
            request_factory=partial(make_request, _cls=AnonymousRequest),
            connection_limits=self._limits,
            **self._connection_options,
        )
