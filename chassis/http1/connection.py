"""One connection: requests in, one after the other, and responses out in their order."""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final

from chassis.http1.body import HIGH_WATER, IncomingBody, body_reader
from chassis.http1.channel import NEVER
from chassis.http1.continuation import AnyResponse, Continuation, Outcome
from chassis.http1.errors import Failure, Malformed, Refused, Unfinished, failure_of
from chassis.http1.head import Heads, check_beginning
from chassis.http1.request import Request
from chassis.http1.response import Response, StreamResponse
from chassis.http1.response_writer import CONNECTION_OPTIONS, PeerGone, ResponseWriter
from chassis.logs import Log

if TYPE_CHECKING:
    from chassis.http1.server import Server

_log = Log("http1")

_IN_A_TURN: Final = 16  # requests of one connection, before others have their turn


class Connection(ResponseWriter):
    """A caller's connection to a server.

    `peer` is the handler's own: what it has verified of the peer, kept exactly as long as the
    connection.
    """

    def __init__(self, server: "Server", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, server.limits, server.date)
        self._server = server
        self.peer: Any = None
        self._source: str | None = None
        self._buffer, self._at = b"", 0  # what arrived, and how far it was read
        self._begun = False  # a head has begun to arrive
        self._heads = Heads(server.limits, absolute_form=server.absolute_form)
        self._incoming: IncomingBody | None = None
        self._handling = False  # a request was read, and is not answered yet
        self._streaming = False
        self._work: asyncio.Task[None] | Continuation | None = None  # what answers it

    @property
    def idle(self) -> bool:
        """Whether no request is being answered; a head that is not whole yet is none."""
        return not self._handling

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._source = self._server.add(self)
        if self._source is None:
            self.abort()
            return
        self._begun = True  # callers connect when they have something to ask
        self._arm(self.limits.head_seconds)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._buffer = b""
        if self._incoming is not None:
            self._incoming.break_off()
        abandoned = self._streaming or self._server.abandon_seconds is not None
        if self._work is not None and abandoned:
            self._work.cancel()
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
        elif self._work is not None and self._server.abandon_seconds is not None:
            self._loop.call_later(self._server.abandon_seconds, self._abandon, self._work)
        return self._transport is not None and not self._transport.get_extra_info("sslcontext")

    def _abandon(self, work: "asyncio.Task[None] | Continuation") -> None:
        """The peer sent its last byte a while ago: its request is not worth more time."""
        if work is self._work and not self._streaming:
            work.cancel()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._handling:
            self._serve()

    # Requests.

    def _serve(self) -> None:
        """Answer what is in the buffer, until there is something to wait for."""
        for _ in range(_IN_A_TURN):
            if self._handling or self._over or self._room is not None or self._transport is None:
                return
            if self._at == len(self._buffer):
                self._rest()
                return
            try:
                end = self._heads.find(self._buffer, self._at)
                if not end:
                    self._await_more()
                    return
            except Refused as refused:
                self._refuse(refused)
                return
            self._begun = False
            if not self._handle(self._take_body(end)):
                return
        self._loop.call_soon(self._serve)

    def _rest(self) -> None:
        """Every request was answered."""
        self._buffer, self._at = b"", 0
        if self._ended or self._server.draining:
            self._close()
            return
        if self._held:
            self._flow(True)
        self._arm(self.limits.idle_seconds)

    def _await_more(self) -> None:
        """The next head has begun and is not whole. Raises Refused."""
        if self._ended or self._server.draining:
            self._close()
            return
        self._flow(True)
        check_beginning(self._buffer[self._at :], self.limits)
        if not self._begun:
            self._begun = True
            self._arm(self.limits.head_seconds)

    def _take_body(self, at: int) -> Request:
        """Split what is in the buffer into the body of the request and what follows it."""
        head = self._heads.latest
        length = head.content_length
        if length is not None and len(self._buffer) - at >= length:
            self._at = at + length
            return Request(head, self, self._buffer[at : self._at])
        reader = body_reader(length)
        incoming = IncomingBody(reader, self._flow, self._invite if head.expects_continue else None)
        begun, self._buffer, self._at = self._buffer[at:], b"", 0
        if begun:
            with contextlib.suppress(Malformed):  # a handler that reads the body is told
                self._buffer = incoming.feed(begun)
        if incoming.whole:
            return Request(head, self, incoming.arrived())
        if self._ended:
            incoming.break_off()
        request = Request(head, self, None)
        self._incoming = request.incoming = incoming
        return request

    def _handle(self, request: Request) -> bool:
        """Whether it was answered at once and the connection goes on."""
        self._handling = True
        try:
            outcome: Outcome = self._server.handler(request)
        except Exception as error:  # noqa: BLE001 - the edge: every request gets an answer
            outcome = self._failed(error)
        return self._take_up(request, outcome)

    def _take_up(self, request: Request, outcome: Outcome) -> bool:
        """Whether it was answered by that and the connection goes on."""
        if isinstance(outcome, Response):
            return self._respond(request, outcome)
        self._deadline = NEVER
        if isinstance(outcome, Continuation):
            self._work = outcome
        else:
            self._work = self._loop.create_task(self._answer(request, outcome))
        return False

    def resume(self, continuation: Continuation, result: Any) -> None:
        """Go on with a request that waited for `result`; CancelledError: nobody waits for it."""
        if continuation is not self._work:
            return
        self._work = None
        try:
            outcome = continuation.outcome_of(result)
        except (asyncio.CancelledError, Exception) as error:  # noqa: BLE001 - the edge, as above
            outcome = self._failed(error)
        self._take_up(continuation.request, outcome)
        if not self._handling:
            self._serve()

    async def _answer(
        self, request: Request, outcome: Awaitable[AnyResponse] | StreamResponse
    ) -> None:
        try:
            response = outcome if isinstance(outcome, StreamResponse) else await outcome
        except (asyncio.CancelledError, Exception) as error:  # noqa: BLE001 - the edge, as above
            response = self._failed(error)
        if isinstance(response, StreamResponse):
            await self._stream(request, response)
        else:
            self._respond(request, response)
        self._work = None
        if not self._handling:
            self._serve()

    def _failed(self, error: BaseException) -> Response:
        return self._server.failed(failure_of(error))

    def _refuse(self, refused: Refused) -> None:
        """Answer bytes that are no request, and end the connection."""
        response = self._server.failed(Failure(refused.status, refused.reason))
        self._write_whole(response, b"Connection: close\r\n", without_body=False)
        self._linger()

    # Responses.

    def _respond(self, request: Request, response: Response) -> bool:
        """Whether the connection goes on."""
        stays = self._may_stay(request, response) and request.all_arrived
        option = CONNECTION_OPTIONS[stays, request.head.minor_version]
        self._write_whole(response, option, without_body=request.method == "HEAD")
        self._finish(request, stays)
        return stays

    async def _stream(self, request: Request, response: StreamResponse) -> None:
        version, length = request.head.minor_version, response.length
        # The body may go on to arrive while the response goes out: whether it did is seen then.
        stays = self._may_stay(request, response) and (version == 1 or length is not None)
        chunked = length is None and version == 1
        self._streaming = True
        try:
            bare = request.method == "HEAD" or response.head.bodiless
            self._write_stream_head(
                response, CONNECTION_OPTIONS[stays, version], chunked=chunked, bare=bare
            )
            if not bare:
                await self._pump(response, chunked=chunked)
        except BaseException as error:  # the peer must see that the end is missing
            self.abort()
            if not isinstance(error, Exception):
                raise
            if not isinstance(error, PeerGone | Unfinished):
                _log.failure("response_broken_off", error)
        else:
            self._finish(request, stays and request.all_arrived)
        finally:
            self._streaming = False
            close = getattr(response.body, "aclose", None)
            if close is not None:
                await close()

    def _may_stay(self, request: Request, response: AnyResponse) -> bool:
        """Whether the connection may go on after this response, if the request is whole by then."""
        return request.head.keep_alive and not (response.close or self._server.draining)

    def _finish(self, request: Request, stays: bool) -> None:
        self._handling, self._incoming = False, None
        if stays or self._transport is None:
            return
        if request.all_arrived and self._at == len(self._buffer):
            self._close()
        else:
            self._linger()

    def cancel(self) -> None:
        """Cancel the request in progress; it is answered 503."""
        if self._work is not None:
            self._work.cancel()

    def drain(self) -> None:
        """End the connection, unless it has a request in progress."""
        if not self._handling and not self._over:
            self._close()
