"""Responses as handlers return them, and their heads as bytes.

The server writes `Date`, `Connection` and the framing by itself, and names no software.
"""

import re
import time
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from typing import Final

from chassis.clock import Clock
from chassis.utc import MONTHS

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_OURS: Final = frozenset(
    {"connection", "content-length", "date", "keep-alive", "server", "trailer",
     "transfer-encoding", "upgrade"}
)  # fmt: skip
_REASONS: Final = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content",
    301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
    307: "Temporary Redirect", 308: "Permanent Redirect",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 408: "Request Timeout", 409: "Conflict",
    411: "Length Required", 413: "Content Too Large", 414: "URI Too Long",
    415: "Unsupported Media Type", 417: "Expectation Failed", 422: "Unprocessable Content",
    429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip


def render_fields(headers: Iterable[tuple[str, str]]) -> bytes:
    """Fields as lines. Raises ValueError for those that are malformed or not the caller's."""
    return "".join([_line(name, value) for name, value in headers]).encode("latin-1")


def _line(name: str, value: str) -> str:
    if not _is_sendable(name) or not _VALUE.fullmatch(value):
        raise ValueError("a header field that cannot be sent")
    return f"{name}: {value}\r\n"


@lru_cache(maxsize=512)
def _is_sendable(name: str) -> bool:
    return name.lower() not in _OURS and _NAME.fullmatch(name) is not None


class ResponseHead:
    """A final status and header fields, rendered once for any number of responses.

    Raises ValueError for a status outside 200 to 599, for fields that are malformed, and for
    those that the server writes.
    """

    __slots__ = ("bodiless", "rendered", "status")

    def __init__(self, status: int, headers: Iterable[tuple[str, str]] = ()) -> None:
        if not 200 <= status <= 599:
            raise ValueError("no final status")
        self.status = status
        self.bodiless = status in (204, 304)
        line = f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n"
        self.rendered = line.encode() + render_fields(headers)

    def plus(self, name: str, value: str) -> "ResponseHead":
        """This head with one more field. Raises ValueError as making one does."""
        head = ResponseHead.__new__(ResponseHead)
        head.status, head.bodiless = self.status, self.bodiless
        head.rendered = self.rendered + _line(name, value).encode("latin-1")
        return head


class Response:
    """A whole response. With `close` it is the connection's last."""

    __slots__ = ("body", "close", "head")

    def __init__(self, head: ResponseHead, body: bytes = b"", *, close: bool = False) -> None:
        self.head, self.body, self.close = head, body, close


class StreamResponse:
    """A response whose body is made while it is sent, as fast as the peer reads it.

    `length` is the body's length where it is known; a body of another length breaks the
    connection off. `body` is closed at the end, and as soon as the peer has gone.
    """

    __slots__ = ("body", "close", "head", "length")

    def __init__(
        self,
        head: ResponseHead,
        body: AsyncIterator[bytes],
        *,
        length: int | None = None,
        close: bool = False,
    ) -> None:
        self.head, self.body, self.length, self.close = head, body, length, close


class DateLine:
    """The `Date` field, rendered once a second. `wall` is Unix time."""

    def __init__(self, wall: Clock) -> None:
        self._wall = wall
        self._second, self._line = -1, b""

    def __call__(self) -> bytes:
        second = int(self._wall())
        if second != self._second:
            self._second, self._line = second, _date(second)
        return self._line


def _date(second: int) -> bytes:
    """RFC 9110 section 5.6.7; strftime would follow the locale, email.utils is large."""
    at = time.gmtime(second)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[at.tm_wday]
    month = MONTHS[at.tm_mon - 1]
    clock = f"{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d}"
    return f"Date: {day}, {at.tm_mday:02d} {month} {at.tm_year:04d} {clock} GMT\r\n".encode()
