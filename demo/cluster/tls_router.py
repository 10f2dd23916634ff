"""Ends TLS in front of plain listeners, by the name that a client asks for (RFC 6066 SNI).

It is what an Ingress is in a real cluster. `python -m demo.cluster.tls_router --credential FOLDER
--route HOST=ADDRESS:PORT ...`; bytes go through unchanged.
"""

import asyncio
import signal
import ssl
from argparse import ArgumentParser
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_CHUNK: Final = 65_536
_CONNECT_SECONDS: Final = 5.0


class Router:
    """Hands each connection on to the target of the name in its handshake; others are closed.

    `targets` maps host names to addresses and ports.
    """

    def __init__(self, targets: Mapping[str, tuple[str, int]]) -> None:
        self._targets = targets

    def tls(self, credential: Path) -> ssl.SSLContext:
        """The listener's side; `credential` is a folder with `tls.crt` and `tls.key`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credential / "tls.crt", credential / "tls.key")
        context.set_alpn_protocols(["http/1.1"])
        context.sni_callback = self._remember
        return context

    def _remember(self, connection: Any, name: str | None, _: ssl.SSLContext) -> int | None:
        """Keep the name at its connection; a name without a target ends the handshake."""
        if name not in self._targets:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.tokenward_name = name
        return None

    async def serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        name = getattr(answer.get_extra_info("ssl_object"), "tokenward_name", None)
        try:
            if name is not None:
                await self._join(self._targets[name], client, answer)
        except (OSError, TimeoutError):
            pass  # the client sees a closed connection, and tries again
        finally:
            answer.close()

    async def _join(
        self,
        target: tuple[str, int],
        client: asyncio.StreamReader,
        answer: asyncio.StreamWriter,
    ) -> None:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(*target)
        directions = [
            asyncio.create_task(_copy(client, writer)),
            asyncio.create_task(_copy(reader, answer)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in directions:
                one.cancel()
            writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await source.read(_CHUNK):
            sink.write(some)
            await sink.drain()


def _target(text: str) -> tuple[str, tuple[str, int]]:
    host, _, address = text.partition("=")
    name, _, port = address.rpartition(":")
    return host, (name, int(port))


async def _run(port: int, credential: Path, routes: Mapping[str, tuple[str, int]]) -> None:
    router, stop = Router(routes), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(router.serve, None, port, ssl=router.tls(credential))
    async with server:
        await stop.wait()


if __name__ == "__main__":
    parser = ArgumentParser(prog="python -m demo.cluster.tls_router", description=__doc__)
    parser.add_argument("--port", type=int, default=8443)
    parser.add_argument("--credential", type=Path, required=True)
    parser.add_argument("--route", type=_target, action="append", required=True)
    parsed = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(parsed.port, parsed.credential, dict(parsed.route)))
