"""One connection of a client, with at most one request at a time, and its response.

A connection is used again only when both sides are whole: the request was sent to its end, the
response has arrived to its end, and nothing followed it.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from chassis.http1.body import IncomingBody, body_reader
from chassis.http1.channel import NEVER, Channel
from chassis.http1.errors import Malformed, Refused
from chassis.http1.head import END
from chassis.http1.no_response import BadResponse, Disconnected, TooSlow
from chassis.http1.outgoing import OutgoingBody, RequestHead, render_head
from chassis.http1.response_head import UNFRAMED, read_response_head
from chassis.http1.streamed_response import StreamedResponse

if TYPE_CHECKING:
    from chassis.http1.client import Client

_MOST_INTERIM: Final = 8


class ClientConnection(Channel):
    """A connection of `client`, which gets it back with `put_back` after each `call`."""

    def __init__(self, client: "Client", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, client.limits)
        self._client = client
        self._busy = False  # with a call
        self._waiter: asyncio.Future[StreamedResponse] | None = None
        self._head_seconds: float | None = None
        self._without_body = False
        self._sending: asyncio.Task[None] | None = None
        self._sent = False  # the whole request was written
        self._buffer = b""
        self._interim = 0
        self._begun = False  # something of a response has arrived
        self._incoming: IncomingBody | None = None  # once the head was read
        self._response: StreamedResponse | None = None
        self._stays = False  # the server goes on after this response
        self.reusable = False

    async def call(
        self, head: RequestHead, body: bytes | OutgoingBody | None, head_seconds: float | None
    ) -> StreamedResponse:
        """Send a request and wait for the head of its response. Raises NoResponse."""
        self._busy, self.reusable, self._begun, self._interim = True, False, False, 0
        self._buffer, self._incoming, self._response = b"", None, None
        self._without_body, self._head_seconds = head.method == "HEAD", head_seconds
        waiter: asyncio.Future[StreamedResponse] = self._loop.create_future()
        self._waiter, self._deadline = waiter, NEVER
        try:
            self._send(head, body)
            return await waiter
        except BaseException:
            self._leave(waiter)
            raise

    def _leave(self, waiter: "asyncio.Future[StreamedResponse]") -> None:
        """The caller waits no longer. The connection may serve another by now."""
        if waiter is self._waiter:
            self.fail(Disconnected())
        elif not waiter.cancelled() and waiter.exception() is None:
            waiter.result().close()

    def rest(self) -> None:
        """Keep the connection for a while."""
        self._arm(self.limits.idle_seconds)

    def fail(self, error: Exception) -> None:
        """End the call and the connection; whoever waits for the response gets `error`."""
        self.reusable = False
        if not self._busy:
            return
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            if not waiter.done():
                waiter.set_exception(error)
        elif self._response is not None and self._incoming is not None:
            self._response.error = error
            self._incoming.break_off()
        self._release()

    # What the transport calls.

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._client.forget(self)
        # Also where TLS ended it: with TLS 1.3 a server refuses our certificate only here.
        self.fail(BadResponse() if self._begun else Disconnected())

    def eof_received(self) -> bool:
        self._ended = True
        self.reusable = False
        return False

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            self.reusable = False  # nobody asked: what follows could answer the wrong request
            self._client.forget(self)
            self.abort()
            return
        self._begun = True
        try:
            self._read(self._buffer + data if self._buffer else data)
        except Refused:
            self.fail(BadResponse())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._await_head()

    def _expire(self) -> None:
        if self._busy:
            self.fail(TooSlow())
        else:
            super()._expire()

    # The request.

    def _send(self, head: RequestHead, body: bytes | OutgoingBody | None) -> None:
        self._sent = not isinstance(body, OutgoingBody)
        rendered = render_head(head, body)
        if self._transport is None or self._transport.is_closing():
            self.fail(Disconnected())
        elif isinstance(body, OutgoingBody):
            self._transport.write(rendered)
            self._sending = self._loop.create_task(self._pump(body))
        else:
            self._transport.write(rendered + body if body else rendered)
            self._await_head()

    async def _pump(self, body: OutgoingBody) -> None:
        try:
            await self._write_pieces(body)
        except Exception as error:  # noqa: BLE001 - it is raised where the response is awaited
            self._sending = None  # this task must be left to close the source
            self.fail(error)
        else:
            self._sent, self._sending = True, None
            self._await_head()
        finally:
            close = getattr(body.pieces, "aclose", None)
            if close is not None:
                await close()

    async def _write_pieces(self, body: OutgoingBody) -> None:
        left = body.length
        async for piece in body.pieces:
            if not piece:
                continue
            if left is not None:
                left -= len(piece)
                if left < 0:
                    raise ValueError("the body is longer than its length")
            await self._write(piece if left is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
        if left:
            raise ValueError("the body is shorter than its length")
        if left is None:
            await self._write(b"0\r\n\r\n")

    async def _write(self, data: bytes) -> None:
        if self._transport is None:
            raise Disconnected
        self._transport.write(data)
        if self._room is not None:
            await self._room

    def _await_head(self) -> None:
        """The server has the whole request now: the time for its answer begins."""
        waits = self._waiter is not None and self._sent and self._room is None
        if waits and self._head_seconds is not None:
            self._arm(self._head_seconds)

    # The response.

    def _read(self, data: bytes) -> None:
        while self._incoming is None:
            end = data.find(END) + len(END)
            if (len(data) if end < len(END) else end) > self.limits.head_bytes:
                raise Malformed("head_too_large")
            if end < len(END):
                self._buffer = data
                return
            self._read_head(data[:end])
            data = data[end:]
        self._buffer = b""
        rest = self._incoming.feed(data)
        self._deliver()
        if self._incoming.whole:
            self._finish(rest)

    def _read_head(self, raw: bytes) -> None:
        head = self._client.last_head
        if head is None or head.raw != raw:
            read = read_response_head(raw, self.limits)
            if read is None:
                self._interim += 1
                if self._interim > _MOST_INTERIM:
                    raise Malformed("interim_response")
                return
            head = self._client.last_head = read
        length = 0 if self._without_body or head.status in (204, 304) else head.announced
        if length == UNFRAMED:
            raise Malformed("unframed_body")  # it would end wherever the connection breaks
        self._stays = head.stays
        self._incoming = IncomingBody(body_reader(length), self._flow, None)
        announced = None if head.announced == UNFRAMED else head.announced
        self._response = StreamedResponse(
            head.status, head.headers, announced, self._incoming, self
        )

    def _deliver(self) -> None:
        """The head is there, and what came with it is well-formed."""
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        if self._room is None:
            self._deadline = NEVER
        if not waiter.done() and self._response is not None:
            waiter.set_result(self._response)

    def _finish(self, rest: bytes) -> None:
        """The response is whole; a request that is not is left as it is."""
        if self._incoming is not None:
            self._incoming.detach()
        self._flow(True)
        written = self._transport is not None and not self._transport.get_write_buffer_size()
        self.reusable = self._stays and self._sent and written and not rest and not self._ended
        self._release()

    def _release(self) -> None:
        if not self._busy:
            return
        self._busy = False
        self._incoming = self._response = None
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()
        self._client.put_back(self)
