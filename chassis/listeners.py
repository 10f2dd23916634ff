"""Listeners that aiohttp serves."""

import ssl
from dataclasses import dataclass

from aiohttp import web

from chassis.connection_limits import ConnectionLimits, LimitedRunner
from chassis.sockets import open_server


@dataclass(frozen=True)
class Listener:
    """An address, as `chassis.sockets.Address` has it, and what answers there.

    `connection_limits` is for an application that strangers can reach.
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

    async def bind(self, drain_seconds: float) -> web.BaseRunner:
        """Listen at the address. Raises BindFailed, and then nothing is bound."""
        runner = _runner(self, drain_seconds)
        await runner.setup()
        try:
            await _Site(runner, self).start()
        except BaseException:
            await runner.cleanup()
            raise
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
        server = self._runner.server
        assert server is not None
        self._server = await open_server(self._listener, server)


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
