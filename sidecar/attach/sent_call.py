"""A call that went to the API at once, because nothing had to be waited for before."""

from collections.abc import Callable

from chassis.http1.client_connection import ClientConnection
from chassis.http1.continuation import Continuation, Outcome
from chassis.http1.request import Request
from chassis.http1.streamed_response import StreamedResponse
from sidecar.attach.call import AttachCall, PreparedCall

Result = StreamedResponse | Exception


class SentCall(Continuation):
    """Waits for the head of the API's answer; `go_on` gets it, or why there is none."""

    __slots__ = ("_go_on", "api", "body", "call", "prepared", "started")

    def __init__(
        self,
        request: Request,
        call: AttachCall,
        prepared: PreparedCall,
        body: bytes | None,
        started: float,
        go_on: "Callable[[SentCall, Result], Outcome]",
    ) -> None:
        super().__init__(request)
        self.call, self.prepared, self.body = call, prepared, body
        self.started, self._go_on = started, go_on
        self.api: ClientConnection | None = None  # once it was sent

    def proceed(self, result: Result) -> Outcome:
        return self._go_on(self, result)

    def abandon(self) -> None:
        if self.api is not None:
            self.api.abandon(self.resume)
