"""A request as a handler sees it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, KeysView
from typing import TYPE_CHECKING

from chassis.http1.body import IncomingBody
from chassis.http1.errors import BodyTooLarge, BodyTooSlow

if TYPE_CHECKING:
    from chassis.http1.connection import Connection


class Headers:
    """Fields by lower-case name. Values are text in Latin-1, without the white space around them.

    A field that was sent several times is one value, joined by commas (RFC 9110 section 5.3).
    """

    __slots__ = ("_joined", "_repeated")

    def __init__(self) -> None:
        self._joined: dict[str, str] = {}
        self._repeated: dict[str, list[str]] | None = None

    def add(self, name: str, value: str) -> None:
        """Add a field. `name` is in lower case."""
        if name in self._joined:
            self._repeat(name, value)
        else:
            self._joined[name] = value

    def _repeat(self, name: str, value: str) -> None:
        if self._repeated is None:
            self._repeated = {}
        self._repeated.setdefault(name, [self._joined[name]]).append(value)
        self._joined[name] = ", ".join(self._repeated[name])

    def get(self, name: str) -> str | None:
        """The value of the field `name`, joined where it was sent more than once."""
        return self._joined.get(name)

    def get_all(self, name: str) -> list[str]:
        """Every value of the field `name`, in the order they were sent."""
        if self._repeated is not None and name in self._repeated:
            return self._repeated[name]
        value = self._joined.get(name)
        return [] if value is None else [value]

    @property
    def names(self) -> KeysView[str]:
        return self._joined.keys()

    @property
    def repeated(self) -> KeysView[str] | tuple[()]:
        """The names of the fields that were sent more than once."""
        return () if self._repeated is None else self._repeated.keys()

    def items(self) -> Iterable[tuple[str, str]]:
        """Every field as it was sent; fields of one name are together."""
        if self._repeated is None:
            return self._joined.items()
        return [(name, value) for name in self._joined for value in self.get_all(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._joined

    def __len__(self) -> int:
        if self._repeated is None:
            return len(self._joined)
        return len(self._joined) + sum(len(values) - 1 for values in self._repeated.values())


def media_type(headers: Headers) -> str:
    """The media type of the content, in lower case and without parameters; empty without one."""
    return (headers.get("content-type") or "").partition(";")[0].strip(" \t").lower()


class Head:
    """The head of a request; nothing of it changes.

    `target` is spelled as it was sent: a path with its query, or `*` of OPTIONS; a URI only where
    the server allows it. `minor_version` is 0 or 1. `content_length` is None for a body in
    chunks, and 0 where there is none.
    """

    __slots__ = (
        "content_length", "expects_continue", "headers", "keep_alive", "method",
        "minor_version", "target",
    )  # fmt: skip

    def __init__(self, method: str, target: str, minor_version: int, headers: Headers) -> None:
        self.method, self.target, self.minor_version = method, target, minor_version
        self.headers = headers
        self.content_length: int | None = 0
        self.keep_alive = minor_version == 1
        self.expects_continue = False


class Request:
    """A request whose head is whole. `body` is the whole body where it has arrived, else None.

    `head` is the same object as long as a connection repeats a head byte for byte, so that what
    a handler found out about it can be remembered with `connection.peer`.
    """

    __slots__ = ("body", "connection", "head", "headers", "incoming", "method", "target")

    def __init__(self, head: Head, connection: "Connection", body: bytes | None) -> None:
        self.head, self.connection, self.body = head, connection, body
        self.method, self.target, self.headers = head.method, head.target, head.headers
        self.incoming: IncomingBody | None = None

    @property
    def all_arrived(self) -> bool:
        """Whether the whole body is here, read or not."""
        return self.incoming is None or self.incoming.whole

    async def read(self, most: int | None = None, seconds: float | None = None) -> bytes:
        """The whole body, of at most `most` bytes, within `seconds`.

        The server's limits hold where these are None. Raises BodyTooLarge, BodyTooSlow and
        BodyBrokenOff.
        """
        limits = self.connection.limits
        most = limits.body_bytes if most is None else most
        if max(self.head.content_length or 0, len(self.body or b"")) > most:
            raise BodyTooLarge
        if self.incoming is None:
            return self.body or b""
        pieces, size = [], 0
        try:
            async with asyncio.timeout(limits.body_seconds if seconds is None else seconds):
                while piece := await self.incoming.next(None):
                    pieces.append(piece)
                    size += len(piece)
                    if size > most:
                        raise BodyTooLarge
        except TimeoutError:
            raise BodyTooSlow from None
        return b"".join(pieces)

    async def stream(self, seconds: float | None = None) -> AsyncIterator[bytes]:
        """The body piece by piece, each within `seconds`; the peer is held back meanwhile.

        The server's limit holds where `seconds` is None. Raises BodyTooSlow and BodyBrokenOff.
        """
        if self.incoming is None:
            if self.body:
                yield self.body
            return
        wait = self.connection.limits.body_seconds if seconds is None else seconds
        while piece := await self.incoming.next(wait):
            yield piece
