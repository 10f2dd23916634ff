"""Pages of other origins: who may call, and what they are told (Fetch standard, MCP "Security").

The app's own answers about origins are replaced, because the app does not know its own address.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from chassis.http1.request import Headers

_EXPOSED: Final = "WWW-Authenticate, Mcp-Session-Id, X-Request-Id"
_ALLOWED: Final = (
    "Authorization, Content-Type, Accept, Mcp-Session-Id, Mcp-Protocol-Version, Last-Event-ID"
)
_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
_PREFLIGHT_SECONDS: Final = "600"
_NAMES: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:, ?[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_MAX_NAMES: Final = 1024

Fields = tuple[tuple[str, str], ...]


class Origins:
    """The origins that may call: those that are configured, and the resource's own."""

    def __init__(self, allowed: frozenset[str], resource: str | None) -> None:
        self._allowed = allowed if resource is None else allowed | {_origin_of(resource)}
        self._shared = allowed

    def refuses(self, headers: Headers) -> bool:
        """Whether the request comes from a page of a foreign origin."""
        origin = headers.get("origin")
        return origin is not None and origin not in self._allowed

    def fields(self, headers: Headers) -> Fields:
        """What an answer says to a page of an allowed origin."""
        origin = headers.get("origin")
        vary = (("Vary", "Origin"),) if self._shared else ()  # what caches have to know
        if origin is None or origin not in self._allowed:
            return vary
        return (*_fields(origin), *vary)


def is_preflight(method: str, headers: Headers) -> bool:
    return (
        method == "OPTIONS" and "access-control-request-method" in headers and "origin" in headers
    )


def preflight_fields(headers: Headers) -> Mapping[str, str]:
    """The fields of the answer to a preflight, beside those of `Origins.fields`."""
    requested = headers.get("access-control-request-headers") or ""
    named = requested if len(requested) <= _MAX_NAMES and _NAMES.fullmatch(requested) else ""
    return {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": ", ".join(filter(None, (_ALLOWED, named))),
        "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
    }


def _fields(origin: str) -> Fields:
    return (
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Expose-Headers", _EXPOSED),
    )


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in (None, default) else f":{parts.port}"
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"
