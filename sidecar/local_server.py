"""The listener on loopback: deadlines for slow callers, a cap on connections, our own errors."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from chassis.clock import Clock
from chassis.logs import Log

_log = Log("local_server")

MAX_CONNECTIONS: Final = 512

_MAX_FIELD_BYTES: Final = 16 * 1024  # a JWT of 8 KiB, and room to refuse a longer one in words
_MAX_FIELDS: Final = 64
_IDLE_SECONDS: Final = 75.0
_LINGER_SECONDS: Final = 0.2

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Failed = Callable[[BaseException | None], web.StreamResponse]


class LocalServer(web.Server):
    """aiohttp's low-level server with limits.

    `failed` answers bytes that are no request (None), and requests that `handler` failed at.
    """

    def __init__(
        self,
        handler: Handler,
        failed: Failed,
        *,
        now: Clock,
        head_seconds: float,
        on_drain: Callable[[], object] = lambda: None,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        super().__init__(
            self._handle,
            request_factory=self._begin,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=_LINGER_SECONDS,
            max_field_size=_MAX_FIELD_BYTES,
            max_headers=_MAX_FIELDS,
        )
        self._handler, self.failed = handler, failed
        self.now, self.head_seconds = now, head_seconds
        self._on_drain, self._max_connections = on_drain, max_connections

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def pre_shutdown(self) -> None:
        """Called by aiohttp when draining begins."""
        super().pre_shutdown()
        self._on_drain()

    @property
    def full(self) -> bool:
        return len(self.connections) >= self._max_connections

    def close_stalled(self) -> None:
        """Close every connection that has taken too long over the head of a request."""
        now = self.now()
        for connection in self.connections:
            if isinstance(connection, _Connection) and (connection.head_due or math.inf) < now:
                connection.force_close()

    def _begin(
        self, message: Any, payload: Any, connection: Any, writer: Any, task: Any
    ) -> web.BaseRequest:
        connection.head_due = math.inf
        return web.BaseRequest(message, payload, connection, writer, task, self._loop)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._handler(request)
        finally:
            connection = request.protocol
            if isinstance(connection, _Connection):
                connection.head_due = None


class _Connection(web.RequestHandler):
    """One caller's connection. `head_due`: when the head being read must be complete.

    None while nothing has arrived, infinite while a request is being answered.
    """

    __slots__ = ("_held", "_server", "head_due")

    def __init__(
        self, server: LocalServer, *, loop: asyncio.AbstractEventLoop, **options: Any
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self._server = server
        self._held = False
        self.head_due: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._server.full:
            # No answer: reading the request to its end is what there is no room for.
            _log.warning("too_many_connections")
            transport.close()
            return
        super().connection_made(transport)

    def pause_reading(self) -> None:
        self._held = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp resumes after every body it reads, whether or not it had paused: a twentieth of
        # the time of a request.
        if self._held:
            self._held = False
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        if data and self.head_due is None:
            self.head_due = self._server.now() + self._server.head_seconds
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # aiohttp's own answer repeats what it could not parse, which may be a token.
        response = self._server.failed(None if status < 500 else exc or TimeoutError())
        response.force_close()
        return response
