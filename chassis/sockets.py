"""Binds the sockets of listeners, and says in one line why one cannot be bound.

Imports no HTTP library, for the sidecar pays for whatever it imports.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

from chassis.logs import Log

_log = Log("sockets")


class BindFailed(Exception):
    """A listener's address cannot be used; the text is one line an operator can act on."""


class Address(Protocol):
    """Where to listen. Port 0 takes a free one, named by the event `listening`.

    The host `::` means every address of this machine, IPv6 and IPv4 alike; where there is no
    IPv6 it means `0.0.0.0`. A TLS handshake that takes longer than `handshake_seconds` ends the
    connection. With `loopback_only` only an address that other machines cannot reach is bound.
    """

    @property
    def name(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> ssl.SSLContext | None: ...
    @property
    def loopback_only(self) -> bool: ...
    @property
    def handshake_seconds(self) -> float: ...


class Bound(Protocol):
    """A listener that accepts connections."""

    async def cleanup(self) -> None:
        """Stop accepting, drain, and close; a second call does nothing."""


class Bindable(Protocol):
    """A listener of either HTTP server."""

    async def bind(self, drain_seconds: float) -> Bound:
        """Listen. Raises BindFailed, and then nothing is bound."""


async def open_server(
    address: Address, protocols: Callable[[], asyncio.BaseProtocol]
) -> asyncio.Server:
    """Listen at `address`; `protocols` makes each connection's. Raises BindFailed."""
    try:
        server = await _create(address, protocols)
    except OSError as refused:
        raise BindFailed(_bind_problem(address, refused)) from refused
    bound = sorted({each.getsockname()[:2] for each in server.sockets})
    # Judged by what was bound, not by what was asked for.
    if address.loopback_only and not all(ip_address(host).is_loopback for host, _ in bound):
        server.close()
        raise BindFailed(f"{address.name} listener: {address.host} is not loopback")
    for host, port in bound:
        _log.info("listening", listener=address.name, host=host, port=port, tls=bool(address.tls))
    return server


async def _create(
    address: Address, protocols: Callable[[], asyncio.BaseProtocol]
) -> asyncio.Server:
    create = asyncio.get_running_loop().create_server
    seconds = address.handshake_seconds if address.tls else None
    if address.host == "::":
        return await create(
            protocols,
            sock=_on_every_address(address.port),
            ssl=address.tls,
            ssl_handshake_timeout=seconds,
        )
    return await create(
        protocols, address.host, address.port, ssl=address.tls, ssl_handshake_timeout=seconds
    )


def _on_every_address(port: int) -> socket.socket:
    """One socket for both families; asyncio would make `::` one for IPv6 alone."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as refused:
            if refused.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise  # IPv6 is there, and something else is wrong
    return socket.create_server(("0.0.0.0", port))


def _bind_problem(address: Address, error: OSError) -> str:
    where = f"port {address.port} on {address.host}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{address.name} listener: {where} is already in use"
        case errno.EACCES:
            return f"{address.name} listener: no permission to use {where}"
        case errno.EADDRNOTAVAIL:
            return f"{address.name} listener: {address.host} is not an address of this machine"
        case _:
            return f"{address.name} listener: cannot use {where}: {error.strerror or error}"
