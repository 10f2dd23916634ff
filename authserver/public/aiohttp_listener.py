"""The listener that aiohttp serves."""

import ssl

from aiohttp import web

from authserver.public.connection_limits import ConnectionLimits, LimitedRunner
from authserver.values import Value
from chassis.sockets import open_server


class AiohttpListener(Value, frozen=True):
    """An address, as `chassis.sockets.Address` has it, and the application that answers there."""

    name: str
    host: str
    port: int
    application: web.Application
    connection_limits: ConnectionLimits
    tls: ssl.SSLContext | None = None
    keepalive_seconds: float = 75.0
    loopback_only: bool = False
    handshake_seconds: float = 10.0

    async def bind(self, drain_seconds: float) -> web.BaseRunner:
        """Listen at the address. Raises BindFailed, and then nothing is bound."""
        # The default access log prints query strings, and with them codes and states: none here.
        runner = LimitedRunner(
            self.application,
            self.connection_limits,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=drain_seconds,
            keepalive_timeout=self.keepalive_seconds,
        )
        await runner.setup()
        try:
            await _Site(runner, self).start()
        except BaseException:
            await runner.cleanup()
            raise
        return runner


class _Site(web.BaseSite):
    """Where a listener listens; aiohttp's own sites leave handshakes their minute, asyncio's."""

    def __init__(self, runner: web.BaseRunner, listener: AiohttpListener) -> None:
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
