"""Header fields that go on to an API, and those of its answer that come back."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from chassis.http1.request import Headers
from sidecar.apis import Api
from sidecar.errors import DESTINATION_NOT_ALLOWED, ApiError

Fields = list[tuple[str, str]]

# RFC 9110 section 7.6.1 and RFC 9112: what belongs to one connection, and its framing.
_HOP_BY_HOP: Final = frozenset(
    {
        "connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip

# What would authenticate in place of the token, at APIs of any kind.
_CREDENTIALS: Final = frozenset(
    {
        "api-key", "apikey", "authorization", "cookie", "cookie2", "deploy-token", "job-token",
        "private-token", "x-access-token", "x-amz-security-token", "x-api-key", "x-auth-token",
        "x-goog-api-key",
    }
)  # fmt: skip
_OVERRIDES: Final = frozenset({"x-http-method", "x-http-method-override", "x-method-override"})

# Ours to write, and what would tell an API how the call came here.
_OURS: Final = frozenset(
    {
        "accept-encoding", "date", "server", "sec-fetch-mode", "traceparent", "tracestate",
        "x-request-id",
    }
)  # fmt: skip
_NEVER_SENT: Final = _HOP_BY_HOP | _CREDENTIALS | _OURS
_NEVER_SENT_PREFIXES: Final = ("proxy-", "x-tokenward")

# `alt-svc` would lead the caller around us; the server writes its own `date`.
_NEVER_RELAYED: Final = _HOP_BY_HOP | {"alt-svc", "date", "server", "set-cookie", "set-cookie2"}


def forwarded_fields(
    headers: Headers, api: Api, method: str, unverified_jwt: str
) -> Fields | ApiError:
    """What goes on to the API, without what we write ourselves.

    Names are compared as programs behind CGI or WSGI have them, where `_` is `-`. A field that
    overrides the method is refused where it names another one: without it the call would be a
    different call.
    """
    named = _named_by_connection(headers)
    fields = []
    for name, value in headers.items():
        canonical = name.replace("_", "-")
        if canonical in _OVERRIDES:
            if value.upper() != method:
                return DESTINATION_NOT_ALLOWED.with_reason(
                    "method_override", "A header overrides the method, which is not sent on."
                )
        elif not (
            canonical in _NEVER_SENT
            or canonical in named
            or canonical in api.credential_headers
            or canonical.startswith(_NEVER_SENT_PREFIXES)
            or unverified_jwt in value
        ):
            fields.append((name, value))
    if not api.search_answers and not api.link_members and "accept-encoding" in headers:
        fields.append(("accept-encoding", headers.get("accept-encoding") or ""))
    else:
        fields.append(("accept-encoding", "identity"))
    return fields


def relayed_fields(headers: Headers, dropped: Iterable[str] = ()) -> Fields:
    """What comes back of an answer's fields, without those in `dropped`; framing is ours."""
    left_out = _named_by_connection(headers).union(dropped)
    return [
        (name, value)
        for name, value in headers.items()
        if _is_relayed(name) and name not in left_out
    ]


@lru_cache(maxsize=512)
def _is_relayed(name: str) -> bool:
    return name not in _NEVER_RELAYED and not name.replace("_", "-").startswith(
        _NEVER_SENT_PREFIXES
    )


def _named_by_connection(headers: Headers) -> frozenset[str]:
    options = headers.get("connection")
    if options is None:
        return frozenset()
    return frozenset(option.strip(" \t").lower() for option in options.split(","))
