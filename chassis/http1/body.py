"""Bodies that arrive after their head: where they end, and who waits for whom.

Bodies are framed here and not by llhttp. httptools does not show chunk extensions, which may be
malformed or endless, and it takes the body of a request with `Upgrade` for the next request.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Final, Protocol

from chassis.http1.errors import BodyBrokenOff, BodyTooSlow, Malformed

HIGH_WATER: Final = 64 * 1024

_LONGEST_CHUNK_LINE: Final = 256
_LONGEST_EXTENSIONS: Final = 1024  # of one body
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,8})((?:;%b(?:=(?:%b|%b))?)*)" % (_TOKEN, _TOKEN, _QUOTED)
)
_BEGUN_CHUNK_LINE: Final = re.compile(rb"(?:[0-9A-Fa-f]{1,8}(?:;[\t -~\x80-\xff]*)?\r?)?")


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


class ChunkReader:
    """A body in chunks (RFC 9112 section 7.1). Raises Malformed.

    Extensions are ignored where they are well-formed and short. Trailers are refused: nobody
    here needs them, and a reader that forgets them sees a request of its own.
    """

    __slots__ = ("_extensions", "_kept", "_left", "_step", "done")

    def __init__(self) -> None:
        self._kept = b""
        self._left = 0
        self._extensions = 0
        self._step: Callable[[bytes, int], int] = self._size
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        data, at, pieces = self._kept + data, 0, []
        while at < len(data) and not self.done:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                at += len(piece)
                continue
            after = self._step(data, at)
            if after == at:
                break
            at = after
        self._kept, rest = (b"", data[at:]) if self.done else (data[at:], b"")
        return b"".join(pieces), rest

    def _size(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at, at + _LONGEST_CHUNK_LINE)
        if end < 0:
            tail = data[at : at + _LONGEST_CHUNK_LINE]
            if len(tail) == _LONGEST_CHUNK_LINE or not _BEGUN_CHUNK_LINE.fullmatch(tail):
                raise Malformed("chunk_size")
            return at
        line = _CHUNK_LINE.fullmatch(data, at, end)
        if line is None:
            raise Malformed("chunk_size")
        self._extensions += len(line[2])
        if self._extensions > _LONGEST_EXTENSIONS:
            raise Malformed("chunk_extensions")
        self._left = int(line[1], 16)
        self._step = self._data_end if self._left else self._body_end
        return end + 2

    def _data_end(self, data: bytes, at: int) -> int:
        after = self._line_end(data, at, "chunk_end")
        if after != at:
            self._step = self._size
        return after

    def _body_end(self, data: bytes, at: int) -> int:
        after = self._line_end(data, at, "trailers")
        self.done = after != at
        return after

    def _line_end(self, data: bytes, at: int, reason: str) -> int:
        end = data[at : at + 2]
        if end == b"\r\n":
            return at + 2
        if end == b"\r":
            return at
        raise Malformed(reason)


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
