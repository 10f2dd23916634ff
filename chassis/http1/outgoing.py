"""Requests as bytes: written anew from a method, a target, fields and a body."""

import re
from collections.abc import AsyncIterator, Iterable
from typing import Final, NamedTuple

from chassis.http1.response import render_fields

_REQUEST: Final = re.compile(r"[A-Z]+ /[!\"$-~]*")
_AUTHORITY: Final = re.compile(r"[!\"$-.0-~]+")


class RequestHead:
    """A request line and header fields, rendered once for any number of requests.

    `authority` is the value of `Host`. Raises ValueError for a line or fields that are malformed,
    and for fields that the client writes: `Host`, and those of `render_fields`.
    """

    __slots__ = ("method", "rendered")

    def __init__(
        self, method: str, target: str, authority: str, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        if _REQUEST.fullmatch(f"{method} {target}") is None or not _AUTHORITY.fullmatch(authority):
            raise ValueError("a request line that cannot be sent")
        fields = tuple(headers)
        if any(name.lower() == "host" for name, _ in fields):
            raise ValueError("a header field that cannot be sent: Host")
        self.method = method
        line = f"{method} {target} HTTP/1.1\r\nHost: {authority}\r\n"
        self.rendered = line.encode() + render_fields(fields)

    def with_lines(self, lines: bytes) -> "RequestHead":
        """The same request with these fields behind the others; they are rendered already."""
        more = object.__new__(RequestHead)
        more.method, more.rendered = self.method, self.rendered + lines
        return more


class OutgoingBody(NamedTuple):
    """A body that is made while it is sent, as fast as the peer reads it.

    `length` is its length where it is known; with None it goes out in chunks. `pieces` is closed
    at the end. Where it raises, or has another length, the connection is broken off, so that the
    peer never takes a part for the whole.
    """

    pieces: AsyncIterator[bytes]
    length: int | None = None


def render_head(head: RequestHead, body: bytes | OutgoingBody | None) -> bytes:
    """The head with the framing of `body`; None: no body and no framing."""
    if body is None:
        return head.rendered + b"\r\n"
    length = body.length if isinstance(body, OutgoingBody) else len(body)
    if length is None:
        return head.rendered + b"Transfer-Encoding: chunked\r\n\r\n"
    return b"%bContent-Length: %d\r\n\r\n" % (head.rendered, length)
