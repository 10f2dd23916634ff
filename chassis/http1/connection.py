"""One connection: requests in, one after the other, and responses out in their order.

Whatever ends a connection early leaves the peer time to read the answer: the sending side is
closed, and what still arrives is dropped for a moment (RFC 9112 section 9.6).
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, cast

from chassis.addresses import read_address, source_of
from chassis.http1.body import HIGH_WATER, ChunkReader, IncomingBody, LengthReader
from chassis.http1.errors import Failure, Malformed, Refused
from chassis.http1.head import END, check_beginning, read_head
from chassis.http1.request import Request
from chassis.http1.response import Response, StreamResponse
from chassis.logs import Log

if TYPE_CHECKING:
    from chassis.http1.server import Server

_log = Log("http1")

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_IN_A_TURN: Final = 16  # requests of one connection, before others have their turn

_NEVER: Final = float("inf")

AnyResponse = Response | StreamResponse


class _PeerGone(Exception):
    """Nobody is there to read the rest of a response."""


class Connection(asyncio.Protocol):
    """What a handler may know of it: `peername`, `sockname`, the peer's certificate.

    `peer` is the handler's own: what it has verified of the peer, kept exactly as long as the
    connection.
    """

    def __init__(self, server: "Server", loop: asyncio.AbstractEventLoop) -> None:
        self._server, self._loop = server, loop
        self.limits, self.absolute_form = server.limits, server.absolute_form
        self.peer: Any = None
        self._transport: asyncio.Transport | None = None
        self._source: str | None = None
        self._buffer, self._at = b"", 0  # what arrived, and how far it was read
        self._begun = False  # a head has begun to arrive
        self._incoming: IncomingBody | None = None
        self._handling = False  # a request was read, and is not answered yet
        self._streaming = False
        self._task: asyncio.Task[None] | None = None
        self._held = False  # reading is paused
        self._ended = False  # the peer sends nothing more
        self._over = False  # the last response was written; what arrives is dropped
        self._room: asyncio.Future[None] | None = None  # done when the peer has read on
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # What a handler may know.

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

    @property
    def idle(self) -> bool:
        """Whether no request is being answered; a head that is not whole yet is none."""
        return not self._handling

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        source = source_of(read_address(peer[0] if isinstance(peer, tuple) else ""))
        if not self._server.add(self, source):
            self._transport.abort()
            return
        self._source = source
        if (plain := transport.get_extra_info("socket")) is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._begun = True  # callers connect when they have something to ask
        self._arm(self.limits.head_seconds)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        self._buffer = b""
        if self._timer is not None:
            self._timer.cancel()
        if self._incoming is not None:
            self._incoming.break_off()
        if self._task is not None and self._streaming:
            self._task.cancel()
        if self._source is not None:
            self._server.remove(self, self._source)
            self._source = None

    def data_received(self, data: bytes) -> None:
        if self._over or self._source is None:
            return
        if self._incoming is not None and not self._incoming.whole:
            try:
                data = self._incoming.feed(data)
            except Malformed:
                return  # the reader knows, and this was the last request
            if not data:
                return
        if self._buffer:
            data = self._buffer[self._at :] + data
        self._buffer, self._at = data, 0
        if not self._handling:
            self._serve()
        if len(self._buffer) - self._at > HIGH_WATER:
            self._flow(False)

    def eof_received(self) -> bool:
        """The peer may still wait for an answer. TLS knows no half-closed connections.

        A peer that gets a stream has no other way to say that it has gone.
        """
        self._ended = True
        if self._incoming is not None:
            self._incoming.break_off()
        if self._streaming:
            self.abort()
        elif self._over:
            self._close()
        elif not self._handling:
            self._serve()
        return self._transport is not None and not self._transport.get_extra_info("sslcontext")

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()
        self._arm(self.limits.write_seconds)

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
        if self._handling:
            self._rest()
        else:
            self._serve()

    # Requests.

    def _serve(self) -> None:
        """Answer what is in the buffer, until there is something to wait for."""
        for _ in range(_IN_A_TURN):
            if self._handling or self._over or self._room is not None or self._transport is None:
                return
            end = self._buffer.find(END, self._at) + len(END)
            if end < len(END):
                self._await_more()
                return
            try:
                if end - self._at > self.limits.head_bytes:
                    raise Refused("head_too_large", 431)
                request = read_head(self._buffer[self._at : end], self)
            except Refused as refused:
                self._refuse(refused)
                return
            self._begun = False
            self._take_body(request, end)
            self._handle(request)
        self._loop.call_soon(self._serve)

    def _await_more(self) -> None:
        if self._ended or self._server.draining:
            self._close()
            return
        self._flow(True)
        if self._at == len(self._buffer):
            self._buffer, self._at = b"", 0
            if not self._begun:
                self._arm(self.limits.idle_seconds)
            return
        try:
            check_beginning(self._buffer[self._at :], self.limits)
        except Refused as refused:
            self._refuse(refused)
            return
        if not self._begun:
            self._begun = True
            self._arm(self.limits.head_seconds)

    def _take_body(self, request: Request, at: int) -> None:
        """Split what is in the buffer into this request's body and what follows it."""
        length = request.content_length
        if length is not None and len(self._buffer) - at >= length:
            if length:
                request.body = self._buffer[at : at + length]
            self._at = at + length
            return
        reader = ChunkReader() if length is None else LengthReader(length)
        ask = self._invite if request.expects_continue else None
        incoming = IncomingBody(reader, self._flow, ask)
        begun, self._buffer, self._at = self._buffer[at:], b"", 0
        if begun:
            with contextlib.suppress(Malformed):  # a handler that reads the body is told
                self._buffer = incoming.feed(begun)
        if incoming.whole:
            request.body = incoming.arrived()
            return
        self._incoming = request.incoming = incoming
        request.body = None
        if self._ended:
            incoming.break_off()

    def _invite(self) -> None:
        if self._transport is not None:
            self._transport.write(_CONTINUE)

    def _handle(self, request: Request) -> None:
        self._handling = True
        try:
            outcome = self._server.handler(request)
        except Exception as error:  # noqa: BLE001 - the edge: every request gets an answer
            outcome = self._failed(error)
        if isinstance(outcome, Response):
            self._respond(request, outcome)
            return
        self._deadline = _NEVER
        self._task = self._loop.create_task(self._answer(request, outcome))

    async def _answer(
        self, request: Request, outcome: Awaitable[AnyResponse] | StreamResponse
    ) -> None:
        try:
            response = outcome if isinstance(outcome, StreamResponse) else await outcome
        except asyncio.CancelledError as cancelled:
            response = self._failed(cancelled)
        except Exception as error:  # noqa: BLE001 - the edge: every request gets an answer
            response = self._failed(error)
        if isinstance(response, StreamResponse):
            await self._stream(request, response)
        else:
            self._respond(request, response)
        self._task = None
        if not self._handling:
            self._serve()

    def _failed(self, error: BaseException) -> Response:
        """The answer to a request that its handler failed at."""
        if isinstance(error, Refused):
            failure = Failure(error.status, error.reason)
        elif isinstance(error, asyncio.CancelledError):
            failure = Failure(503, "draining")
        else:
            failure = Failure(500, "bug", error)
        return self._server.failed(failure)

    def _refuse(self, refused: Refused) -> None:
        """Answer bytes that are no request, and end the connection."""
        self._buffer = b""
        response = self._server.failed(Failure(refused.status, refused.reason))
        self._write_whole(response, b"Connection: close\r\n", without_body=False)
        self._linger()

    # Responses.

    def _respond(self, request: Request, response: Response) -> None:
        stays = self._stays(request, response)
        if stays and request.minor_version and request.method != "HEAD":
            self._write_whole(response, b"", without_body=False)
        else:
            option = b"Connection: keep-alive\r\n" if stays else b"Connection: close\r\n"
            if stays and request.minor_version:
                option = b""
            self._write_whole(response, option, without_body=request.method == "HEAD")
        self._finish(request, stays)

    def _write_whole(self, response: Response, option: bytes, *, without_body: bool) -> None:
        if self._transport is None:
            return
        head, body, date = response.head, response.body, self._server.date()
        if head.bodiless:
            self._transport.write(b"%b%b%b\r\n" % (head.rendered, date, option))
            return
        shown = b"" if without_body else body
        self._transport.write(
            b"%b%b%bContent-Length: %d\r\n\r\n%b" % (head.rendered, date, option, len(body), shown)
        )

    async def _stream(self, request: Request, response: StreamResponse) -> None:
        stays = self._stays(request, response) and (
            bool(request.minor_version) or response.length is not None
        )
        chunked = response.length is None and bool(request.minor_version)
        self._streaming = True
        try:
            self._write_stream_head(request, response, stays=stays, chunked=chunked)
            if request.method != "HEAD" and not response.head.bodiless:
                await self._pump(response, chunked=chunked)
        except BaseException as error:  # the peer must see that the end is missing
            self.abort()
            if not isinstance(error, Exception):
                raise
            if not isinstance(error, _PeerGone):
                _log.failure("response_broken_off", error)
        else:
            self._finish(request, stays)
        finally:
            self._streaming = False
            close = getattr(response.body, "aclose", None)
            if close is not None:
                await close()

    def _write_stream_head(
        self, request: Request, response: StreamResponse, *, stays: bool, chunked: bool
    ) -> None:
        framing = b""
        if response.length is not None and not response.head.bodiless:
            framing = b"Content-Length: %d\r\n" % response.length
        elif chunked and not response.head.bodiless:
            framing = b"Transfer-Encoding: chunked\r\n"
        option = b"" if stays else b"Connection: close\r\n"
        if stays and not request.minor_version:
            option = b"Connection: keep-alive\r\n"
        if self._transport is None or self._ended:
            raise _PeerGone
        self._transport.write(
            response.head.rendered + self._server.date() + option + framing + b"\r\n"
        )

    async def _pump(self, response: StreamResponse, *, chunked: bool) -> None:
        left = response.length
        async for piece in response.body:
            if self._transport is None:
                raise _PeerGone
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

    def _stays(self, request: Request, response: AnyResponse) -> bool:
        """Whether the connection goes on after this response."""
        whole = request.incoming is None or request.incoming.whole
        return request.keep_alive and whole and not response.close and not self._server.draining

    def _finish(self, request: Request, stays: bool) -> None:
        self._handling = False
        whole = request.incoming is None or request.incoming.whole
        self._incoming = None
        if self._transport is None:
            return
        if stays:
            return
        if whole and self._at == len(self._buffer):
            self._close()
        else:
            self._linger()

    # Deadlines, flow, the end.

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def cancel(self) -> None:
        """Cancel the request in progress; it is answered 503."""
        if self._task is not None:
            self._task.cancel()

    def drain(self) -> None:
        """End the connection, unless it has a request in progress."""
        if not self._handling and not self._over:
            self._close()

    def _flow(self, go: bool) -> None:
        """Let the peer send on, or hold it back."""
        if self._held is go and self._transport is not None and not self._transport.is_closing():
            self._held = not go
            if go:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _close(self) -> None:
        self._over = True
        if self._transport is not None:
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
        self._buffer = b""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._arm(self.limits.linger_seconds)

    def _arm(self, seconds: float) -> None:
        self._arm_at(self._loop.time() + seconds)

    def _arm_at(self, due: float) -> None:
        """Set the deadline. A timer that ends earlier looks again, which spares a timer each."""
        self._deadline = due
        if self._timer is None or self._timer_at > due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self._loop.call_at(due, self._look)

    def _rest(self) -> None:
        self._deadline = _NEVER

    def _look(self) -> None:
        """The timer ended: the deadline may be later by now."""
        self._timer = None
        if self._transport is None or self._deadline == _NEVER:
            return
        if self._deadline > self._loop.time():
            self._arm_at(self._deadline)
        elif self._room is not None or self._transport.is_closing():
            self.abort()
        else:
            self._close()
