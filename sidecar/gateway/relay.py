"""The app's response on its way to the client: whole where it is short, else piece by piece."""

from collections.abc import Callable
from typing import Final

from chassis.http1.errors import Malformed, Refused, Unfinished
from chassis.http1.no_response import NoResponse
from chassis.http1.streamed_response import StreamedResponse
from chassis.logs import Log
from sidecar.gateway.session_ids import FirstEvent
from sidecar.gateway.streams import Stream

_log = Log("gateway")

SHORT: Final = 64 * 1024
_EVENTS: Final = "text/event-stream"


def is_event_stream(response: StreamedResponse) -> bool:
    media_type = (response.headers.get("content-type") or "").partition(";")[0]
    return media_type.strip().lower() == _EVENTS


def is_short(response: StreamedResponse) -> bool:
    """Whether it is read whole before any of it goes on, so that it never breaks off in between."""
    if response.length is not None:
        return response.length <= SHORT
    return response.whole


class Relay:
    """The pieces of a response. `bind` is given the id that the stream's first event names.

    It ends when the app's response does, or in between two events when the stream has to end.
    Everything else breaks the connection off. `done` is called once, at its end. `begun` was read
    before.
    """

    def __init__(
        self,
        response: StreamedResponse,
        stream: Stream | None,
        bind: Callable[[str], bool] | None,
        done: Callable[[], object],
        begun: bytes = b"",
    ) -> None:
        self._response, self._stream, self._done = response, stream, done
        self._begun = begun
        self._bind, self._first = bind, None if bind is None else FirstEvent()
        self._over = False
        if stream is not None:
            stream.events = is_event_stream(response)
            stream.wake = response.close

    def __aiter__(self) -> "Relay":
        return self

    async def __anext__(self) -> bytes:
        if self._must_end():
            raise StopAsyncIteration
        try:
            piece, self._begun = self._begun, b""
            piece = piece or await self._response.next(None)
        except (NoResponse, Refused) as broken:
            if self._must_end():
                raise StopAsyncIteration from None
            reason = self._stream.reason if self._stream is not None else ""
            _log.info("response_cut", reason=reason or type(broken).__name__)
            raise Unfinished from None
        if not piece:
            raise StopAsyncIteration
        if self._stream is not None:
            self._stream.passed(piece)
        if self._first is not None:
            self._look_for_id(piece, self._first)
        return piece

    def _must_end(self) -> bool:
        """Whether the stream was ended, and the client has whole events only."""
        stream = self._stream
        return (
            stream is not None and bool(stream.reason) and stream.events and (stream.between_events)
        )

    def _look_for_id(self, piece: bytes, first: FirstEvent) -> None:
        assert self._bind is not None
        try:
            session_id = first.feed(piece)
        except Malformed:
            _log.warning("session_refused", reason="session_id")
            raise Unfinished from None
        if session_id is not None and not self._bind(session_id):
            _log.warning("session_refused", reason="session_conflict")
            raise Unfinished
        if first.done:
            self._first = None

    async def aclose(self) -> None:
        """Nobody reads on; also where nobody began to."""
        if not self._over:
            self._over = True
            self._response.close()
            self._done()
