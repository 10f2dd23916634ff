"""A request that went to the app at once, because nothing had to be waited for before."""

from collections.abc import Callable

from chassis.http1.client_connection import ClientConnection
from chassis.http1.continuation import Continuation, Outcome
from chassis.http1.streamed_response import StreamedResponse
from sidecar.gateway.passing import Accepted, Passing
from sidecar.gateway.streams import Stream


class Forwarding(Continuation):
    """Waits for the head of the app's response; `go_on` gets it, or why there is none.

    It gets None where the stream had to end. `done` is called where nobody wants the response.
    """

    __slots__ = ("_app", "_done", "_go_on", "accepted", "passing", "stream")

    def __init__(
        self,
        passing: Passing,
        accepted: Accepted,
        stream: Stream,
        go_on: "Callable[[Forwarding, StreamedResponse | Exception | None], Outcome]",
        done: Callable[[Stream], object],
    ) -> None:
        super().__init__(passing.request)
        self.passing, self.accepted, self.stream = passing, accepted, stream
        self._go_on, self._done = go_on, done
        self._app: ClientConnection | None = None

    def begun(self, app: ClientConnection) -> None:
        """The request is on its way to the app."""
        self._app = app
        self.stream.wake = self._end

    def proceed(self, result: StreamedResponse | Exception | None) -> Outcome:
        return self._go_on(self, result)

    def abandon(self) -> None:
        self._let_go()
        self._done(self.stream)

    def _end(self) -> None:
        """The stream has to end."""
        self._let_go()
        self.resume(None)

    def _let_go(self) -> None:
        if self._app is not None:
            self._app.abandon(self.resume)
