"""TLS of a client, between a socket's transport and its protocol.

asyncio's own keeps 256 KiB for each connection, used or not, which two hundred idle streams of a
sidecar would feel. This one keeps what OpenSSL keeps, and takes fewer steps for each record.
"""

import asyncio
import contextlib
import ssl
from typing import Any, Final, cast

_LARGEST_READ: Final = 64 * 1024


class TlsLayer(asyncio.Transport, asyncio.Protocol):
    """The protocol of a socket's transport, and the transport of `inner`.

    `ready` is done when the handshake is: `inner` was connected then. It raises ssl.SSLError where
    the server is not accepted, and OSError where the connection ended.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        server_name: str,
        inner: asyncio.Protocol,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__()
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=False, server_hostname=server_name
        )
        self._raw: asyncio.Transport | None = None
        self._error: Exception | None = None  # why OpenSSL gave the connection up
        self.ready: asyncio.Future[None] = loop.create_future()

    # What the socket's transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self._raw = cast(asyncio.Transport, transport)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if not self.ready.done():
            self._shake_hands()
        if self.ready.done():
            self._read()

    def eof_received(self) -> bool:
        if self._is_connected():
            self._inner.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_connected():
            self._inner.connection_lost(self._error or exc)
        elif not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError("ended in the handshake"))
        self._raw = None

    def pause_writing(self) -> None:
        if self._is_connected():
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._is_connected():
            self._inner.resume_writing()

    # What the inner protocol calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._raw is None or self._raw.is_closing():
            return
        left = memoryview(data)
        try:
            while left:
                left = left[self._tls.write(left) :]
        except ssl.SSLError as error:
            self._give_up(error)
        else:
            self._raw.write(self._outgoing.read())

    def is_closing(self) -> bool:
        return self._raw is None or self._raw.is_closing()

    def close(self) -> None:
        if self._raw is not None and not self._raw.is_closing():
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()  # it sends our close_notify, and does not wait for theirs
            self._flush()
            self._raw.close()

    def abort(self) -> None:
        if self._raw is not None:
            self._raw.abort()

    def pause_reading(self) -> None:
        if self._raw is not None:
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        if self._raw is not None:
            self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        return 0 if self._raw is None else self._raw.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        """TLS knows no half-closed connections."""
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        return default if self._raw is None else self._raw.get_extra_info(name, default)

    # The work.

    def _is_connected(self) -> bool:
        """Whether `inner` was told of this transport."""
        ready = self.ready
        return ready.done() and not ready.cancelled() and ready.exception() is None

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()  # the alert that says why
            self.ready.set_exception(error)
            self.close()
        else:
            self._flush()
            self._inner.connection_made(self)
            self.ready.set_result(None)

    def _read(self) -> None:
        """Give on what has arrived, and answer what TLS itself asked."""
        try:
            while self._raw is not None and not self._raw.is_closing():
                plain = self._tls.read(_LARGEST_READ)
                if not plain:
                    self._end()
                    return
                self._inner.data_received(plain)
                if not self._incoming.pending and not self._tls.pending():
                    break  # one more read would say so with an exception, at the cost of the first
            self._flush()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLZeroReturnError:
            self._end()
        except ssl.SSLError as error:
            self._give_up(error)

    def _end(self) -> None:
        """The server has said that it sends nothing more."""
        self._inner.eof_received()
        self.close()

    def _give_up(self, error: ssl.SSLError) -> None:
        self._error = error
        self._flush()
        self.abort()

    def _flush(self) -> None:
        if self._outgoing.pending and self._raw is not None and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())
