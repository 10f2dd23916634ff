"""An app behind the gateway that keeps every byte it gets, and answers what a test wants.

It reads requests plainly: a head to the first empty line, a body by its length or its chunks.
What it gets is written by the gateway alone, so anything else than that is a fault.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.chassis.http1.harness import close

_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([^\r\n]*)")


@dataclass
class Seen:
    """One request as the app read it; names of fields are in lower case."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    whole: bool = False

    def get(self, name: str) -> str | None:
        values = [value for known, value in self.fields if known == name]
        assert len(values) < 2, name
        return values[0] if values else None

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.fields}


Writer = asyncio.StreamWriter
Handler = Callable[[Seen, Writer], Awaitable[bool]]


def response(status: int = 200, body: bytes = b"ok", *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@dataclass
class RawApp:
    """`then` answers come first, one for each request; afterwards `usual`."""

    usual: bytes = field(default_factory=response)
    then: list[bytes | Handler] = field(default_factory=list)
    requests: list[Seen] = field(default_factory=list)
    received: list[bytearray] = field(default_factory=list)
    faults: list[AssertionError] = field(default_factory=list)
    port: int = 0
    open_connections: int = 0

    @property
    def last(self) -> Seen:
        return self.requests[-1]

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        kept = bytearray()
        self.received.append(kept)
        self.open_connections += 1
        try:
            while await self._answer_one(_Recording(reader, kept), writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except AssertionError as fault:
            self.faults.append(fault)
        finally:
            self.open_connections -= 1
            await close(writer)

    async def _answer_one(self, reader: "_Recording", writer: Writer) -> bool:
        seen = await read_head(reader)
        answer = self.then.pop(0) if self.then else self.usual
        self.requests.append(seen)
        if not isinstance(answer, bytes):
            return await answer(seen, writer)
        seen.body = await read_body(reader, seen)
        seen.whole = True
        writer.write(answer)
        await writer.drain()
        return True


class _Recording:
    """A reader that keeps a copy of what it read."""

    def __init__(self, reader: asyncio.StreamReader, kept: bytearray) -> None:
        self._reader, self._kept = reader, kept

    async def until(self, end: bytes) -> bytes:
        data = await self._reader.readuntil(end)
        self._kept += data
        return data

    async def exactly(self, size: int) -> bytes:
        data = await self._reader.readexactly(size)
        self._kept += data
        return data


async def read_head(reader: _Recording) -> Seen:
    lines = (await reader.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    method, target, version = lines[0].split(" ")
    assert version == "HTTP/1.1"
    fields = []
    for line in lines[1:]:
        match = _FIELD.fullmatch(line)
        assert match is not None, line
        fields.append((match[1].lower(), match[2]))
    return Seen(method, target, fields)


async def read_body(reader: _Recording, seen: Seen) -> bytes:
    coding, length = seen.get("transfer-encoding"), seen.get("content-length")
    assert coding is None or length is None
    if coding is None:
        return await reader.exactly(int(length or "0"))
    assert coding == "chunked"
    pieces = []
    while size := int((await reader.until(b"\r\n")).strip(), 16):
        pieces.append(await reader.exactly(size))
        assert await reader.exactly(2) == b"\r\n"
    assert await reader.exactly(2) == b"\r\n"
    return b"".join(pieces)


@asynccontextmanager
async def raw_app(app: RawApp | None = None) -> AsyncIterator[RawApp]:
    app = app or RawApp()
    server = await asyncio.start_server(app.serve, "127.0.0.1", app.port, limit=1 << 20)
    app.port = server.sockets[0].getsockname()[1]
    try:
        yield app
    finally:
        server.close()
