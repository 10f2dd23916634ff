"""Reads the head of a request strictly: what two readers may understand differently is refused.

llhttp parses the fields. Its leniencies, and what it leaves to its caller, are closed here; the
decision page lists them. Nothing refused here is repeated in an answer or a log.
"""

import re
from functools import lru_cache
from typing import Final

from httptools import (
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)

from chassis.http1.errors import Malformed, Refused
from chassis.http1.limits import Limits
from chassis.http1.request import Head, Headers

END: Final = b"\r\n\r\n"

# Everything but line ends and what a field may hold; deleting it is faster than any search.
_HARMLESS: Final = bytes((0x09, *range(0x20, 0x7F), *range(0x80, 0x100)))
_NO_LINE_END: Final = re.compile(rb"\r(?!\n(?![ \t]))")
_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,20}) ([!\"$-~]+) HTTP/1\.([01])\r\n")
_METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?", re.ASCII
)
_ABSOLUTE: Final = re.compile(r"https?://[^/?]", re.IGNORECASE)
_LONGEST_HOST: Final = 262
_LONGEST_LENGTH: Final = 15  # digits

# What may be sent once only: two readers would choose different ones (aiohttp's list, and ours).
_ONCE: Final = frozenset(
    {
        "authorization", "content-encoding", "content-length", "content-location",
        "content-range", "content-type", "expect", "host", "max-forwards",
        "transfer-encoding", "user-agent",
    }
)  # fmt: skip

# The lower-case names of the usual spellings, so that they need not be made for every request.
_NAMES: Final = {
    spelling.encode(): name.lower()
    for name in (
        "Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Connection",
        "Content-Length", "Content-Type", "Expect", "Host", "Keep-Alive", "Mcp-Session-Id",
        "Origin", "Traceparent", "Transfer-Encoding", "User-Agent", "X-Request-Id", "X-Tokenward",
        "Cache-Control", "Date", "ETag", "Last-Modified", "Link", "Server", "Set-Cookie", "Vary",
    )
    for spelling in (name, name.lower())
}  # fmt: skip


class _Fields(Headers):
    """What httptools calls back."""

    __slots__ = ("complete",)

    def __init__(self) -> None:
        super().__init__()
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        known = _NAMES.get(name) or name.decode("latin-1").lower()
        text = value.decode("latin-1").strip(" \t")  # llhttp leaves what is behind a value
        if known in self._joined:
            self._repeat(known, text)
        else:
            self._joined[known] = text

    def on_headers_complete(self) -> None:
        self.complete = True


def read_head(raw: bytes, limits: Limits, *, absolute_form: bool) -> Head:
    """Read a head that ends with the first empty line in `raw`. Raises Refused."""
    check_lines(raw)
    line = _REQUEST_LINE.match(raw)
    if line is None:
        raise Malformed("request_line")
    method, target = _METHODS.get(line[1]), line[2].decode("ascii")
    if method is None:
        raise Refused("method", 501)
    if len(target) > limits.target_bytes:
        raise Refused("target_too_long", 414)
    if target[0] != "/" and not _is_other_form(target, method, absolute_form):
        raise Malformed("target")
    head = Head(method, target, int(line[3]), read_fields(HttpRequestParser, raw, limits))
    _check_host(head)
    _frame(head)
    return head


class Heads:
    """The heads of one connection. A program that asks the same again sends the same head.

    Then there is nothing to read, and `latest` stays the same object.
    """

    __slots__ = ("_absolute_form", "_last", "_limits", "_raw")

    def __init__(self, limits: Limits, *, absolute_form: bool) -> None:
        self._limits, self._absolute_form = limits, absolute_form
        self._raw = b""
        self._last: Head | None = None

    @property
    def latest(self) -> Head:
        """What `find` read last."""
        assert self._last is not None
        return self._last

    def find(self, data: bytes, at: int) -> int:
        """Read the head that begins at `at`, and return where it ends; 0 where it is not whole.

        Raises Refused.
        """
        if self._last is not None and data.startswith(self._raw, at):
            return at + len(self._raw)
        end = data.find(END, at) + len(END)
        if end < len(END):
            return 0
        if end - at > self._limits.head_bytes:
            raise Refused("head_too_large", 431)
        raw = data[at:end]
        self._last = read_head(raw, self._limits, absolute_form=self._absolute_form)
        self._raw = raw
        return end


def check_beginning(raw: bytes, limits: Limits) -> None:
    """Raise Refused where no head of ours can begin like `raw`, which has no empty line yet."""
    if not raw[:1].isupper():
        raise Malformed("request_line")
    check_lines(raw.removesuffix(b"\r"))  # it may be half of a line's end
    if len(raw) > limits.head_bytes:
        raise Refused("head_too_large", 431)


def check_lines(raw: bytes) -> None:
    """No control character; CR and LF only as CR LF; no line that goes on in the next one.

    With as many CR as LF, in turn, and an LF after each CR, there is no LF without a CR.
    """
    ends = raw.translate(None, _HARMLESS)
    if ends != b"\r\n" * (len(ends) // 2) or _NO_LINE_END.search(raw) is not None:
        raise Malformed("ambiguous_bytes")


def _is_other_form(target: str, method: str, absolute_form: bool) -> bool:
    if target == "*":
        return method == "OPTIONS"
    return absolute_form and _ABSOLUTE.match(target) is not None


def read_fields(
    parser: type[HttpRequestParser] | type[HttpResponseParser], raw: bytes, limits: Limits
) -> Headers:
    """The fields of a head whose lines were checked. Raises Refused."""
    fields = _Fields()
    try:
        parser(fields).feed_data(raw)
    except HttpParserUpgrade:
        pass  # RFC 9110 section 7.8: an upgrade may be ignored; some clients offer h2c each time
    except HttpParserError:
        raise Malformed("fields") from None
    if not fields.complete:
        raise Malformed("fields")
    if len(fields) > limits.fields:
        raise Refused("too_many_fields", 431)
    if fields.repeated and not _ONCE.isdisjoint(fields.repeated):
        raise Malformed("repeated_field")
    return fields


def _check_host(head: Head) -> None:
    host = head.headers.get("host")
    if host is None:
        if head.minor_version:
            raise Malformed("host")
    elif len(host) > _LONGEST_HOST or not _is_host(host):
        raise Malformed("host")


@lru_cache(maxsize=64)
def _is_host(text: str) -> bool:
    return _HOST.fullmatch(text) is not None


def _frame(head: Head) -> None:
    """Where the body ends, and whether the connection may go on (RFC 9112 sections 6 and 9.3)."""
    get = head.headers.get
    head.content_length = read_length(head.headers, head.minor_version, otherwise=0)
    head.keep_alive = read_keep_alive(head.headers, head.minor_version)
    expected = get("expect")
    if expected is not None and head.minor_version:
        if expected.lower() != "100-continue":
            raise Refused("expectation", 417)
        head.expects_continue = True


def read_length(headers: Headers, minor_version: int, *, otherwise: int) -> int | None:
    """How long a body is; None: in chunks; `otherwise` where nothing is said. Raises Malformed."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None or not minor_version or coding.lower() != "chunked":
            raise Malformed("transfer_encoding")
        return None
    if length is None:
        return otherwise
    if not (length.isascii() and length.isdigit() and len(length) <= _LONGEST_LENGTH):
        raise Malformed("content_length")
    return int(length)


def read_keep_alive(headers: Headers, minor_version: int) -> bool:
    """Whether a peer that sent these goes on with the connection."""
    options = headers.get("connection")
    if options is None:
        return minor_version == 1
    named = {option.strip(" \t").lower() for option in options.split(",")}
    return "close" not in named and (minor_version == 1 or "keep-alive" in named)
