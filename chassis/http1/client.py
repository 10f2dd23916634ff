"""A client of one host: HTTP/1.1 over TLS or without, on connections that are kept.

Responses are read as strictly as requests: what is ambiguous, or longer than allowed, is no
response, and its connection is not used again. There are no redirects and no cookies.
"""

import asyncio
import ssl
from collections.abc import Iterable
from typing import NamedTuple

from chassis.http1.client_connection import ClientConnection, Receive
from chassis.http1.limits import Limits
from chassis.http1.no_response import Disconnected, Unreachable, Untrusted
from chassis.http1.outgoing import OutgoingBody, RequestHead
from chassis.http1.request import Headers
from chassis.http1.response_head import ReadHead
from chassis.http1.slots import Slots
from chassis.http1.streamed_response import StreamedResponse
from chassis.http1.tls_layer import TlsLayer


class ServerResponse(NamedTuple):
    """A whole final response."""

    status: int
    headers: Headers
    body: bytes

    def __repr__(self) -> str:
        """Without the body: asyncio prints what a future holds."""
        return f"<ServerResponse {self.status}>"


class Host(NamedTuple):
    """Where to connect; `name` is also what the certificate must be for."""

    name: str
    port: int

    @property
    def authority(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class Client:
    """Sends requests to `host`, on at most `limits.connections` connections.

    `tls` is used for every new connection. `connect_seconds` bounds connecting and the handshake;
    `limits.idle_seconds` is how long an idle connection is kept: less than the server keeps it.
    `limits.write_seconds` is how long a server may leave unread what was written. With `proxy`,
    connections are tunnels through it (RFC 9110 section 9.3.6).
    """

    def __init__(
        self,
        host: Host,
        tls: ssl.SSLContext | None,
        *,
        limits: Limits,
        connect_seconds: float,
        proxy: Host | None = None,
    ) -> None:
        self._host, self._tls, self._proxy = host, tls, proxy
        self.limits, self._connect_seconds = limits, connect_seconds
        self._slots = Slots(limits.connections)
        self._idle: list[ClientConnection] = []
        self._closed = False
        self.last_head: ReadHead | None = None

    async def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> ServerResponse:
        """One request and its whole response, of at most `limits.body_bytes`. Raises NoResponse.

        The caller bounds the time; cancelled, it costs the connection. Nothing is repeated.
        """
        head = RequestHead(method, target, self._host.authority, headers)
        framed = body if body or method != "GET" else None
        await self._slots.wait()
        response = await (await self._take()).call(head, framed, None)
        try:
            body = await response.read(self.limits.body_bytes)
        finally:
            response.close()
        return ServerResponse(response.status, response.headers, body)

    async def stream(
        self,
        head: RequestHead,
        body: bytes | OutgoingBody | None = None,
        *,
        head_seconds: float | None = None,
        repeatable: bool = False,
    ) -> StreamedResponse:
        """Send a request; return its final response when the head is there. Raises NoResponse.

        The head must come within `head_seconds` after the whole request was sent. A response may
        come before: then the body goes on to be sent until the response is whole. What the body's
        iterator raises is raised here, or by the response. `repeatable`: the request is sent once
        more where a kept connection turns out to be closed (RFC 9112 section 9.3.1).

        The caller must read the response to its end or close it. Cancelled, it costs the
        connection.
        """
        await self._await_slot()
        fresh = not self._idle
        connection = self._idle.pop() if self._idle else await self._take()
        try:
            return await connection.call(head, body, head_seconds)
        except Disconnected:
            if fresh or not repeatable or isinstance(body, OutgoingBody):
                raise
        await self._await_slot()
        return await (await self._take(fresh=True)).call(head, body, head_seconds)

    def begin(
        self,
        head: RequestHead,
        body: bytes | None,
        receive: Receive,
        head_seconds: float | None,
    ) -> ClientConnection | None:
        """Send a request at once, on a kept connection; None where there is none that is idle.

        `receive` is called later, as `ClientConnection.begin` says; `abandon` of the connection
        ends the wait. Nothing is repeated.
        """
        if not (self._idle and self._idle[-1].is_open and self._slots.take()):
            return None
        connection = self._idle.pop()
        connection.begin(head, body, receive, head_seconds)
        return connection

    def close(self) -> None:
        """Close idle connections now, and the others with their response."""
        self._closed = True
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    def forget(self, connection: ClientConnection) -> None:
        """A connection has ended."""
        if connection in self._idle:
            self._idle.remove(connection)

    def put_back(self, connection: ClientConnection) -> None:
        """A connection has done what `call` began."""
        self._slots.give_back()
        if connection.reusable and not self._closed:
            self._idle.append(connection)
            connection.rest()
        else:
            connection.abort()

    async def _await_slot(self) -> None:
        """A place for one more request, within the time for connecting. Raises Unreachable."""
        if self._slots.take():
            return
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._slots.wait()
        except TimeoutError as error:
            raise Unreachable from error

    async def _take(self, *, fresh: bool = False) -> ClientConnection:
        """A connection for the slot that was acquired. Raises NoResponse."""
        if self._idle and not fresh:
            return self._idle.pop()
        try:
            return await self._connect()
        except BaseException:
            self._slots.give_back()
            raise

    async def _connect(self) -> ClientConnection:
        try:
            async with asyncio.timeout(self._connect_seconds):
                return await self._open()
        except ssl.SSLError as error:
            raise Untrusted from error
        except (OSError, TimeoutError) as error:
            raise Unreachable from error

    async def _open(self) -> ClientConnection:
        loop = asyncio.get_running_loop()
        if self._proxy is not None:
            from chassis.http1.proxy_tunnel import open_tunnel  # few have a proxy

            return await open_tunnel(
                self._proxy, self._host, self._tls, ClientConnection(self, loop)
            )
        connection = ClientConnection(self, loop)
        if self._tls is None:
            await loop.create_connection(lambda: connection, self._host.name, self._host.port)
            return connection
        layer = TlsLayer(self._tls, self._host.name, connection, loop)
        raw, _ = await loop.create_connection(lambda: layer, self._host.name, self._host.port)
        try:
            await layer.ready
        except BaseException:
            raw.abort()
            raise
        return connection
