"""Tunnels through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6). Imported where one is set."""

import asyncio
import re
import ssl
from typing import TYPE_CHECKING, Final, cast

from chassis.http1.errors import Malformed
from chassis.http1.head import END, check_lines
from chassis.http1.no_response import ProxyRefused
from chassis.http1.tls_layer import TlsLayer

if TYPE_CHECKING:
    from chassis.http1.client import Host
    from chassis.http1.client_connection import ClientConnection

_OPENED: Final = re.compile(rb"HTTP/1\.[01] 2[0-9][0-9](?: [\t -~\x80-\xff]*)?\r\n")
_LONGEST_HEAD: Final = 16 * 1024


async def open_tunnel(
    proxy: "Host", host: "Host", tls: ssl.SSLContext | None, connection: "ClientConnection"
) -> "ClientConnection":
    """Connect `connection` to `host` through `proxy`. Raises OSError and ProxyRefused.

    The caller bounds the time.
    """
    loop = asyncio.get_running_loop()
    transport, asking = await loop.create_connection(
        lambda: _Asking(loop, host.authority), proxy.name, proxy.port
    )
    try:
        await asking.opened
        if tls is None:
            transport.set_protocol(connection)
            connection.connection_made(transport)
        else:
            layer = TlsLayer(tls, host.name, connection, loop)
            transport.set_protocol(layer)
            layer.connection_made(transport)
            await layer.ready
    except BaseException:
        transport.abort()
        raise
    return connection


class _Asking(asyncio.Protocol):
    """Sends one CONNECT; `opened` is done when the proxy has answered."""

    def __init__(self, loop: asyncio.AbstractEventLoop, authority: str) -> None:
        self.opened: asyncio.Future[None] = loop.create_future()
        self._authority = authority
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        line = f"CONNECT {self._authority} HTTP/1.1\r\nHost: {self._authority}\r\n\r\n"
        # uvloop's transports have the methods of asyncio.Transport without being one.
        cast(asyncio.Transport, transport).write(line.encode())

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self.opened.done():
            return
        if END in self._answer:
            self._judge()
        elif len(self._answer) > _LONGEST_HEAD:
            self.opened.set_exception(ProxyRefused())

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ProxyRefused())

    def _judge(self) -> None:
        """Nothing may follow the head: the server speaks only after us."""
        try:
            check_lines(self._answer)
        except Malformed:
            self.opened.set_exception(ProxyRefused())
            return
        whole = self._answer.endswith(END) and self._answer.count(END) == 1
        if whole and _OPENED.match(self._answer):
            self.opened.set_result(None)
        else:
            self.opened.set_exception(ProxyRefused())
