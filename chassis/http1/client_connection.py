"""One connection of a client, with at most one request at a time, and its response.

A connection is used again only when both sides are whole: the request was sent to its end, the
response has arrived to its end, and nothing followed it.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from chassis.http1.body import ArrivedBody, IncomingBody, body_reader
from chassis.http1.channel import NEVER, Channel
from chassis.http1.errors import Malformed, Refused
from chassis.http1.head import END
from chassis.http1.no_response import BadResponse, Disconnected, TooSlow
from chassis.http1.outgoing import OutgoingBody, RequestHead, render_head
from chassis.http1.response_head import UNFRAMED, ReadHead, read_response_head
from chassis.http1.streamed_response import StreamedResponse

if TYPE_CHECKING:
    from chassis.http1.client import Client

_MOST_INTERIM: Final = 8

Receive = Callable[[StreamedResponse | Exception], None]


class ClientConnection(Channel):
    """A connection of `client`, which gets it back with `put_back` after each `call`."""

    def __init__(self, client: "Client", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, client.limits)
        self._client = client
        self._busy = False  # with a call
        self._receive: Receive | None = None  # while the head of the response is waited for
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

    @property
    def is_open(self) -> bool:
        """Whether a request can be written; the server may still have closed its side."""
        return self._transport is not None and not self._transport.is_closing()

    def begin(
        self,
        head: RequestHead,
        body: bytes | OutgoingBody | None,
        receive: Receive,
        head_seconds: float | None,
    ) -> None:
        """Send a request. `receive` is called once, with the response when its head is there.

        It is called with NoResponse, or what the body raised, where there is none; at once where
        the connection is not open.
        """
        self._busy, self.reusable, self._begun, self._interim = True, False, False, 0
        self._buffer, self._incoming, self._response = b"", None, None
        self._without_body, self._head_seconds = head.method == "HEAD", head_seconds
        self._receive, self._deadline = receive, NEVER
        self._send(head, body)

    def abandon(self, receive: Receive) -> None:
        """End the call that `begin` began, if its response is still waited for."""
        if receive == self._receive:
            self._receive = None
            self.fail(Disconnected())

    async def call(
        self, head: RequestHead, body: bytes | OutgoingBody | None, head_seconds: float | None
    ) -> StreamedResponse:
        """Send a request and wait for the head of its response. Raises NoResponse."""
        waiter: asyncio.Future[StreamedResponse] = self._loop.create_future()

        def receive(result: StreamedResponse | Exception) -> None:
            if isinstance(result, Exception):
                if not waiter.done():
                    waiter.set_exception(result)
            elif waiter.done():
                result.close()  # the caller was cancelled this very moment
            else:
                waiter.set_result(result)

        try:
            self.begin(head, body, receive, head_seconds)
            return await waiter
        except BaseException:
            self.abandon(receive)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().close()
            raise

    def rest(self) -> None:
        """Keep the connection for a while."""
        self._arm(self.limits.idle_seconds)

    def fail(self, error: Exception) -> None:
        """End the call and the connection; whoever waits for the response gets `error`."""
        self.reusable = False
        if not self._busy:
            return
        receive, self._receive = self._receive, None
        if receive is None and self._response is not None and self._incoming is not None:
            self._response.error = error
            self._incoming.break_off()
        self._release()
        if receive is not None:
            receive(error)

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
            self._client.forget(self)  # at once: what is closing takes no request
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
        waits = self._receive is not None and self._sent and self._room is None
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
            head = self._read_head(data[:end])
            data = data[end:]
            if head is not None:
                length = self._length_of_body(head)
                if length == len(data):
                    self._take_whole(head, ArrivedBody(data))
                    return
                self._await_body(head, IncomingBody(body_reader(length), self._flow, None))
        self._buffer = b""
        rest = self._incoming.feed(data)
        response = self._response
        receive, self._receive = self._receive, None
        if self._incoming.whole:
            self._finish(rest)
        elif self._room is None:
            self._deadline = NEVER
        if receive is not None and response is not None:
            receive(response)

    def _read_head(self, raw: bytes) -> ReadHead | None:
        """The head of a final response; None for an interim one. Raises Malformed."""
        head = self._client.last_head
        if head is not None and head.raw == raw:
            return head
        head = read_response_head(raw, self.limits)
        if head is not None:
            self._client.last_head = head
            return head
        self._interim += 1
        if self._interim > _MOST_INTERIM:
            raise Malformed("interim_response")
        return None

    def _length_of_body(self, head: ReadHead) -> int | None:
        """None for a body in chunks. Raises Malformed."""
        if self._without_body or head.status in (204, 304):
            return 0
        if head.announced == UNFRAMED:
            raise Malformed("unframed_body")  # it would end wherever the connection breaks
        return head.announced

    def _response_of(self, head: ReadHead, body: IncomingBody | ArrivedBody) -> StreamedResponse:
        announced = None if head.announced == UNFRAMED else head.announced
        return StreamedResponse(head.status, head.headers, announced, body, self)

    def _await_body(self, head: ReadHead, incoming: IncomingBody) -> None:
        self._stays, self._incoming = head.stays, incoming
        self._response = self._response_of(head, incoming)

    def _take_whole(self, head: ReadHead, body: ArrivedBody) -> None:
        """The whole response is there, and nothing behind it."""
        self._stays, self._buffer = head.stays, b""
        receive, self._receive = self._receive, None
        self._finish(b"")
        if receive is not None:
            receive(self._response_of(head, body))

    def _finish(self, rest: bytes) -> None:
        """The response is whole; a request that is not is left as it is."""
        if self._incoming is not None:
            self._incoming.detach()
        if self._held:
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
