"""The id that names one request in every log it touches, from process to process.

A caller may bring one, in `X-Request-Id` or in the trace id of `traceparent` (W3C Trace Context
section 3.2). Its length and characters are bounded, for it is written to logs and sent on.
"""

import re
from collections.abc import Mapping
from random import getrandbits
from typing import Final

HEADER: Final = "X-Request-Id"
TRACEPARENT: Final = "traceparent"

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", re.ASCII
)


def new_request_id() -> str:
    """Sixteen hexadecimal digits; unique enough to find a line, and no secret."""
    return f"{getrandbits(64):016x}"


def caller_request_id(headers: Mapping[str, str]) -> str:
    """The id that a caller gave its request; empty where it gave none that we would repeat.

    `X-Request-Id` comes first: whoever sets it means it to be the name of this request.
    """
    given = headers.get(HEADER, "")
    if _REQUEST_ID.fullmatch(given):
        return given
    match = _TRACEPARENT.fullmatch(headers.get(TRACEPARENT, "")[:256])
    return match[1] if match else ""


def valid_traceparent(headers: Mapping[str, str]) -> str:
    """The caller's `traceparent` where it is well-formed, to be sent on as it is; else empty."""
    given = headers.get(TRACEPARENT, "")
    return given if len(given) <= 256 and _TRACEPARENT.fullmatch(given) else ""
