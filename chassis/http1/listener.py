"""Listeners that `chassis.http1` serves."""

import asyncio
import ssl
from typing import NamedTuple

from chassis.http1.server import Server
from chassis.sockets import open_server


class Listener(NamedTuple):
    """An address, as `chassis.sockets.Address` has it, and the server that answers there."""

    name: str
    host: str
    port: int
    server: Server
    tls: ssl.SSLContext | None = None
    loopback_only: bool = False
    handshake_seconds: float = 10.0

    async def bind(self, drain_seconds: float) -> "BoundListener":
        """Listen at the address. Raises BindFailed, and then nothing is bound."""
        accepting = await open_server(self, self.server)
        return BoundListener(self.server, accepting, drain_seconds)


class BoundListener:
    """A listener that accepts connections."""

    def __init__(self, server: Server, accepting: asyncio.Server, drain_seconds: float) -> None:
        self._server, self._accepting, self._drain_seconds = server, accepting, drain_seconds
        self._cleaned = False

    @property
    def port(self) -> int:
        """The port that was bound, until `cleanup`."""
        return self.addresses[0][1]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The addresses that were bound, until `cleanup`."""
        return [bound.getsockname()[:2] for bound in self._accepting.sockets]

    async def cleanup(self) -> None:
        """Stop accepting, drain, and close; a second call does nothing."""
        if self._cleaned:
            return
        self._cleaned = True
        self._accepting.close()
        await self._server.shutdown(self._drain_seconds)
