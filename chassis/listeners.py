"""Binds the sockets of a process's listeners, and says in one line why one cannot be bound."""

import asyncio
import errno
import socket
import ssl
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from aiohttp import web

from chassis.connection_limits import ConnectionLimits, LimitedRunner
from chassis.logs import Log

# The log source is that of the process, whose start this is a part of.
_log = Log("listeners")


class BindFailed(Exception):
    """A listener's address cannot be used; the text is one line an operator can act on."""


@dataclass(frozen=True)
class Listener:
    """One address and what answers there. Port 0 takes a free one, named by `listening`.

    The host `::` means every address of this machine, IPv6 and IPv4 alike; where there is no
    IPv6 it means `0.0.0.0`. `connection_limits` is for an application that strangers can reach. A
    TLS handshake that takes longer than `handshake_seconds` ends the connection.

    With `loopback_only` the process does not start on an address other machines can reach.
    """

    name: str
    host: str
    port: int
    handler: web.Application | web.Server
    tls: ssl.SSLContext | None = None
    keepalive_seconds: float = 75.0
    loopback_only: bool = False
    connection_limits: ConnectionLimits | None = None
    handshake_seconds: float = 10.0


async def bind(listener: Listener, drain_seconds: float) -> web.BaseRunner:
    """Listen at the listener's address. Raises BindFailed, and then nothing is bound."""
    runner = _runner(listener, drain_seconds)
    await runner.setup()
    try:
        await _Site(runner, listener).start()
    except OSError as refused:
        await runner.cleanup()
        raise BindFailed(_bind_problem(listener, refused)) from refused
    if listener.loopback_only and not _on_loopback(runner):
        await runner.cleanup()
        raise BindFailed(f"{listener.name} listener: {listener.host} is not loopback")
    for host, port in sorted({address[:2] for address in runner.addresses}):
        _log.info("listening", listener=listener.name, host=host, port=port, tls=bool(listener.tls))
    return runner


class _Site(web.BaseSite):
    """Where a listener listens; aiohttp's own sites leave handshakes their minute, asyncio's."""

    def __init__(self, runner: web.BaseRunner, listener: Listener) -> None:
        super().__init__(runner, ssl_context=listener.tls)
        self._listener = listener

    @property
    def name(self) -> str:
        return self._listener.name

    async def start(self) -> None:
        await super().start()
        listener, server = self._listener, self._runner.server
        assert server is not None
        create = partial(
            asyncio.get_running_loop().create_server,
            server,
            ssl=listener.tls,
            ssl_handshake_timeout=listener.handshake_seconds if listener.tls else None,
        )
        if listener.host == "::":
            self._server = await create(sock=_on_every_address(listener.port))
        else:
            self._server = await create(listener.host, listener.port)


def _on_every_address(port: int) -> socket.socket:
    """One socket for both families; asyncio would make `::` one for IPv6 alone."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as refused:
            if refused.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise  # IPv6 is there, and something else is wrong
    return socket.create_server(("0.0.0.0", port))


def _on_loopback(runner: web.BaseRunner) -> bool:
    """Judged by what was bound, not by what was asked for."""
    return all(ip_address(address[0]).is_loopback for address in runner.addresses)


def _runner(listener: Listener, drain_seconds: float) -> web.BaseRunner:
    # The default access log prints query strings, and with them codes and states: none here.
    if isinstance(listener.handler, web.Application):
        return LimitedRunner(
            listener.handler,
            listener.connection_limits or ConnectionLimits(max_per_source=None),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=drain_seconds,
            keepalive_timeout=listener.keepalive_seconds,
        )
    return web.ServerRunner(listener.handler, handle_signals=False, shutdown_timeout=drain_seconds)


def _bind_problem(listener: Listener, error: OSError) -> str:
    where = f"port {listener.port} on {listener.host}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{listener.name} listener: {where} is already in use"
        case errno.EACCES:
            return f"{listener.name} listener: no permission to use {where}"
        case errno.EADDRNOTAVAIL:
            return f"{listener.name} listener: {listener.host} is not an address of this machine"
        case _:
            return f"{listener.name} listener: cannot use {where}: {error.strerror or error}"
