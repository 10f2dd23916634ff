"""Why a request was not served: the status of the answer, and a reason from a closed set."""

import asyncio
from typing import Final, NamedTuple


class Failure(NamedTuple):
    """What the server asks its owner to render. `bug` is what the handler raised, if it did.

    `reason` is a constant of this package. It never holds what a peer sent.
    """

    status: int
    reason: str
    bug: BaseException | None = None


class Refused(Exception):
    """The request cannot be served. A handler may let it pass: the server answers `status`."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason: Final = reason
        self.status: Final = status


class Malformed(Refused):
    """The bytes are no unambiguous HTTP/1.1 message; nothing after them can be read."""


class BodyTooLarge(Refused):
    """The body is longer than the reader allows."""

    def __init__(self) -> None:
        super().__init__("body_too_large", 413)


class BodyTooSlow(Refused):
    """The body did not arrive in time."""

    def __init__(self) -> None:
        super().__init__("body_too_slow", 408)


class BodyBrokenOff(Refused):
    """The peer went away, or sent malformed bytes, in the middle of a body."""

    def __init__(self, reason: str = "body_broken_off") -> None:
        super().__init__(reason)


class Unfinished(Exception):
    """The body of a response cannot be finished. Its maker knows why, and has logged it.

    The server breaks the connection off, so that nobody takes a part for the whole.
    """


def failure_of(error: BaseException) -> Failure:
    """What a handler that raised `error` leaves to be rendered."""
    if isinstance(error, Refused):
        return Failure(error.status, error.reason)
    if isinstance(error, asyncio.CancelledError):
        return Failure(503, "draining")
    return Failure(500, "bug", error)
