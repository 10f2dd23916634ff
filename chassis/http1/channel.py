"""A transport with deadlines, back-pressure and an orderly end; it knows no HTTP.

Whatever ends a connection early leaves the peer time to read the answer: the sending side is
closed, and what still arrives is dropped for a moment (RFC 9112 section 9.6).
"""

import asyncio
import socket
import ssl
from typing import Any, Final, cast

from chassis.http1.limits import Limits

NEVER: Final = float("inf")


class Channel(asyncio.Protocol):
    """One end of a connection. `_transport` is None before and after it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self._loop, self.limits = loop, limits
        self._transport: asyncio.Transport | None = None
        self._held = False  # reading is paused
        self._ended = False  # the peer sends nothing more
        self._over = False  # the last response was written; what arrives is dropped
        self._room: asyncio.Future[None] | None = None  # done when the peer has read on
        self._deadline = NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    @property
    def peername(self) -> Any:
        """The peer's address as the socket has it; None once the connection is gone."""
        return self._transport and self._transport.get_extra_info("peername")

    @property
    def sockname(self) -> Any:
        """The address the peer reached; None once the connection is gone."""
        return self._transport and self._transport.get_extra_info("sockname")

    def peer_certificate(self) -> bytes | None:
        """The certificate (DER) of the TLS peer; None without TLS, certificate or connection."""
        tls = self._transport and self._transport.get_extra_info("ssl_object")
        return tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLObject) else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self._transport = cast(asyncio.Transport, transport)
        if (plain := transport.get_extra_info("socket")) is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()
        self._arm(self.limits.write_seconds)

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
        if not self._over:
            self._deadline = NEVER

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _flow(self, go: bool) -> None:
        """Let the peer send on, or hold it back."""
        if self._held is go and self._transport is not None and not self._transport.is_closing():
            self._held = not go
            if go:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _close(self) -> None:
        """End the connection when what was written has gone out.

        Never twice: the TLS transport of asyncio answers nothing after a second close.
        """
        self._over = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._arm(self.limits.write_seconds)

    def _linger(self) -> None:
        """Close the sending side, and drop what still arrives."""
        if self._transport is None:
            return
        if self._ended:
            self._close()
            return
        self._flow(True)
        self._over = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._arm(self.limits.linger_seconds)

    def _arm(self, seconds: float) -> None:
        """Set the deadline. A timer that ends earlier looks again, which spares a timer each."""
        due = self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer_at > due:
            self._look_at(due)

    def _look_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        """The timer ended: the deadline may be later by now."""
        self._timer = None
        if self._transport is None or self._deadline == NEVER:
            return
        if self._deadline > self._loop.time():
            self._look_at(self._deadline)
        else:
            self._expire()

    def _expire(self) -> None:
        """The deadline has passed."""
        if self._room is not None or self._transport is None or self._transport.is_closing():
            self.abort()
        else:
            self._close()
