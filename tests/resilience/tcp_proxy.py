"""A TCP way between two programs that can stall: nothing is refused, and nothing gets through."""

import asyncio
from contextlib import suppress


class StallableProxy:
    """Forwards to `target` on 127.0.0.1. Neither data nor an end gets through while it stalls."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._carriers: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def connections(self) -> int:
        return len(self._carriers)

    async def __aenter__(self) -> "StallableProxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for carrier in self._carriers:
            carrier.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)

    def stall(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrier = asyncio.create_task(self._join(reader, writer))
        self._carriers.add(carrier)
        carrier.add_done_callback(self._carriers.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            forth = asyncio.create_task(self._carry(reader, back))
            await self._carry(there, writer)
            await forth
        finally:
            forth.cancel()
            for end in (back, writer):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while part := await source.read(65536):
                await self._flowing.wait()
                sink.write(part)
                await sink.drain()
        await self._flowing.wait()
        sink.close()
