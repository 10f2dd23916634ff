"""A response as a client gets it: its head, and a body that may still be arriving."""

from typing import TYPE_CHECKING

from chassis.http1.body import ArrivedBody, IncomingBody
from chassis.http1.errors import BodyBrokenOff, BodyTooSlow
from chassis.http1.no_response import BadResponse, TooSlow
from chassis.http1.request import Headers

if TYPE_CHECKING:
    from chassis.http1.client_connection import ClientConnection


class StreamedResponse:
    """A final response whose body may still be arriving; the server is held back meanwhile.

    `length` is what the head announced, also for a response to HEAD; None where it says nothing
    or the body comes in chunks. It must be read to its end or closed.
    """

    __slots__ = ("_connection", "_incoming", "error", "headers", "length", "status")

    def __init__(
        self,
        status: int,
        headers: Headers,
        length: int | None,
        incoming: IncomingBody | ArrivedBody,
        connection: "ClientConnection",
    ) -> None:
        self.status, self.headers, self.length = status, headers, length
        self._incoming, self._connection = incoming, connection
        self.error: Exception | None = None  # why the body breaks off

    @property
    def whole(self) -> bool:
        """Whether all of the body has arrived, read or not."""
        return self._incoming.whole

    def take(self) -> bytes:
        """What has arrived and was not read; of a whole response, the rest of its body."""
        return self._incoming.arrived()

    async def next(self, seconds: float | None = None) -> bytes:
        """What has arrived, at least one byte; nothing at the end.

        Raises NoResponse where the body breaks off or nothing comes within `seconds`, and what
        the request's own body raised.
        """
        try:
            return await self._incoming.next(seconds)
        except BodyTooSlow:
            self.close()
            raise TooSlow from None
        except BodyBrokenOff:
            raise self.error or BadResponse() from None

    def arrived(self) -> bytes:
        """The rest of a body that is `whole`."""
        return self._incoming.arrived()

    async def read(self, most: int, seconds: float | None = None) -> bytes:
        """The rest of the body. Raises NoResponse, also where it is longer than `most`."""
        pieces, size = [], 0
        while piece := await self.next(seconds):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                self.close()
                raise BadResponse
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Nobody reads on. A body that is not whole costs its connection."""
        if not self._incoming.whole and self.error is None:
            self._connection.fail(BadResponse())
