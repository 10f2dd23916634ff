"""What is left of a request while one thing is waited for, without a task of its own.

A task costs more than all that most requests of a proxy still have to do when the response is
there. A handler returns a `Continuation`, and the code that has the thing calls `resume` with it.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

from chassis.http1.request import Request
from chassis.http1.response import Response, StreamResponse


class Continuation:
    """The rest of `request`. One of `proceed` and `abandon` is called, and that once.

    No abstract base class: `isinstance` with one of those takes a microsecond for each request.
    """

    __slots__ = ("request",)

    def __init__(self, request: Request) -> None:
        self.request: Final = request

    def resume(self, result: Any) -> None:
        """The thing is there. It has no effect after `cancel`, nor a second time."""
        self.request.connection.resume(self, result)

    def cancel(self) -> None:
        """Nobody waits for the response any more, or the server ends."""
        self.request.connection.resume(self, asyncio.CancelledError())

    def outcome_of(self, result: Any) -> "Outcome":
        """What `proceed` makes of the result. Raises what it raises, and a CancelledError."""
        if isinstance(result, asyncio.CancelledError):
            self.abandon()
            raise result
        return self.proceed(result)

    def proceed(self, result: Any) -> "Outcome":
        """What a handler may return, now that `result` is there."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Let go of what was waited for."""
        raise NotImplementedError


AnyResponse = Response | StreamResponse
Outcome = AnyResponse | Awaitable[AnyResponse] | Continuation  # what a handler may return
