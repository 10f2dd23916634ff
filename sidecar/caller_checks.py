"""Whether a call comes from a program of this pod that means us, judged before any look-up.

A server-side request forgery, a proxied request and a page in a browser each leave marks that
no honest local caller has: forwarding and browser headers, a foreign Host, an absolute target.
"""

from typing import Final

from chassis.http1.request import Headers
from sidecar.errors import FORBIDDEN_CALLER, ApiError

# Browsers send Sec-Fetch-Site with every request. Sec-Fetch-Mode alone is no mark: Node's fetch
# sends it.
_FORBIDDEN_NAMES: Final = frozenset({"forwarded", "via", "origin", "referer", "sec-fetch-site"})
_FORBIDDEN_PREFIX: Final = "x-forwarded"

# What honest clients send: nothing here can be a mark, and asking one set of constants about all
# names at once is cheaper than reading each of them.
_HARMLESS_NAMES: Final = frozenset(
    {
        "accept", "accept-encoding", "accept-language", "authorization", "connection",
        "content-length", "content-type", "host", "keep-alive", "sec-fetch-mode", "traceparent",
        "tracestate", "transfer-encoding", "user-agent", "x-request-id", "x-tokenward",
    }
)  # fmt: skip


def check_caller(headers: Headers, target: str, hosts: frozenset[str]) -> ApiError | None:
    """Why this caller is refused on any route; `target` is the request line's own spelling.

    `hosts` are the names of our own address. The server lets one Host header pass.
    """
    if not target.startswith("/"):
        return FORBIDDEN_CALLER.with_reason("target", "The request target must be a path.")
    if headers.get("host") not in hosts:
        return FORBIDDEN_CALLER.with_reason(
            "host", "Host must be 127.0.0.1:<port> or localhost:<port>."
        )
    if not headers.names <= _HARMLESS_NAMES and any(map(_is_mark, headers.names)):
        return FORBIDDEN_CALLER.with_reason(
            "forwarded_or_browser",
            "Calls that were forwarded, or come from a browser, are refused.",
        )
    return None


def refuse_token_call(headers: Headers, method: str) -> ApiError | None:
    """Why this call is not one for a token: each mark is more than a forged request can set."""
    if method != "POST":
        return FORBIDDEN_CALLER.with_reason("method", "Tokens are asked for by POST.")
    if headers.get_all("x-tokenward") != ["1"]:
        return FORBIDDEN_CALLER.with_reason(
            "x_tokenward", "The header X-Tokenward: 1 must be sent."
        )
    content_types = headers.get_all("content-type")
    if content_types != ["application/json"] and _media_types(content_types) != [
        "application/json"
    ]:
        return FORBIDDEN_CALLER.with_reason(
            "content_type", "Content-Type must be application/json."
        )
    return None


def _is_mark(name: str) -> bool:
    return name in _FORBIDDEN_NAMES or name.startswith(_FORBIDDEN_PREFIX)


def _media_types(content_types: list[str]) -> list[str]:
    return [content_type.partition(";")[0].strip().lower() for content_type in content_types]
