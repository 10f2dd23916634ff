"""An HTTP proxy on loopback that tunnels by CONNECT (RFC 9110 section 9.3.6)."""

import asyncio
from contextlib import suppress
from typing import Self


class ConnectProxy:
    """Every tunnel leads to `port` on 127.0.0.1, whatever name was asked for.

    `targets` are the names and ports that were asked for. With `refuses` it answers this status.
    """

    def __init__(self) -> None:
        self.port, self.refuses = 0, 0
        self.targets: list[str] = []
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Nobody answers at the proxy's address any more."""
        assert self._server is not None
        self._server.close()
        for tunnel in self._tunnels:
            tunnel.cancel()
        await asyncio.gather(*self._tunnels, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnel = asyncio.create_task(self._tunnel(reader, writer))
        self._tunnels.add(tunnel)
        tunnel.add_done_callback(self._tunnels.discard)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split("\r\n")[0].split(" ")
            self.targets.append(target if method == "CONNECT" else f"{method} {target}")
            if method != "CONNECT" or self.refuses:
                status = self.refuses or 405
                writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
            else:
                there, back = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_carry(reader, back), _carry(there, writer))
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await source.read(65536):
            sink.write(part)
            await sink.drain()
    sink.close()
