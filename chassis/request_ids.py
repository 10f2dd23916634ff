"""The id that names one request in every log it touches, from process to process.

A caller may bring one, in `X-Request-Id` or as the trace id of `traceparent` (W3C Trace Context
section 3.2). Its length and characters are bounded, for it is written to logs and sent on.
"""

import os
import re
from contextvars import ContextVar
from typing import Final, Protocol

from chassis.logs import current_request_id

HEADER: Final = "X-Request-Id"
TRACEPARENT: Final = "traceparent"

_FIELD: Final = HEADER.lower()
_TRACE_ID: Final = slice(3, 35)
_LENGTH: Final = 16
_MADE_AT_A_TIME: Final = 256

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII
)

_made: list[str] = []  # for requests to come: the system's random numbers cost a call each time

_traceparent: ContextVar[str] = ContextVar("traceparent", default="")


class Fields(Protocol):
    """Header fields, found by their lower-case name at least."""

    def get(self, name: str, /) -> str | None: ...


def new_request_id() -> str:
    """Sixteen hexadecimal digits: enough to find a line, and no secret."""
    try:
        return _made.pop()
    except IndexError:
        digits = os.urandom(_MADE_AT_A_TIME * _LENGTH // 2).hex()
        _made[:] = (digits[at : at + _LENGTH] for at in range(0, len(digits), _LENGTH))
        return _made.pop()


def caller_request_id(headers: Fields) -> str:
    """The id that a caller gave its request; empty where it gave none that we would repeat.

    `X-Request-Id` comes first: whoever sets it means it as the name of this request.
    """
    given = headers.get(_FIELD)
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    traceparent = _read_traceparent(headers)
    return traceparent[_TRACE_ID] if traceparent else ""


def keep_traceparent(headers: Fields) -> None:
    """Remember the caller's `traceparent`, if it is well-formed, for what this task sends on."""
    _traceparent.set(_read_traceparent(headers))


def outgoing_headers() -> dict[str, str]:
    """The headers that carry this task's request id and `traceparent` to the next process."""
    headers = {HEADER: current_request_id() or "", TRACEPARENT: _traceparent.get()}
    return {name: value for name, value in headers.items() if value}


def traceparent_line(headers: Fields) -> bytes:
    """The caller's `traceparent` as a line of a request's head; empty where there is none."""
    given = _read_traceparent(headers)
    return f"{TRACEPARENT}: {given}\r\n".encode("ascii") if given else b""


def _read_traceparent(headers: Fields) -> str:
    given = headers.get(TRACEPARENT)
    return given if given is not None and _TRACEPARENT.fullmatch(given) else ""
