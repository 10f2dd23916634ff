"""Bodies that arrive after their head: where they end, and who waits for whom."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from chassis.http1.errors import BodyBrokenOff, BodyTooSlow, Malformed

HIGH_WATER: Final = 64 * 1024


class BodyReader(Protocol):
    """Finds a body's end. `feed` returns the body's bytes, and what follows the body."""

    done: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]: ...


class LengthReader:
    """A body of `length` bytes (RFC 9112 section 6.2)."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        body, rest = data[: self._left], data[self._left :]
        self._left -= len(body)
        self.done = not self._left
        return body, rest


def body_reader(length: int | None) -> BodyReader:
    """For a body of `length` bytes, or in chunks where that is None."""
    if length is not None:
        return LengthReader(length)
    from chassis.http1.chunks import ChunkReader  # few peers send chunks

    return ChunkReader()


class IncomingBody:
    """A body under way. It holds at most `HIGH_WATER` bytes and one more read of the socket.

    `ask` sends `100 Continue`, and does so once, before the first wait. `flow` is called with
    False when nothing more fits in, and with True when there is room again.
    """

    __slots__ = ("_ask", "_error", "_flow", "_pieces", "_reader", "_size", "_waiter")

    def __init__(
        self, reader: BodyReader, flow: Callable[[bool], None], ask: Callable[[], None] | None
    ) -> None:
        self._reader, self._flow, self._ask = reader, flow, ask
        self._pieces: list[bytes] = []
        self._size = 0
        self._error: BodyBrokenOff | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def whole(self) -> bool:
        """Whether all of it has arrived, read or not."""
        return self._reader.done

    def feed(self, data: bytes) -> bytes:
        """Take in what arrived, and return what follows the body. Raises Malformed."""
        try:
            body, rest = self._reader.feed(data)
        except Malformed as malformed:
            self.break_off(malformed.reason)
            raise
        self._ask = None  # RFC 9110 section 10.1.1: who has begun to send needs no invitation
        if body:
            self._pieces.append(body)
            self._size += len(body)
            if self._size > HIGH_WATER:
                self._flow(False)
        self._wake()
        return rest

    def break_off(self, reason: str = "body_broken_off") -> None:
        """Nothing more will come; a reader learns it after what came before."""
        if not self._reader.done and self._error is None:
            self._error = BodyBrokenOff(reason)
        self._wake()

    def detach(self) -> None:
        """The body is whole, and its connection serves something else now."""
        self._flow = _ignore

    def arrived(self) -> bytes:
        """Take out what has arrived."""
        pieces = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        if self._size > HIGH_WATER:
            self._flow(True)
        self._size = 0
        return pieces

    async def next(self, seconds: float | None) -> bytes:
        """What has arrived, at least one byte; nothing at the end. Raises Refused."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._reader.done:
                return b""
            await self._wait(seconds)
        return self.arrived()

    async def _wait(self, seconds: float | None) -> None:
        ask, self._ask = self._ask, None
        if ask is not None:
            ask()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._waiter
        except TimeoutError:
            raise BodyTooSlow from None
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ArrivedBody:
    """A body that came in one piece with its head; it is read as an `IncomingBody` is."""

    __slots__ = ("_body",)

    whole: Final = True

    def __init__(self, body: bytes) -> None:
        self._body = body

    def arrived(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def next(self, seconds: float | None) -> bytes:
        return self.arrived()


def _ignore(go: bool) -> None:
    pass
