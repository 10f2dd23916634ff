"""A client of one host: HTTP/1.1 over TLS or without, on connections that are kept.

Responses are read as strictly as requests: what is ambiguous, or longer than allowed, is no
response, and its connection is not used again. There are no redirects, cookies or proxies, and no
request is repeated.
"""

import asyncio
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from httptools import HttpResponseParser

from chassis.http1.body import BodyReader, body_reader
from chassis.http1.channel import NEVER, Channel
from chassis.http1.errors import Malformed, Refused
from chassis.http1.head import END, check_lines, read_fields, read_keep_alive, read_length
from chassis.http1.limits import Limits
from chassis.http1.request import Headers
from chassis.http1.response import render_fields

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t -~\x80-\xff]*)?\r\n")
_REQUEST: Final = re.compile(r"[A-Z]+ /[!\"$-~]*")
_MOST_INTERIM: Final = 8
_UNFRAMED: Final = -1


class NoResponse(Exception):
    """There is no usable response; the class says why. The text holds nothing a peer sent."""


class Unreachable(NoResponse):
    """No connection came about."""


class Untrusted(NoResponse):
    """The server's certificate is not accepted, or it speaks no TLS of ours."""


class Disconnected(NoResponse):
    """The connection ended before the first byte of a response."""


class BadResponse(NoResponse):
    """What came is malformed, too long, or broke off."""


class ServerResponse(NamedTuple):
    """A whole final response."""

    status: int
    headers: Headers
    body: bytes

    def __repr__(self) -> str:
        """Without the body: asyncio prints what a future holds."""
        return f"<ServerResponse {self.status}>"


@dataclass(frozen=True, slots=True)
class Host:
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
    """

    def __init__(
        self,
        host: Host,
        tls: ssl.SSLContext | None,
        *,
        limits: Limits,
        connect_seconds: float,
    ) -> None:
        self._host, self._tls = host, tls
        self.limits, self._connect_seconds = limits, connect_seconds
        self._free = asyncio.Semaphore(limits.connections)
        self._idle: list[_Connection] = []
        self._closed = False

    async def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> ServerResponse:
        """One request and its whole response, of at most `limits.body_bytes`. Raises NoResponse.

        The caller bounds the time; cancelled, it costs the connection.
        """
        sent = self._render(method, target, headers, body)
        async with self._free:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                return await connection.call(sent, without_body=method == "HEAD")
            finally:
                if connection.reusable and not self._closed:
                    self._idle.append(connection)
                    connection.rest()
                else:
                    connection.abort()

    def close(self) -> None:
        """Close idle connections now, and the others with their response."""
        self._closed = True
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    def forget(self, connection: "_Connection") -> None:
        """A connection has ended."""
        if connection in self._idle:
            self._idle.remove(connection)

    def _render(
        self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes
    ) -> bytes:
        if _REQUEST.fullmatch(f"{method} {target}") is None:
            raise ValueError("a request line that cannot be sent")
        line = f"{method} {target} HTTP/1.1\r\nHost: {self._host.authority}\r\n".encode()
        length = b"Content-Length: %d\r\n" % len(body) if body or method != "GET" else b""
        return b"%b%b%b\r\n%b" % (line, render_fields(headers), length, body)

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self, loop),
                    self._host.name,
                    self._host.port,
                    ssl=self._tls,
                    server_hostname=self._host.name if self._tls else None,
                )
        except ssl.SSLError as error:
            raise Untrusted from error
        except (OSError, TimeoutError) as error:
            raise Unreachable from error
        return connection


class _Connection(Channel):
    """One connection, with at most one request at a time."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, client.limits)
        self._client = client
        self._waiter: asyncio.Future[ServerResponse] | None = None
        self._without_body = False
        self._buffer = b""
        self._interim = 0
        self._status, self._headers = 0, Headers()
        self._reader: BodyReader | None = None  # once the head was read
        self._body: list[bytes] = []
        self._size = 0
        self._begun = False  # something of a response has arrived
        self._stays = False  # the server goes on after this response
        self.reusable = False

    async def call(self, sent: bytes, *, without_body: bool) -> ServerResponse:
        """Send a request and wait for its response. Raises NoResponse."""
        if self._transport is None or self._transport.is_closing():
            raise Disconnected
        self.reusable, self._begun, self._interim = False, False, 0
        self._without_body, self._reader = without_body, None
        self._waiter = self._loop.create_future()
        self._deadline = NEVER
        self._transport.write(sent)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def rest(self) -> None:
        """Keep the connection for a while."""
        self._arm(self.limits.idle_seconds)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.reusable = False
        self._client.forget(self)
        # Also where TLS ended it: with TLS 1.3 a server refuses our certificate only here.
        self._fail(BadResponse() if self._begun else Disconnected())

    def eof_received(self) -> bool:
        self._ended = True
        self.reusable = False
        return False

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self.reusable = False  # nobody asked: what follows could answer the wrong request
            self.abort()
            return
        self._begun = True
        try:
            self._read(self._buffer + data if self._buffer else data)
        except Refused:
            self._fail(BadResponse())
            self.abort()

    def _read(self, data: bytes) -> None:
        while self._reader is None:
            end = data.find(END) + len(END)
            if (len(data) if end < len(END) else end) > self.limits.head_bytes:
                raise Malformed("head_too_large")
            if end < len(END):
                self._buffer = data
                return
            self._read_head(data[:end])
            data = data[end:]
        self._buffer = b""
        body, rest = self._reader.feed(data)
        self._body.append(body)
        self._size += len(body)
        if self._size > self.limits.body_bytes:
            raise Malformed("body_too_large")
        if self._reader.done:
            self._finish(rest)

    def _read_head(self, raw: bytes) -> None:
        check_lines(raw)
        line = _STATUS_LINE.match(raw)
        if line is None:
            raise Malformed("status_line")
        status, minor_version = int(line[2]), int(line[1])
        headers = read_fields(HttpResponseParser, raw, self.limits)
        if status < 200:
            self._interim += 1
            if status == 101 or self._interim > _MOST_INTERIM:
                raise Malformed("interim_response")
            return
        length = read_length(headers, minor_version, otherwise=_UNFRAMED)
        if self._without_body or status in (204, 304):
            length = 0
        if length == _UNFRAMED:
            raise Malformed("unframed_body")  # it would end wherever the connection breaks
        self._status, self._headers = status, headers
        self._stays = read_keep_alive(headers, minor_version)
        self._reader = body_reader(length)
        self._body, self._size = [], 0

    def _finish(self, rest: bytes) -> None:
        sent = self._transport is not None and not self._transport.get_write_buffer_size()
        self.reusable = self._stays and sent and not rest and not self._ended
        if self._waiter is not None and not self._waiter.done():
            response = ServerResponse(self._status, self._headers, b"".join(self._body))
            self._waiter.set_result(response)
        self._body = []

    def _fail(self, error: NoResponse) -> None:
        self.reusable = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
