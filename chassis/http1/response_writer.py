"""Writes responses to a channel, with the fields that are the server's: date and framing."""

import asyncio
from typing import Final

from chassis.http1.channel import Channel
from chassis.http1.limits import Limits
from chassis.http1.response import DateLine, Response, StreamResponse

# By whether the connection goes on and by the minor version: only what is not the default is said.
CONNECTION_OPTIONS: Final = {
    (True, 1): b"",
    (True, 0): b"Connection: keep-alive\r\n",
    (False, 1): b"Connection: close\r\n",
    (False, 0): b"Connection: close\r\n",
}

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class PeerGone(Exception):
    """Nobody is there to read the rest of a response."""


class ResponseWriter(Channel):
    """A channel on which responses go out; `option` is the field `Connection`, or nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits, date: DateLine) -> None:
        super().__init__(loop, limits)
        self._date = date

    def _write_whole(self, response: Response, option: bytes, *, without_body: bool) -> None:
        if self._transport is None:
            return
        head, body, date = response.head, response.body, self._date()
        if head.bodiless:
            self._transport.write(b"%b%b%b\r\n" % (head.rendered, date, option))
            return
        shown = b"" if without_body else body
        self._transport.write(
            b"%b%b%bContent-Length: %d\r\n\r\n%b" % (head.rendered, date, option, len(body), shown)
        )

    def _write_stream_head(
        self, response: StreamResponse, option: bytes, *, chunked: bool, bare: bool
    ) -> None:
        """Write the head; of a `bare` response there is nothing more to write."""
        if self._transport is None or (self._ended and not bare):
            raise PeerGone
        head, framing = response.head, b""
        if response.length is not None and not head.bodiless:
            framing = b"Content-Length: %d\r\n" % response.length
        elif chunked and not head.bodiless:
            framing = b"Transfer-Encoding: chunked\r\n"
        date = self._date()
        self._transport.write(b"%b%b%b%b\r\n" % (head.rendered, date, option, framing))

    async def _pump(self, response: StreamResponse, *, chunked: bool) -> None:
        left = response.length
        async for piece in response.body:
            if self._transport is None:
                raise PeerGone
            if not piece:
                continue
            if left is not None:
                left -= len(piece)
                if left < 0:
                    raise ValueError("the body is longer than its length")
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if self._room is not None:
                await self._room
        if left:
            raise ValueError("the body is shorter than its length")
        if chunked and self._transport is not None:
            self._transport.write(b"0\r\n\r\n")

    def _invite(self) -> None:
        if self._transport is not None:
            self._transport.write(_CONTINUE)
